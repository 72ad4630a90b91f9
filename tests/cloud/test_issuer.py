"""What an issued certificate looks like, judged by cryptography and by openssl."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from moto import mock_aws

from cloud.rotation import csr, issuer
from tests.cloud import pki

if TYPE_CHECKING:
    from pathlib import Path

    from cloud.rotation.issuer import SigningKey
    from cloud.rotation.record import Certificate

DAY = timedelta(days=1)


class InMemory:
    """A key source that holds its key."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    def key(self) -> SigningKey:
        """Return the key."""
        return self._key


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def issue(ca: pki.Authority, kind: str = "p256", lifetime: timedelta = 90 * DAY, now: int | None = None) -> Certificate:
    request = csr.check(pki.csr(["SN-1"], kind), "SN-1")
    return issuer.Issuer(ca.pem, InMemory(ca.key), lifetime).issue(request, "SN-1", now or now_ms())


def load(issued: Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.pem.encode())


def bits(usage: x509.KeyUsage) -> set[str]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(usage, name)}


@pytest.mark.parametrize("ca_kind", ["p256", "p384", "rsa-2048"])
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa-2048"])
def test_openssl_accepts_every_kind_of_key_under_every_kind_of_ca(tmp_path: Path, ca_kind: str, kind: str) -> None:
    ca = pki.authority(f"{ca_kind} CA", ca_kind)
    (tmp_path / "ca.pem").write_text(ca.pem)
    (tmp_path / "leaf.pem").write_text(issue(ca, kind).pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "leaf.pem: OK", done.stderr


@pytest.mark.parametrize("kind", ["p256", "rsa-2048"])
def test_the_certificate_is_the_clouds_and_not_the_requests(kind: str) -> None:
    ca = pki.authority("manufacturer CA")
    issued = issue(ca, kind)
    certificate = load(issued)
    certificate.verify_directly_issued_by(ca.certificate)
    assert [(a.oid, a.value) for a in certificate.subject] == [(NameOID.COMMON_NAME, "SN-1")]
    extensions = {extension.value.oid: extension for extension in certificate.extensions}
    assert len(extensions) == 5
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    encipherment = {"key_encipherment"} if isinstance(pki.key(kind), rsa.RSAPrivateKey) else set()
    assert bits(usage.value) == {"digital_signature"} | encipherment
    extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    own = x509.SubjectKeyIdentifier.from_public_key(pki.signing_key(kind).public_key())
    assert certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == own
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    above = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == above.digest
    assert issued.certificate_id == pki.certificate_id(issued.pem)
    assert issued.not_after == certificate.not_valid_after_utc.timestamp() * 1000


def test_serial_numbers_are_random_and_long() -> None:
    numbers = [load(issue(pki.authority("manufacturer CA"))).serial_number for _ in range(20)]
    assert len(set(numbers)) == 20
    assert max(number.bit_length() for number in numbers) > 150


@pytest.mark.parametrize(
    ("lifetime", "backdate"),
    [
        (90 * DAY, timedelta(hours=1)),
        (timedelta(hours=5), timedelta(minutes=30)),
        (timedelta(seconds=10), timedelta(seconds=1)),
    ],
)
def test_a_certificate_is_backdated_by_a_tenth_of_its_life_but_at_most_an_hour(
    lifetime: timedelta, backdate: timedelta
) -> None:
    now = now_ms()
    start = datetime.fromtimestamp(now // 1000, UTC)
    certificate = load(issue(pki.authority("manufacturer CA"), lifetime=lifetime, now=now))
    assert start - certificate.not_valid_before_utc == backdate
    assert certificate.not_valid_after_utc - start == lifetime


def test_a_certificate_ends_with_its_ca_at_the_latest() -> None:
    ca = pki.authority("short CA", days=30)
    assert load(issue(ca)).not_valid_after_utc == ca.certificate.not_valid_after_utc


def test_a_certificate_does_not_begin_before_its_ca() -> None:
    ca = pki.authority("manufacturer CA")
    born = int(ca.certificate.not_valid_before_utc.timestamp() * 1000)
    assert load(issue(ca, now=born + 1000)).not_valid_before_utc == ca.certificate.not_valid_before_utc


@pytest.mark.parametrize("days", [-2, 31])
def test_a_ca_that_is_not_valid_signs_nothing(days: int) -> None:
    then = int((datetime.now(UTC) + days * DAY).timestamp() * 1000)
    with pytest.raises(issuer.IssuerError, match="not valid now"):
        issue(pki.authority("short CA", days=30), now=then)


def test_a_key_of_another_ca_signs_nothing() -> None:
    ca = pki.Authority(pki.authority("manufacturer CA").pem, pki.signing_key("p256", 99))
    with pytest.raises(issuer.IssuerError, match="does not belong"):
        issue(ca)


def test_a_ca_without_a_key_identifier_still_gives_its_leaves_one() -> None:
    ca = pki.authority("manufacturer CA")
    bare = x509.load_pem_x509_certificate(ca.sign_vendor(["a bare CA"]).encode())
    profile = issuer.profile(pki.signing_key("p384").public_key(), "SN-1", bare, datetime.now(UTC), DAY)
    leaf = profile.sign(ca.key, issuer._digest(ca.key))
    found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert found == x509.AuthorityKeyIdentifier.from_issuer_public_key(pki.signing_key("p256").public_key())


@mock_aws
def test_the_ssm_key_is_read_once_while_warm(aws_environment: None) -> None:  # noqa: ARG001 - needed, not used
    ca = pki.authority("manufacturer CA")
    ssm = boto3.client("ssm")
    ssm.put_parameter(Name="/k", Value=ca.key_pem, Type="SecureString")
    source = issuer.connect(pki.authority("manufacturer CA").pem, "/k", "")
    assert source.key().private_numbers() == ca.key.private_numbers()
    ssm.delete_parameter(Name="/k")
    assert source.key().private_numbers() == ca.key.private_numbers()


@mock_aws
@pytest.mark.parametrize("value", ["-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "s3cret"])
def test_a_parameter_without_a_key_is_told_without_telling_the_secret(
    aws_environment: None,  # noqa: ARG001 - needed, not used
    value: str,
) -> None:
    boto3.client("ssm").put_parameter(Name="/k", Value=value, Type="SecureString")
    with pytest.raises(issuer.IssuerError, match="/k does not hold") as caught:
        issuer.connect(pki.authority("manufacturer CA").pem, "/k", "").key()
    assert caught.value.__suppress_context__


@mock_aws
def test_a_key_that_cannot_sign_certificates_here_is_refused(aws_environment: None) -> None:  # noqa: ARG001
    pem = pki.key("ed25519").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    boto3.client("ssm").put_parameter(Name="/k", Value=pem, Type="SecureString")
    with pytest.raises(issuer.IssuerError, match="neither RSA nor EC"):
        issuer.connect(pki.authority("manufacturer CA").pem, "/k", "").key()
