"""One suite for every keeper of the manufacturer CA's key; openssl judges what comes out, as a stranger would.

KMS is the local cloud's, whose signatures over a digest are real.
"""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud.common import certificates
from cloud.common.aws_session import connect
from cloud.rotation import csr, issuer, kms
from cloud.setup import ca_key
from cloud.setup.ssm_parameters import Names, Parameters
from tests.cloud import pki

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud.common.aws_session import Cloud
    from tests.local.local_stack import Stage

    Bug = Callable[[pki.Authority, Any], x509.Certificate]

SHA256 = hashes.SHA256()
NOW = datetime.now(UTC).replace(microsecond=0)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
KEEPERS = ["ssm:p256", "ssm:p384", "ssm:rsa-2048", "ssm:rsa-3072", "kms:ECC_NIST_P256", "kms:RSA_2048", "kms:RSA_3072"]


class Issues(Protocol):
    """A CA, and what issues in its name."""

    @property
    def ca_pem(self) -> str:
        """The CA's certificate."""

    def issue(self, kind: str = "p256", lifetime: timedelta = 90 * DAY) -> str:
        """Return a device's certificate, PEM."""


@dataclass(frozen=True)
class Signer:
    """A CA whose key is kept somewhere, and where the Lambda finds it."""

    ca_pem: str
    source: issuer.KeySource

    def issue(self, kind: str = "p256", lifetime: timedelta = 90 * DAY) -> str:
        """Return a device's certificate, PEM, as the Lambda makes it."""
        request = csr.check(pki.csr(["SN-1"], kind), "SN-1")
        now = int(NOW.timestamp() * 1000)
        return issuer.Issuer(self.ca_pem, self.source, lifetime).issue(request, "SN-1", now).pem


@pytest.fixture(scope="module")
def here(stage: Stage) -> Cloud:
    return connect(None, stage.cloud.directory)


@pytest.fixture(scope="module", params=KEEPERS)
def signer(request: pytest.FixtureRequest, here: Cloud) -> Signer:
    """Make a key where it is kept, and the CA with it, as setup does; give it to the issuer as the Lambda does."""
    place, kind = request.param.split(":")
    names = Names(f"signing-{kind.replace('_', '-')}")
    parameters = Parameters(here.session.client("ssm", config=here.config))
    if place == "kms":
        keeper: ca_key.Custody = ca_key.in_kms(here, names, ca_key.spec_of(request.param))
    else:
        pem = pki.signing_key(kind, 7).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        parameters.keep(names.manufacturer_key, pem.decode(), secret=True)
        keeper = ca_key.InSsm(parameters, names)
    ca_pem = certificates.ca_certificate(keeper.find() or keeper.make(), names.stack, NOW)
    told = keeper.parameters()
    if "ManufacturerKeyArn" in told:
        client = here.session.client("kms", config=here.config)
        return Signer(ca_pem, issuer.KmsKey(client, told["ManufacturerKeyArn"], ca_pem))
    ssm = here.session.client("ssm", config=here.config)
    return Signer(ca_pem, issuer.SsmKey(ssm, told["ManufacturerKeyParameter"]))


# ---- what must be true of a certificate -----------------------------------------------------------------------------


def openssl(directory: Path, ca_pem: str, pem: str, purpose: str) -> str | None:
    """Return what openssl has against a certificate, by the strictest rules it has; None if nothing."""
    (directory / "ca.pem").write_text(ca_pem)
    (directory / "it.pem").write_text(pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "it.pem"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return None if done.stdout == "it.pem: OK\n" else done.stderr


def faults(directory: Path, issues: Issues, kind: str = "p256") -> set[str]:
    """Return all that is wrong with what is issued; empty when it is as it should be."""
    lifetime = 90 * DAY
    ca, pem = pki.load(issues.ca_pem), issues.issue(kind, lifetime)
    leaf, eternal = pki.load(pem), pki.load(issues.issue(kind, 36500 * DAY))
    own, above = (x509.SubjectKeyIdentifier.from_public_key(of.public_key()) for of in (leaf, ca))
    extensions = {type(extension.value): extension.value for extension in leaf.extensions}
    usage: Any = extensions.get(x509.KeyUsage)
    wanted: dict[str, bool] = {
        "openssl": openssl(directory, issues.ca_pem, pem, "sslclient") is None,
        "extensions": len(extensions) == 5,
        "basic constraints": extensions.get(x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None),
        "key usage": usage is not None and usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign,
        "extended": extensions.get(x509.ExtendedKeyUsage) == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
        "own identifier": extensions.get(x509.SubjectKeyIdentifier) == own,
        "authority": extensions.get(x509.AuthorityKeyIdentifier)
        == x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above),
        "begin": leaf.not_valid_before_utc == NOW - HOUR,
        "end": leaf.not_valid_after_utc == NOW + lifetime,
        "end with the CA": eternal.not_valid_after_utc == ca.not_valid_after_utc,
        "serial number": 128 < leaf.serial_number.bit_length() < 160 and leaf.serial_number != eternal.serial_number,
    }
    return {name for name, holds in wanted.items() if not holds}


@pytest.mark.parametrize("kind", ["p256", "rsa-2048"])
def test_nothing_is_wrong_with_what_is_issued(signer: Signer, kind: str, tmp_path: Path) -> None:
    assert faults(tmp_path, signer, kind) == set()


def test_nothing_is_wrong_with_the_ca(signer: Signer, tmp_path: Path) -> None:
    assert openssl(tmp_path, signer.ca_pem, signer.ca_pem, "any") is None
    ca = pki.load(signer.ca_pem)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)


def test_serial_numbers_never_repeat(signer: Signer) -> None:
    assert len({pki.load(signer.issue()).serial_number for _ in range(4)}) == 4


def test_in_the_name_of_another_ca_nothing_is_signed(signer: Signer) -> None:
    with pytest.raises(issuer.IssuerError, match="does not belong"):
        Signer(pki.authority("another CA").pem, signer.source).issue()


# ---- planted bugs: each must be noticed, and for what it is ---------------------------------------------------------


def spoilt(*, lacks: type | None = None, has: x509.ExtensionType | None = None, **fields: object) -> Bug:
    """Sign a builder without an extension, with another in its place, or with other fields (by their names in it)."""

    def sign(ca: pki.Authority, builder: Any) -> x509.Certificate:  # noqa: ANN401 - its inside, which is private
        replaced = (lacks or type(None), type(has))
        builder._extensions = [one for one in builder._extensions if not isinstance(one.value, replaced)]
        for name, value in fields.items():
            setattr(builder, f"_{name}", value)
        made: x509.Certificate = (builder.add_extension(has, critical=True) if has else builder).sign(ca.key, SHA256)
        return made

    return sign


def signed(wrong: Callable[[Any, bytes], bytes]) -> Bug:
    """Sign a builder with what `wrong` makes of the CA's key and the data."""

    class Key(kms.EcInKms):
        def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
            super().__init__(cast("Any", None), "none", key.public_key())
            self._key = key

        def sign(self, data: object, _algorithm: object) -> bytes:
            return wrong(self._key, cast("bytes", data))

    def sign(ca: pki.Authority, builder: Any) -> x509.Certificate:  # noqa: ANN401 - as above
        assert isinstance(ca.key, ec.EllipticCurvePrivateKey)
        made: x509.Certificate = builder.sign(Key(ca.key), SHA256)
        return made

    return sign


BUGS: dict[str, tuple[Bug, set[str]]] = {
    "none": (spoilt(), set()),
    "the digest, hashed again": (
        signed(lambda key, data: bytes(key.sign(hashlib.sha256(data).digest(), ec.ECDSA(SHA256)))),
        {"openssl"},
    ),
    "the digest of another hash": (
        signed(lambda key, data: bytes(key.sign(data, ec.ECDSA(hashes.SHA384())))),
        {"openssl"},
    ),
    "another key": (
        signed(lambda _key, data: cast("Any", pki.signing_key("p256", 8)).sign(data, ec.ECDSA(SHA256))),
        {"openssl"},
    ),
    "a CA": (spoilt(has=x509.BasicConstraints(ca=True, path_length=None)), {"basic constraints"}),
    "no constraints": (spoilt(lacks=x509.BasicConstraints), {"extensions", "basic constraints"}),
    "no key usage": (spoilt(lacks=x509.KeyUsage), {"extensions", "key usage"}),
    "no extended key usage": (spoilt(lacks=x509.ExtendedKeyUsage), {"extensions", "extended"}),
    "a server": (spoilt(has=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])), {"extended", "openssl"}),
    "no identifier": (spoilt(lacks=x509.SubjectKeyIdentifier), {"extensions", "own identifier"}),
    "no authority": (spoilt(lacks=x509.AuthorityKeyIdentifier), {"extensions", "authority", "openssl"}),
    "beginning now": (spoilt(not_valid_before=NOW.replace(tzinfo=None)), {"begin"}),
    "outliving the CA": (
        spoilt(not_valid_after=(NOW + 36500 * DAY).replace(tzinfo=None)),
        {"end", "end with the CA"},
    ),
    "a counter": (spoilt(serial_number=17), {"serial number"}),
}


@dataclass(frozen=True)
class Planted:
    """A CA with a bug."""

    ca: pki.Authority
    bug: Bug

    @property
    def ca_pem(self) -> str:
        """The CA's certificate."""
        return self.ca.pem

    def issue(self, kind: str = "p256", lifetime: timedelta = 90 * DAY) -> str:
        """Return what comes out."""
        builder = issuer.profile(pki.signing_key(kind).public_key(), "SN-1", self.ca.certificate, NOW, lifetime)
        return self.bug(self.ca, builder).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_noticed(name: str, tmp_path: Path) -> None:
    bug, expected = BUGS[name]
    assert faults(tmp_path, Planted(pki.authority("planted CA"), bug)) == expected
