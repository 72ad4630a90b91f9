"""X.509: keys, signing requests, reading certificates, and the check that an issued certificate is fit.

The only importer of cryptography; never loaded by the resident daemon. References: RFC 5280 (certificates), RFC 2986
(PKCS #10), and the AWS IoT developer guide on client certificates (the id is the SHA-256 of the DER).
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from iot_agent.core.errors import Code, Fatal, Retryable
from iot_agent.core.record import Certificate

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
# What the library raises for bytes that it cannot read, beside `ValueError`.
UNREADABLE = (
    TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip

CLOCK_TOLERANCE = 300  # seconds that the issuer's clock may be ahead of ours
# A certificate that is valid for longer would never be renewed; those that AWS IoT issues itself end in 2049.
LONGEST_LIFE = 30 * 366 * 86400  # seconds
OTHER_KEY = "it is not for our key"

_GENERATORS: dict[str, Callable[[], PrivateKey]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
}
ALGORITHMS = tuple(_GENERATORS)


@dataclass(frozen=True)
class Expectation:
    """What a fit certificate must be: for this key (DER SubjectPublicKeyInfo) and serial, issued by one of `issuers`.

    `issuers` is PEM text with the manufacturer CAs that this device was given. None means that it was given no file;
    a file without a certificate is an error instead.
    """

    public_key: bytes
    serial: str
    issuers: str | None
    now: float


def generate_key(algorithm: str) -> bytes:
    """Make a private key, one of `ALGORITHMS`, as unencrypted PKCS #8 PEM."""
    return _GENERATORS[algorithm]().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(pem: bytes) -> PrivateKey:
    """Read a private key; raises `Fatal("bad-credentials")` for one of another kind than we make."""
    try:
        with _reading():
            key = serialization.load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise Fatal(Code.BAD_CREDENTIALS, f"not a usable private key: {error}") from error
    if not isinstance(key, PrivateKey):
        raise Fatal(Code.BAD_CREDENTIALS, "neither an EC nor an RSA key")
    return key


def public_key(key: PrivateKey) -> bytes:
    """Give the DER SubjectPublicKeyInfo of a key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def build_csr(key: PrivateKey, serial: str) -> str:
    """Build a PKCS #10 request with subject CN = serial and nothing else: the cloud decides the rest."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, serial)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


@dataclass(frozen=True)
class Examined:
    """A certificate's facts, and its flaws, each a sentence about "it". Dates are not judged here.

    `odd` breaks a rule of RFC 5280 and is accepted all the same: the sample's cloud gives serial numbers of 0.
    """

    facts: Certificate
    flaws: tuple[str, ...]
    odd: str | None


def examine(pem: str, chain: str | None, expected: Expectation) -> Examined:
    """Find every flaw of a certificate; raises `ValueError` if it, or its chain, cannot be read.

    It must be for our key and our name, signed by its issuer (one of `issuers`, if there are any), and an
    end-entity certificate for client authentication.
    """
    with _reading():
        certificate = x509.load_pem_x509_certificate(pem.encode())
        certificate.extensions  # noqa: B018 - parses them all: a broken extension is found here, not later
        trusted = chain if expected.issuers is None else expected.issuers
        issuers = None if trusted is None else load_issuers(trusted)
        number = certificate.serial_number
        odd = f"its serial number is {number}, which must be positive (RFC 5280, 4.1.2.2)" if number <= 0 else None
        return Examined(_facts(certificate), tuple(_flaws(certificate, issuers, expected)), odd)


def load_issuers(pem: str) -> list[x509.Certificate]:
    """Read the certificates of CAs, one or more; raises `ValueError` where there is none or one cannot be read."""
    with _reading():
        return x509.load_pem_x509_certificates(pem.encode())


@contextmanager
def _reading() -> Iterator[None]:
    """Read what somebody else wrote: every error of the library about it becomes a `ValueError`.

    Its warning about a serial number of 0 is not written to stderr: `Examined.odd` says that.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UNREADABLE as error:
        raise ValueError(f"{error}") from error


def check_fit(pem: str, chain: str | None, expected: Expectation) -> Certificate:
    """Check a certificate before it is stored; `Retryable("unfit-certificate")` names the first check that fails.

    It must be without flaws (`examine`), and valid now.
    """
    try:
        examined = examine(pem, chain, expected)
    except ValueError as error:
        raise _unfit(f"it, or its chain, cannot be read: {error}") from error
    found = examined.facts
    if examined.flaws:
        raise _unfit(examined.flaws[0])
    if found.not_before > expected.now + CLOCK_TOLERANCE:
        raise _unfit("it is not valid yet by this device's clock")
    if found.not_after <= expected.now:
        raise _unfit("it has expired by this device's clock")
    if found.not_after - found.not_before > LONGEST_LIFE:
        valid = f"{_date(found.not_before)} to {_date(found.not_after)}"
        raise _unfit(f"it would be valid from {valid}, longer than 30 years; look at the stack's lifetime parameter")
    return found


def _flaws(
    certificate: x509.Certificate, issuers: list[x509.Certificate] | None, expected: Expectation
) -> Iterator[str]:
    if certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != expected.public_key:
        yield OTHER_KEY
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [expected.serial]:
        yield f"its subject is {certificate.subject.rfc4514_string()!r}, not CN={expected.serial}"
    if issuers is not None and not any(_issued_by(certificate, issuer) for issuer in issuers):
        yield "it is not signed by the manufacturer's CA"
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            yield "it is a CA certificate"
    except x509.ExtensionNotFound:
        pass  # absent means that it is not a CA (RFC 5280, 4.2.1.9)
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # absent means any purpose (RFC 5280, 4.2.1.12); the sample's cloud leaves it out
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        yield "it is not for client authentication"


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def _facts(certificate: x509.Certificate) -> Certificate:
    der = certificate.public_bytes(Encoding.DER)
    return Certificate(
        hashlib.sha256(der).hexdigest(),
        int(certificate.not_valid_before_utc.timestamp()),
        int(certificate.not_valid_after_utc.timestamp()),
    )


def _date(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


def _unfit(why: str) -> Retryable:
    return Retryable(Code.UNFIT_CERTIFICATE, f"the issued certificate was refused: {why}")
