from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import botocore
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud.common import certificates
from cloud.common.aws_session import AMAZON_ROOTS
from cloud.common.certificates import Signer

NOW = certificates.now()


def a_ca(name: str = "iot-agent vendor CA") -> Signer:
    """Return a CA."""
    key = certificates.load(certificates.new_key(), "the CA")
    return Signer(certificates.ca_certificate(key, name, NOW), key)


def a_device(ca: Signer, lifetime: timedelta = timedelta(days=30)) -> str:
    """Return a device certificate of the CA."""
    return certificates.device_certificate(certificates.new_key(), "SN-1", ca, lifetime, NOW)


def verifies(directory: Path, ca: Signer, certificate: str, purpose: str = "sslclient") -> bool:
    """Whether OpenSSL, at its strictest, accepts the certificate under the CA."""
    (directory / "ca.pem").write_text(ca.certificate)
    (directory / "certificate.pem").write_text(certificate)
    words = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "certificate.pem"]
    return subprocess.run(words, cwd=directory, capture_output=True, check=False).returncode == 0


def test_openssl_strictly_accepts_ca_and_device_certificate(tmp_path: Path) -> None:
    ca = a_ca()
    assert verifies(tmp_path, ca, ca.certificate, "any")
    assert verifies(tmp_path, ca, a_device(ca))


def test_openssl_refuses_a_device_certificate_of_another_ca_or_as_a_server(tmp_path: Path) -> None:
    """The check above can fail."""
    ca = a_ca()
    assert not verifies(tmp_path, ca, a_device(a_ca()))
    assert not verifies(tmp_path, ca, a_device(ca), "sslserver")


def test_a_ca_says_that_it_is_one_and_signs_devices_only() -> None:
    extensions = x509.load_pem_x509_certificate(a_ca().certificate.encode()).extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    subject = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == subject


def test_a_device_certificate_is_for_a_client_named_for_its_serial() -> None:
    certificate = x509.load_pem_x509_certificate(a_device(a_ca()).encode())
    assert certificate.subject.rfc4514_string() == "CN=SN-1"
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_device_certificate_does_not_outlive_its_ca() -> None:
    ca = a_ca()
    leaf = x509.load_pem_x509_certificate(a_device(ca, timedelta(days=36500)).encode())
    assert leaf.not_valid_after_utc == x509.load_pem_x509_certificate(ca.certificate.encode()).not_valid_after_utc


def test_two_cas_of_one_name_have_different_subjects() -> None:
    """AWS IoT takes no more than ten CAs of one subject."""
    one, other = (x509.load_pem_x509_certificate(a_ca("x" * 100).certificate.encode()).subject for _ in range(2))
    assert one != other


@pytest.mark.parametrize("changed", ["nothing", "key", "serial", "authority", "time", "chain"])
def test_a_chain_is_current_until_anything_about_it_changes(changed: str) -> None:
    ca, key = a_ca(), certificates.new_key()
    leaf = certificates.device_certificate(key, "SN-1", ca, timedelta(days=1), NOW)
    assert certificates.is_current(
        leaf if changed == "chain" else leaf + ca.certificate,
        certificates.new_key() if changed == "key" else key,
        "SN-2" if changed == "serial" else "SN-1",
        a_ca().certificate if changed == "authority" else ca.certificate,
        NOW + timedelta(days=2 if changed == "time" else 0),
    ) == (changed == "nothing")


def test_amazons_roots_are_found_in_the_trust_store_that_comes_with_botocore() -> None:
    store = Path(botocore.__file__).with_name("cacert.pem").read_text(encoding="utf-8")
    assert certificates.select(store, AMAZON_ROOTS).count("BEGIN CERTIFICATE") == 5
    with pytest.raises(LookupError, match="No Such Root"):
        certificates.select(store, ["Amazon Root CA 1", "No Such Root"])
