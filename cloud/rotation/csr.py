"""Whether a certificate request may be signed, and which serial a certificate names. Pure.

- At most 8 KiB, PEM, one request, PKCS #10 (RFC 2986).
- Signed with the private key that belongs to its public key, which proves that the device has it.
- Its subject has exactly one common name, and that is the serial.
- The key is RSA of at least 2048 bits, P-256 or P-384 (what AWS IoT accepts, DG: X.509 client certificates).

Everything else in a request is ignored: the issuer sets the certificate's subject, extensions and lifetime.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cloud.rotation.messages import MAX_CSR

MIN_RSA_BITS: Final = 2048

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What the library raises for bytes that it cannot read."""


class BadCsrError(ValueError):
    """The request is refused; the text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may be signed: its key, and that key's fingerprint (lower-case hex SHA-256 of the DER SPKI)."""

    key: PublicKey
    fingerprint: str


def check(pem: str, serial: str) -> Request:
    """Return the request in `pem` if it may be signed for `serial`; BadCsrError otherwise."""
    if len(pem.encode()) > MAX_CSR:
        raise BadCsrError(f"the request is larger than {MAX_CSR} bytes")
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        signed = csr.is_signature_valid
        names = _common_names(csr.subject)
        key = csr.public_key()
    except UNREADABLE as error:
        raise BadCsrError("the request cannot be read") from error
    if not signed:
        raise BadCsrError("the request is not signed by its own key")
    if names != [serial]:
        raise BadCsrError(f"the request's subject must have exactly one common name, {serial}")
    return Request(_strong(key), fingerprint(_strong(key)))


def fingerprint(key: PublicKey) -> str:
    """Return the lower-case hex SHA-256 of the key's DER SubjectPublicKeyInfo."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def subject_and_end(pem: str) -> tuple[str | None, int]:
    """Return the one common name in a certificate's subject, None if it has none or several, and its notAfter (ms).

    For a certificate that cannot be read: None and 0.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        names = _common_names(certificate.subject)
        not_after = int(certificate.not_valid_after_utc.timestamp() * 1000)
    except UNREADABLE:
        return None, 0
    return (names[0] if len(names) == 1 else None), not_after


def _common_names(subject: x509.Name) -> list[str]:
    return [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _strong(key: object) -> PublicKey:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    raise BadCsrError(f"the key must be RSA of at least {MIN_RSA_BITS} bits, P-256 or P-384")
