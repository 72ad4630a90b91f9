"""What makes a certificate fit, each check alone; OpenSSL is the second opinion on what we make."""

import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from iot_agent.core.errors import Fatal, Retryable
from iot_agent.keys import certificates
from iot_agent.keys.certificates import Expectation, check_fit
from iot_agent.keys.file import FileKeys
from tests.simulator.authority import Authority

NOW = 1_790_000_000.0
SERIAL = "SN-0001"
KEY = certificates.load_key(certificates.generate_key("ec-p256"))
CA, OTHER_CA = Authority("Manufacturer CA", NOW), Authority("Manufacturer CA", NOW)
Change = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]


def certificate(  # noqa: PLR0913 - one argument for each thing that can be wrong
    *,
    names: tuple[str, ...] = (SERIAL,),
    ca: Authority = CA,
    start: float = NOW - 100,
    end: float = NOW + 1000,
    extensions: tuple[x509.ExtensionType, ...] = (),
    key: Any = KEY,  # noqa: ANN401 - any private key
) -> str:
    builder = x509.CertificateBuilder(
        issuer_name=ca.name,
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=datetime.fromtimestamp(start, UTC).replace(tzinfo=None),
        not_valid_after=datetime.fromtimestamp(end, UTC).replace(tzinfo=None),
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def expectation(issuers: str | None = CA.pem) -> Expectation:
    return Expectation(certificates.public_key(KEY), SERIAL, issuers, NOW)


CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
A_CA = x509.BasicConstraints(ca=True, path_length=None)
STRANGER = certificates.load_key(certificates.generate_key("ec-p256"))


@pytest.mark.parametrize(
    ("name", "pem"),
    [
        ("as our stack issues it", certificate(extensions=(CLIENT,))),
        ("as the sample's cloud issues it, without extensions", certificate()),
        ("from a cloud whose clock is a little ahead", certificate(start=NOW + certificates.CLOCK_TOLERANCE)),
    ],
)
def test_a_fit_certificate_passes(name: str, pem: str) -> None:
    facts = check_fit(pem, None, expectation())
    assert len(facts.certificate_id) == 64, name
    assert facts.not_after == NOW + 1000


@pytest.mark.parametrize(
    ("complaint", "pem"),
    [
        ("not for our key", certificate(key=STRANGER)),
        ("its subject is 'CN=SN-0002'", certificate(names=("SN-0002",))),
        ("its subject is", certificate(names=(SERIAL, "SN-0002"))),
        ("its subject is", certificate(names=())),
        ("not signed by the manufacturer's CA", certificate(ca=OTHER_CA)),
        ("a CA certificate", certificate(extensions=(A_CA,))),
        ("not for client authentication", certificate(extensions=(SERVER,))),
        ("not valid yet", certificate(start=NOW + certificates.CLOCK_TOLERANCE + 1)),
        ("expired", certificate(end=NOW - 1)),
        ("cannot be read", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("cannot be read", ""),
    ],
)
def test_an_unfit_certificate_is_refused_and_the_check_named(complaint: str, pem: str) -> None:
    with pytest.raises(Retryable, match=complaint) as refused:
        check_fit(pem, None, expectation())
    assert refused.value.code == "unfit-certificate"


def serial_zero(directory: Path) -> str:
    """Have OpenSSL issue what our own library would not."""
    ca, key, made = directory / "ca.pem", directory / "ca.key", directory / "zero.pem"
    ca.write_text(CA.pem)
    key.write_bytes(CA.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (directory / "request.pem").write_text(certificates.build_csr(KEY, SERIAL))
    issue = f"openssl x509 -req -in request.pem -CA {ca} -CAkey {key} -set_serial 0 -days 1000 -out {made}"
    subprocess.run(issue.split(), cwd=directory, check=True, capture_output=True)
    return made.read_text()


def test_a_serial_number_of_zero_is_told_and_is_no_raw_warning(tmp_path: Path) -> None:
    pem = serial_zero(tmp_path)
    with warnings.catch_warnings(record=True) as raw:
        warnings.simplefilter("always")
        expected = replace(expectation(), now=time.time())
        assert check_fit(pem, None, expected)
        assert certificates.examine(pem, None, expected).odd == (
            "its serial number is 0, which must be positive (RFC 5280, 4.1.2.2)"
        )
        assert certificates.load_issuers(pem)
    assert raw == []


YEAR = 365.25 * 86400


@pytest.mark.parametrize(("years", "fit"), [(10, True), (24, True), (30, True), (31, False), (7900, False)])
def test_a_certificate_that_nobody_would_see_renewed_is_refused_with_both_dates(years: float, fit: bool) -> None:  # noqa: FBT001 - a row
    """The sample's cloud issues for ten years, AWS IoT itself until 2049."""
    pem = certificate(end=NOW + years * YEAR)
    if fit:
        check_fit(pem, None, expectation())
    else:
        with pytest.raises(Retryable, match=r"valid from 2026-09-21 to \d{4}-\d\d-\d\d, longer than 30 years"):
            check_fit(pem, None, expectation())


@pytest.mark.parametrize("issuers", ["", "\n", "-----BEGIN CERTIFICATE-----\n"])
@pytest.mark.parametrize("chain", [None, OTHER_CA.pem])
def test_a_ca_file_without_a_ca_is_no_weaker_check(issuers: str, chain: str | None) -> None:
    with pytest.raises(Retryable, match="cannot be read"):
        check_fit(certificate(ca=OTHER_CA), chain, expectation(issuers))


def test_without_a_given_ca_the_chain_that_came_along_must_fit() -> None:
    check_fit(certificate(), CA.pem, expectation(None))
    check_fit(certificate(), None, expectation(None))
    with pytest.raises(Retryable, match="manufacturer's CA"):
        check_fit(certificate(), OTHER_CA.pem, expectation(None))


def test_a_given_ca_outweighs_the_chain_that_came_along() -> None:
    with pytest.raises(Retryable, match="manufacturer's CA"):
        check_fit(certificate(ca=OTHER_CA), OTHER_CA.pem, expectation())


def test_several_given_cas_allow_a_change_of_ca() -> None:
    check_fit(certificate(ca=OTHER_CA), None, expectation(CA.pem + OTHER_CA.pem))


@pytest.mark.parametrize("algorithm", certificates.ALGORITHMS)
def test_openssl_accepts_the_request_of_every_kind_of_key(algorithm: str, tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "identities")
    keys.generate("iot-agent-1", algorithm)
    (tmp_path / "request.pem").write_text(keys.csr("iot-agent-1", SERIAL))
    command = ["openssl", "req", "-in", str(tmp_path / "request.pem"), "-verify", "-noout", "-subject"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "subject=CN = SN-0001" in done.stdout
    assert (tmp_path / "identities" / "iot-agent-1" / "key.pem").stat().st_mode & 0o777 == 0o600


def test_the_same_key_is_kept_when_it_is_there(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "identities")
    keys.generate("iot-agent-1", "ec-p256")
    public_key = keys.public_key("iot-agent-1")
    keys.generate("iot-agent-1", "ec-p256")
    assert keys.public_key("iot-agent-1") == public_key
    keys.remove("iot-agent-1")
    keys.remove("iot-agent-1")
    with pytest.raises(Fatal, match="cannot read"):
        keys.csr("iot-agent-1", SERIAL)


@pytest.mark.parametrize("pem", [b"", b"junk", b"\0" * 200])
def test_what_is_no_key_is_said_to_be_none(pem: bytes) -> None:
    with pytest.raises(Fatal, match="not a usable private key"):
        certificates.load_key(pem)


# ---- bugs planted ---------------------------------------------------------------------------------------------------

UNFIT = {
    "another key": certificate(key=STRANGER),
    "another name": certificate(names=("SN-0002",)),
    "another CA": certificate(ca=OTHER_CA),
    "a CA": certificate(extensions=(A_CA,)),
    "a server": certificate(extensions=(SERVER,)),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_bug_planted_a_check_that_finds_no_flaw(unfit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_flaws", lambda *_: ())
    check_fit(UNFIT[unfit], None, expectation())


def test_bug_planted_every_ca_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_issued_by", lambda *_: True)
    check_fit(UNFIT["another CA"], None, expectation())


def test_bug_planted_no_life_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LONGEST_LIFE", 2**63)
    check_fit(certificate(end=NOW + 7900 * YEAR), None, expectation())
