"""The `KeyStore` of keys that never leave a token; each operation is a process of its own (`pkcs11_helper`).

A key's directory `identities/<label>/` contains `key.uri` in place of the key: where the key is (RFC 7512). It is
written before the key is made, so that every key on the token has its file on the disk.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iot_agent.core.errors import Code, Fatal, Retryable
from iot_agent.core.ports import Credentials
from iot_agent.core.settings import Token, TokenKey
from iot_agent.host.subprocesses import NoAnswer, ask
from iot_agent.keys import certificates, pkcs11_uri
from iot_agent.keys.remote_key import remote_key
from iot_agent.storage import atomic, layout

PROGRAM = "iot_agent.keys.pkcs11_helper"


class TokenKeys:
    """The keys on one token. An operation that takes longer than `limit` seconds is stopped."""

    backend = "pkcs11"

    def __init__(self, state: Path, token: Token, limit: float) -> None:
        self._state = state
        self._token = token
        self._limit = limit

    def generate(self, label: str, algorithm: str) -> None:
        """Store where the key will be, then make it there."""
        directory = self._state / layout.IDENTITIES / label
        reference = directory / layout.KEY_ON_TOKEN
        try:
            atomic.make_directory(directory.parent)
            atomic.make_directory(directory)
            atomic.write(reference, pkcs11_uri.write(TokenKey(self._token, label)).encode() + b"\n", layout.KEY_MODE)
        except OSError as error:
            raise Retryable(Code.KEY_STORE, f"cannot write {reference}: {error}") from error
        self._ask("generate", label, algorithm)

    def csr(self, label: str, serial: str) -> str:
        """Build the CSR (PEM)."""
        return certificates.build_csr(self._key(label), serial)

    def public_key(self, label: str) -> bytes:
        """Give the DER SubjectPublicKeyInfo."""
        return certificates.public_key(self._key(label))

    def _key(self, label: str) -> certificates.PrivateKey:
        def sign(data: bytes) -> bytes:
            return bytes.fromhex(self._ask("sign", label, data.hex()))

        return remote_key(bytes.fromhex(self._ask("public_key", label)), sign)

    def credentials(self, label: str, certificate: Path) -> Credentials:
        """Point at the certificate, and at the key on the token."""
        return Credentials(certificate, TokenKey(self._token, label))

    def look(self) -> list[str]:
        """List the token's flags (CK_TOKEN_INFO) without a login; raises `Retryable("token")`."""
        return list(self._ask("look"))

    def labels(self) -> frozenset[str]:
        """List the labels of our keys on the token."""
        return frozenset(self._ask("labels"))

    def remove(self, label: str) -> None:
        """Delete the key on the token; `key.uri` stays until the directory is removed, so a crash loses no key."""
        self._ask("remove", label)

    def _ask(self, operation: str, *arguments: str) -> Any:  # noqa: ANN401 - each operation has its own result
        request = {
            "parent": os.getpid(),
            "state": str(self._state),
            "token": asdict(self._token),
            "operation": operation,
            "arguments": arguments,
        }
        what = f"{operation} on token {self._token.label!r} of {self._token.module}"
        try:
            # In the process group of the worker, so that whoever kills the worker kills the helper.
            answer = json.loads(ask(PROGRAM, json.dumps(request).encode() + b"\n", self._limit, own_group=False))
        except OSError as error:
            raise Retryable(Code.TOKEN, f"{what} could not be started: {error}") from error
        except NoAnswer as error:
            raise Retryable(Code.TOKEN, f"{what} {error}; what it wrote last is in the journal") from error
        if "result" in answer:
            return answer["result"]
        if answer["fatal"]:
            raise Fatal(Code(answer["code"]), answer["message"])
        raise Retryable(Code(answer["code"]), answer["message"], answer["retry_after"])
