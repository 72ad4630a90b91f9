"""X.509: the two CAs and the vendor certificate that a device is delivered with (RFC 5280). No files, no network.

- Keys made here are P-256. A CA's key may also be RSA, and may be in KMS, where it can only sign.
- A CA certificate has CA:TRUE with path length 0, keyCertSign and cRLSign, both critical, and key identifiers; newer
  Pythons refuse a CA with less.
- A device certificate is CA:FALSE, digitalSignature, clientAuth; its subject is the serial and nothing else,
  because the provisioning template needs nothing else.
- Valid from an hour ago: a device's clock may be behind.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.common.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CA_LIFETIME: Final = timedelta(days=3652)
PEM: Final = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
BACKDATE: Final = timedelta(hours=1)


def new_key() -> str:
    """Return a new P-256 private key, PKCS #8 PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def load(pem: str, whose: str) -> PrivateKey:
    """Return the private key in a PEM; SetupError, which names `whose` key it is, if it is not an EC or RSA key."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise SetupError(f"{whose} is not an unencrypted PEM private key", "restore it from your copy") from error
    if not isinstance(key, PrivateKey):
        raise SetupError(f"{whose} is neither an EC nor an RSA key", "use a key that AWS IoT accepts for a CA")
    return key


def ca_certificate(key: PrivateKey, name: str, now: datetime) -> str:
    """Return a self-signed CA certificate for the key. `name` becomes unique by a part of the key's identifier."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = _name(f"{name[:48]} {identifier.digest.hex()[:8]}")
    builder = (
        _certificate(key, subject, now, now + CA_LIFETIME)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@dataclasses.dataclass(frozen=True)
class Signer:
    """A CA that signs: its certificate, PEM, and its key."""

    certificate: str
    key: PrivateKey


def device_certificate(key_pem: str, serial: str, signer: Signer, lifetime: timedelta, now: datetime) -> str:
    """Return the certificate of a device's key for `serial`, signed by the CA and not outliving it."""
    ca = x509.load_pem_x509_certificate(signer.certificate.encode())
    key = load(key_pem, f"the key of {serial}")
    issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _certificate(key, _name(serial), now, min(now + lifetime, ca.not_valid_after_utc))
        .issuer_name(ca.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
    )
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def is_pair(certificate_pem: str, key: PrivateKey) -> bool:
    """Whether the certificate is for the private key."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).public_key() == key.public_key()


def is_current(chain_pem: str, key_pem: str, serial: str, ca_pem: str, now: datetime) -> bool:
    """Whether a bundle's certificate chain can still be delivered: for this key, serial and CA, and not expired."""
    leaf, *rest = x509.load_pem_x509_certificates(chain_pem.encode())
    return (
        leaf.public_key() == load(key_pem, f"the key of {serial}").public_key()
        and leaf.subject == _name(serial)
        and rest == [x509.load_pem_x509_certificate(ca_pem.encode())]
        and leaf.issuer == rest[0].subject
        and leaf.not_valid_after_utc > now
    )


def certificate_id(certificate_pem: str) -> str:
    """Return the AWS IoT id of a certificate, a CA's or a device's: the SHA-256 of its DER form, in hex."""
    der = x509.load_pem_x509_certificate(certificate_pem.encode()).public_bytes(Encoding.DER)
    return hashlib.sha256(der).hexdigest()


def select(bundle_pem: str, common_names: Sequence[str]) -> str:
    """Return those root certificates of a trust store whose common name is one of these. Raises LookupError.

    No certificate is parsed: a strict parser refuses Starfield's G2 root, whose serial number is 0. A name is looked
    for with its length before it (X.690, section 8.1); a root is its own issuer, so its name is there twice.
    """
    twice = 2
    found: dict[str, str] = {}
    for block in PEM.findall(bundle_pem):
        der = ssl.PEM_cert_to_DER_cert(block)
        found |= {name: block + "\n" for name in common_names if der.count(bytes([len(name)]) + name.encode()) == twice}
    if missing := set(common_names) - found.keys():
        raise LookupError(", ".join(sorted(missing)))
    return "".join(found[name] for name in sorted(found))


def now() -> datetime:
    """Return the time without microseconds, as in certificates."""
    return datetime.now(UTC).replace(microsecond=0)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(key: PrivateKey, subject: x509.Name, now: datetime, not_after: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(subject)
        .public_key(key.public_key())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
