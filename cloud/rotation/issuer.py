"""The manufacturer CA: the profile of a device certificate, and its signature.

- The subject is the serial and nothing else; extensions and lifetime are set here.
- Valid from before now, for devices whose clock is behind: by a tenth of the lifetime, at most an hour.
- Never valid outside the validity of the CA itself.
- A CA that is expired, or whose key does not belong to its certificate, signs nothing.

The signing key is a private key object of `cryptography`: the key itself, from an SSM SecureString, or an object that
asks KMS, where the key stays. The certificate is built in the same way with both.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import boto3
from botocore.config import Config
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.rotation import csr, kms
from cloud.rotation.record import Certificate
from cloud.rotation.settings import TIMEOUTS

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_ssm import SSMClient

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

MAX_BACKDATE: Final = timedelta(hours=1)


class IssuerError(RuntimeError):
    """The CA cannot sign; an operator has to solve this. The text never contains key material."""


class KeySource(Protocol):
    """Where the CA's signing key comes from."""

    def key(self) -> SigningKey:
        """Return the key; this is called for every signature, so a slow source keeps the key."""


class SsmKey:
    """The key, PEM, in an SSM SecureString; kept in memory while the function is warm, and never logged."""

    def __init__(self, ssm: SSMClient, parameter: str) -> None:
        self._ssm = ssm
        self._parameter = parameter
        self._key: SigningKey | None = None

    def key(self) -> SigningKey:
        """Return the key; AWS errors are raised as they are."""
        if self._key is None:
            answer = self._ssm.get_parameter(Name=self._parameter, WithDecryption=True)
            try:
                key = load_pem_private_key(answer["Parameter"]["Value"].encode(), password=None)
            except ValueError:
                # The parser's own error may quote what it read.
                raise IssuerError(f"{self._parameter} does not hold a PEM private key") from None
            if not isinstance(key, SigningKey):
                raise IssuerError(f"{self._parameter} holds a key that is neither RSA nor EC")
            self._key = key
        return self._key


class KmsKey:
    """The key in KMS with the ARN `key_arn`; its public key is that of the CA certificate."""

    def __init__(self, client: KMSClient, key_arn: str, ca_pem: str) -> None:
        self._client, self._arn, self._ca_pem = client, key_arn, ca_pem

    def key(self) -> SigningKey:
        """Return the key, which asks KMS for each signature and can do nothing else; KmsError if KMS cannot hold it."""
        # Not in __init__: an error here is answered to the device that asks; one during start-up could not be.
        public = x509.load_pem_x509_certificate(self._ca_pem.encode()).public_key()
        return kms.private_key(self._client, self._arn, public)


def connect(ca_pem: str, parameter: str, key_arn: str) -> SsmKey | KmsKey:
    """Return the source of the CA's key: KMS if there is an ARN, else the SSM parameter of that name."""
    config = Config(**TIMEOUTS)
    if key_arn:
        return KmsKey(boto3.client("kms", config=config), key_arn, ca_pem)
    return SsmKey(boto3.client("ssm", config=config), parameter)


class Issuer:
    """Signs device certificates with `source`'s key, as the CA of the certificate `ca_pem`."""

    def __init__(self, ca_pem: str, source: KeySource, lifetime: timedelta) -> None:
        self.ca_pem = ca_pem
        self._ca = x509.load_pem_x509_certificate(ca_pem.encode())
        self._source = source
        self._lifetime = lifetime

    def signed(self, pem: str) -> bool:
        """Whether this CA signed the certificate `pem`."""
        try:
            x509.load_pem_x509_certificate(pem.encode()).verify_directly_issued_by(self._ca)
        except (ValueError, TypeError, InvalidSignature):  # another name, another kind of key, another key
            return False
        return True

    def issue(self, request: csr.Request, serial: str, now: int) -> Certificate:
        """Return a new certificate for `request`'s key, valid from shortly before `now` (ms)."""
        key = self._source.key()
        if key.public_key() != self._ca.public_key():
            raise IssuerError("the manufacturer CA's key does not belong to its certificate")
        start = datetime.fromtimestamp(now // 1000, UTC)
        if not self._ca.not_valid_before_utc <= start < self._ca.not_valid_after_utc:
            raise IssuerError("the manufacturer CA certificate is not valid now")
        signed = profile(request.key, serial, self._ca, start, self._lifetime).sign(key, _digest(key))
        return Certificate(
            certificate_id=hashlib.sha256(signed.public_bytes(Encoding.DER)).hexdigest(),
            public_key=request.fingerprint,
            pem=signed.public_bytes(Encoding.PEM).decode(),
            issued_at=now,
            not_after=int(signed.not_valid_after_utc.timestamp() * 1000),
        )


def profile(
    key: csr.PublicKey, serial: str, ca: x509.Certificate, start: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    """Return the device certificate of `key`, to be signed by `ca` (RFC 5280, section 4.2)."""
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=isinstance(key, rsa.RSAPublicKey),
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, serial)]))
        .issuer_name(ca.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())  # 159 random bits
        .not_valid_before(max(start - min(lifetime / 10, MAX_BACKDATE), ca.not_valid_before_utc))
        .not_valid_after(min(start + lifetime, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority(ca), critical=False)
    )


def _authority(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(ca.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _digest(key: SigningKey) -> hashes.SHA256 | hashes.SHA384:
    strong = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256  # noqa: PLR2004 - P-256
    return hashes.SHA384() if strong else hashes.SHA256()
