"""The `KeyStore` of keys that never leave a token; each operation is a process of its own (`pkcs11_helper`).

A key's directory `identities/<label>/` contains `key.uri` in place of the key: where the key is (RFC 7512). It is
written before the key is made, so that every key on the token has its file on the disk.
"""

import os
from pathlib import Path
from typing import Any

from iot_agent.core.errors import Code, Retryable
from iot_agent.core.ports import Credentials
from iot_agent.core.settings import Token, TokenKey
from iot_agent.host.subprocesses import NoAnswer, ask
from iot_agent.keys import certificates, pkcs11_uri, token_messages
from iot_agent.keys.remote_key import remote_key
from iot_agent.keys.token_messages import Request
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
        public = self._ask("public_key", label)
        try:
            return remote_key(public, lambda data: bytes(self._ask("sign", label, data.hex())))
        except ValueError as error:
            where = f"token {self._token.label!r} of {self._token.module}"
            raise Retryable(Code.TOKEN, f"the public key that {where} gave cannot be read: {error}") from error

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
        request = Request(os.getpid(), str(self._state), self._token, operation, arguments)
        what = f"{operation} on token {self._token.label!r} of {self._token.module}"
        try:
            # In the process group of the worker, so that whoever kills the worker kills the helper.
            answer = ask(PROGRAM, token_messages.encode_request(request), self._limit, own_group=False)
            return token_messages.decode_answer(answer, operation)
        except OSError as error:
            raise Retryable(Code.TOKEN, f"{what} could not be started: {error}") from error
        except NoAnswer as error:
            raise Retryable(Code.TOKEN, f"{what} {error}; what it wrote last is in the journal") from error
        except ValueError as error:
            raise Retryable(Code.TOKEN, f"{what} gave an answer that cannot be read: {error}") from error
