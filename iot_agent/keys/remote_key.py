"""Private keys that stay on a token, as subclasses of cryptography's: they give their public half, and sign.

The CSR builder needs no more. What would need the private key itself raises `UnsupportedOperation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Sign = Callable[[bytes], bytes]  # data to its X.509 signature with SHA-256


class UnsupportedOperation(Exception):
    """The private key cannot leave its token."""


def remote_key(public: bytes, sign: Sign) -> RemoteEcKey | RemoteRsaKey:
    """Give the private key whose public half is `public` (DER SubjectPublicKeyInfo) and that `sign` signs with.

    Raises `ValueError` if that is no such key.
    """
    try:
        half = serialization.load_der_public_key(public)
    except UnsupportedAlgorithm as error:
        raise ValueError(f"{error}") from error
    if isinstance(half, ec.EllipticCurvePublicKey):
        return RemoteEcKey(half, sign)
    if isinstance(half, rsa.RSAPublicKey):
        return RemoteRsaKey(half, sign)
    raise ValueError(f"neither an EC nor an RSA key: {type(half).__name__}")


def _stays(*_arguments: object, **_keywords: object) -> NoReturn:
    raise UnsupportedOperation("the private key cannot leave its token")


class RemoteEcKey(ec.EllipticCurvePrivateKey):
    """An EC key on a token."""

    def __init__(self, public: ec.EllipticCurvePublicKey, sign: Sign) -> None:
        self._public, self._sign = public, sign

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Give the public half."""
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:  # noqa: ANN401, ARG002 - as the class has it
        """Have the token sign, with SHA-256 whatever `signature_algorithm` says."""
        return self._sign(bytes(data))

    @property
    def curve(self) -> ec.EllipticCurve:
        """Name the curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Give the size in bits."""
        return self._public.key_size

    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = _stays


class RemoteRsaKey(rsa.RSAPrivateKey):
    """An RSA key on a token."""

    def __init__(self, public: rsa.RSAPublicKey, sign: Sign) -> None:
        self._public, self._sign = public, sign

    def public_key(self) -> rsa.RSAPublicKey:
        """Give the public half."""
        return self._public

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:  # noqa: ANN401, ARG002 - as the class has it
        """Have the token sign, with PKCS #1 v1.5 and SHA-256 whatever the arguments say."""
        return self._sign(bytes(data))

    @property
    def key_size(self) -> int:
        """Give the size in bits."""
        return self._public.key_size

    decrypt = private_numbers = private_bytes = __copy__ = __deepcopy__ = _stays
