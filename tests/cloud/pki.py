"""Keys, authorities, requests and certificates for the tests; keys are made once, they cost most of the time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from cloud.rotation.issuer import SigningKey

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate, PEM, and its key."""

    pem: str
    key: SigningKey

    @property
    def certificate(self) -> x509.Certificate:
        """The CA certificate."""
        return load(self.pem)

    @property
    def key_pem(self) -> str:
        """The CA's key, PKCS #8 PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def sign_vendor(self, common_names: list[str]) -> str:
        """Return a vendor certificate, PEM, as a contract manufacturer makes them."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common_names))
            .issuer_name(self.certificate.subject)
            .public_key(key("p256").public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=7300))
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def key(kind: str, number: int = 0) -> Key:
    """Return a private key: p256, p384, p521, ed25519 or rsa-<bits>; the same again for the same number."""
    return _key(kind, number)


@cache
def _key(kind: str, _number: int) -> Key:
    match kind:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "p521":
            return ec.generate_private_key(ec.SECP521R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa-")))


def signing_key(kind: str, number: int = 0) -> SigningKey:
    """Return a private key a CA may have."""
    made = key(kind, number)
    assert isinstance(made, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return made


def name(common_names: list[str]) -> x509.Name:
    """Return a subject with these common names."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name) for common_name in common_names])


@cache
def authority(title: str, kind: str = "p256", days: int = 3650) -> Authority:
    """Return a self-signed CA, valid from yesterday for `days`."""
    own, now = signing_key(kind, hash(title)), datetime.now(UTC).replace(microsecond=0)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name([title]))
        .issuer_name(name([title]))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own.public_key()), critical=False)
    )
    return Authority(builder.sign(own, hashes.SHA256()).public_bytes(Encoding.PEM).decode(), own)


def csr(common_names: list[str], kind: str = "p256", number: int = 0) -> str:
    """Return a certificate request, PEM."""
    own = key(kind, number)
    algorithm = None if isinstance(own, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(common_names))
    return builder.sign(own, algorithm).public_bytes(Encoding.PEM).decode()


def load(pem: str) -> x509.Certificate:
    """Return the certificate in `pem`."""
    return x509.load_pem_x509_certificate(pem.encode())


def certificate_id(pem: str) -> str:
    """Return the id AWS IoT gives a certificate."""
    return hashlib.sha256(load(pem).public_bytes(Encoding.DER)).hexdigest()
