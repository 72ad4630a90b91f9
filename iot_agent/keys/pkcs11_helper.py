"""Keys on a PKCS #11 token: one process for each operation, the only one that has python-pkcs11.

A child process of the worker: one line of JSON on stdin, one on stdout (`token_messages`); what the module writes
goes to stderr. It is a process of its own because modules crash, hang and leak; because some see what another process
has made only after they were initialised again; and because awscrt loads the module too: awscrt and python-pkcs11 in
one process end in a segmentation fault.

A key is a pair of objects with one label. It is made on the token and cannot leave it (CKA_SENSITIVE and not
CKA_EXTRACTABLE). No object with another label than one of ours is used or destroyed.
"""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, Session
from pkcs11.util.ec import encode_ec_public_key, encode_ecdsa_signature, encode_named_curve_parameters
from pkcs11.util.rsa import encode_rsa_public_key

from iot_agent.core.errors import LOCKED_PAUSE, AgentError, Code, Fatal, Retryable
from iot_agent.core.ports import Pins
from iot_agent.core.settings import Token
from iot_agent.host import hardening
from iot_agent.keys import token_messages
from iot_agent.keys.pin import PinSources
from iot_agent.keys.token_messages import Request

# Exactly what `layout.new_label` makes, stricter than `layout.is_label`: another program may keep keys on this token
# and have named one iot-agent-…, and a key that is listed here and has no directory is destroyed.
OUR_LABELS = re.compile(r"iot-agent-\d{8}T\d{6}Z-[0-9a-f]+")
CURVES = {"ec-p256": "secp256r1", "ec-p384": "secp384r1"}
RSA_BITS = {"rsa-2048": 2048, "rsa-3072": 3072}
# The TPM module sets these itself, and refuses a template that has them.
PUBLIC = {Attribute.ENCRYPT: pkcs11.DEFAULT, Attribute.WRAP: pkcs11.DEFAULT, Attribute.VERIFY: pkcs11.DEFAULT}
PRIVATE = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
# A new key is read back from the token: it is used only if it has these attributes.
STAYS = {
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.NEVER_EXTRACTABLE: True,
    Attribute.LOCAL: True,
}

ABSENT = (
    pkcs11.NoSuchToken,
    pkcs11.TokenNotPresent,
    pkcs11.TokenNotRecognised,
    pkcs11.DeviceRemoved,
    pkcs11.UserPinNotInitialized,
)
# Modules report these when the token, or the disk on which it stores keys, has no room for a new key.
NO_ROOM = (pkcs11.DeviceMemory, pkcs11.FunctionFailed, pkcs11.GeneralError)
CANNOT = (
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.DomainParamsInvalid,
    pkcs11.KeySizeRange,
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.TemplateInconsistent,
)


class SessionKeys:
    """The operations of the `KeyStore` port within one session of a token."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def generate(self, label: str, algorithm: str) -> None:
        """Make a key pair, unless both halves are there; one half alone was left by a crash, and is replaced."""
        if not self._find(ObjectClass.PRIVATE_KEY, label) or not self._find(ObjectClass.PUBLIC_KEY, label):
            self.remove(label)
            try:
                self._make(label, algorithm)
            except NO_ROOM as error:
                why = f"the token made no key, perhaps for want of room: {_name(error)}"
                raise Retryable(Code.TOKEN_FULL, why) from error
        private = self._half(ObjectClass.PRIVATE_KEY, label)
        found = {attribute: private[attribute] for attribute in STAYS}
        if found != STAYS:
            self.remove(label)
            wrong = ", ".join(attribute.name for attribute in STAYS if found[attribute] != STAYS[attribute])
            raise Fatal(Code.KEY_STORE, f"the token made a key that could leave it ({wrong}); it was destroyed")

    def _make(self, label: str, algorithm: str) -> None:
        how: dict[str, Any] = {
            "id": os.urandom(8),
            "label": label,
            "store": True,
            "public_template": PUBLIC,
            "private_template": PRIVATE,
        }
        if algorithm in RSA_BITS:  # for TLS a TPM signs with its decrypt operation
            signs = MechanismFlag.SIGN | MechanismFlag.DECRYPT
            self._session.generate_keypair(KeyType.RSA, RSA_BITS[algorithm], capabilities=signs, **how)
        else:
            curve = {Attribute.EC_PARAMS: encode_named_curve_parameters(CURVES[algorithm])}
            parameters = self._session.create_domain_parameters(KeyType.EC, curve, local=True)
            parameters.generate_keypair(capabilities=MechanismFlag.SIGN, **how)

    def public_key(self, label: str) -> str:
        """Give the public half in hexadecimal DER: SubjectPublicKeyInfo (EC) or RSAPublicKey (RFC 8017, A.1.1)."""
        public = self._half(ObjectClass.PUBLIC_KEY, label)
        encode = encode_rsa_public_key if public.key_type is KeyType.RSA else encode_ec_public_key
        return str(encode(public).hex())

    def sign(self, label: str, data: str) -> str:
        """Sign data with SHA-256, both in hexadecimal: PKCS #1 v1.5, or ECDSA as in X.509."""
        private, content = self._half(ObjectClass.PRIVATE_KEY, label), bytes.fromhex(data)
        if private.key_type is KeyType.RSA:
            return str(private.sign(content, mechanism=Mechanism.SHA256_RSA_PKCS).hex())
        digest = hashlib.sha256(content).digest()
        return str(encode_ecdsa_signature(private.sign(digest, mechanism=Mechanism.ECDSA)).hex())

    def labels(self) -> list[str]:
        """List the labels of our keys."""
        halves = [*self._find(ObjectClass.PRIVATE_KEY), *self._find(ObjectClass.PUBLIC_KEY)]
        return sorted({half.label for half in halves if half.label and OUR_LABELS.fullmatch(half.label)})

    def remove(self, label: str) -> None:
        """Destroy both halves."""
        for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            for half in self._find(kind, label):
                half.destroy()

    def _half(self, kind: ObjectClass, label: str) -> Any:  # noqa: ANN401 - a private or a public key
        found = self._find(kind, label)
        if not found:
            raise Fatal(Code.KEY_STORE, f"there is no key {label} on the token")
        return found[0]

    def _find(self, kind: ObjectClass, label: str | None = None) -> list[Any]:
        wanted = {Attribute.CLASS: kind} | ({} if label is None else {Attribute.LABEL: label})
        return list(self._session.get_objects(wanted))


@contextmanager
def session(token: Token, pins: Pins) -> Iterator[Session]:
    """Open a session of the token, with one login; raises `AgentError` for every error of the module."""
    where = f"token {token.label!r} of {token.module}"
    try:
        library = pkcs11.lib(token.module)
        found = library.get_token(token_label=token.label)
        with _opened(found, token, pins) as opened:
            yield opened
        library.finalize()
    except ABSENT as error:
        raise Retryable(Code.TOKEN, f"there is no {where}: {_name(error)}") from error
    except pkcs11.PinLocked as error:
        raise Retryable(
            Code.PIN_LOCKED, f"the {where} is locked; it is left alone for an hour", LOCKED_PAUSE
        ) from error
    except CANNOT as error:
        raise Fatal(Code.KEY_STORE, f"the {where} cannot make such a key: {_name(error)}") from error
    except pkcs11.PKCS11Error as error:
        raise Retryable(Code.TOKEN, f"the {where} failed: {_name(error)}") from error


def _opened(found: pkcs11.Token, token: Token, pins: Pins) -> Session:
    pin = pins.read(token)
    try:
        return found.open(rw=True, user_pin=pin)
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange) as error:
        raise pins.refused(token, pin) from error


def _name(error: pkcs11.PKCS11Error) -> str:
    return f"{type(error).__name__} {error}".strip()


def look(token: Token) -> list[str]:
    """List the token's flags (CK_TOKEN_INFO) without a session, so without a login."""
    try:
        flags = pkcs11.lib(token.module).get_token(token_label=token.label).flags
    except pkcs11.PKCS11Error as error:
        raise Retryable(Code.TOKEN, f"there is no token {token.label!r} of {token.module}: {_name(error)}") from error
    return [flag.name for flag in pkcs11.TokenFlag if flag in flags and flag.name is not None]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "generate": SessionKeys.generate,
    "public_key": SessionKeys.public_key,
    "sign": SessionKeys.sign,
    "labels": SessionKeys.labels,
    "remove": SessionKeys.remove,
}


def main() -> int:
    """Serve one request."""
    hardening.keep_private()
    request = token_messages.decode_request(sys.stdin.buffer.readline())
    hardening.end_with(request.parent)
    answers = os.dup(1)
    os.dup2(2, 1)  # what a module writes to stdout must not be in the answer
    try:
        answer = token_messages.encode_result(_result(request))
    except AgentError as error:
        answer = token_messages.encode_error(error)
    os.write(answers, answer)
    return 0


def _result(request: Request) -> Any:  # noqa: ANN401 - each operation has its own result
    if request.operation == "look":
        return look(request.token)
    with session(request.token, PinSources(Path(request.state))) as opened:
        return OPERATIONS[request.operation](SessionKeys(opened), *request.arguments)


if __name__ == "__main__":
    sys.exit(main())
