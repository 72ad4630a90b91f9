"""One suite for every keeper of the manufacturer CA's key; openssl judges what comes out, as a stranger would.

KMS is the local cloud's, whose signatures over a digest are real.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud.rotation import csr, issuer, kms
from cloud.setup import authority, custody
from cloud.setup.errors import SetupError
from cloud.setup.keeper import Names, Parameters
from cloud.setup.session import connect
from tests.cloud import pki

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud.setup.session import Cloud
    from tests.local.stage import Stage

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
KEEPERS = ["ssm:p256", "ssm:p384", "ssm:rsa-2048", "ssm:rsa-3072", "kms:ECC_NIST_P256", "kms:RSA_2048", "kms:RSA_3072"]


@dataclass(frozen=True)
class Signer:
    """A CA whose key is kept somewhere, and where the Lambda finds it."""

    ca_pem: str
    source: issuer.KeySource

    def issue(self, kind: str = "p256", lifetime: timedelta = 90 * DAY) -> str:
        """Return a device's certificate, PEM."""
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
        keeper: custody.Custody = custody.in_kms(here, names, custody.spec_of(request.param))
    else:
        pem = pki.signing_key(kind, 7).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        parameters.keep(names.manufacturer_key, pem.decode(), secret=True)
        keeper = custody.InSsm(parameters, names)
    ca_pem = authority.ca_certificate(keeper.find() or keeper.make(), names.stack, NOW)
    told = keeper.parameters()
    if "ManufacturerKeyArn" in told:
        client = here.session.client("kms", config=here.config)
        return Signer(ca_pem, issuer.KmsKey(client, told["ManufacturerKeyArn"], ca_pem))
    ssm = here.session.client("ssm", config=here.config)
    return Signer(ca_pem, issuer.SsmKey(ssm, told["ManufacturerKeyParameter"]))


def judged(directory: Path, ca_pem: str, leaf_pem: str) -> str:
    """Return what openssl says of a certificate, under the strictest rules it has."""
    (directory / "ca.pem").write_text(ca_pem)
    (directory / "leaf.pem").write_text(leaf_pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("kind", ["p256", "rsa-2048"])
def test_openssl_accepts_what_is_issued(signer: Signer, kind: str, tmp_path: Path) -> None:
    assert judged(tmp_path, signer.ca_pem, signer.issue(kind)) == "leaf.pem: OK"


def test_the_certificate_says_what_it_is(signer: Signer) -> None:
    ca, leaf = pki.load(signer.ca_pem), pki.load(signer.issue())
    kinds = {type(extension.value) for extension in leaf.extensions}
    required = {x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage}
    assert kinds == required | {x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier}
    above = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == above
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_the_window_is_backdated_and_ends_with_the_ca(signer: Signer) -> None:
    ca, leaf = pki.load(signer.ca_pem), pki.load(signer.issue(lifetime=36500 * DAY))
    assert leaf.not_valid_after_utc == ca.not_valid_after_utc
    assert leaf.not_valid_before_utc == max(NOW - timedelta(hours=1), ca.not_valid_before_utc)
    assert pki.load(signer.issue(lifetime=DAY)).not_valid_after_utc == NOW + DAY


def test_serial_numbers_are_long_and_differ(signer: Signer) -> None:
    numbers = {pki.load(signer.issue()).serial_number for _ in range(4)}
    assert len(numbers) == 4
    assert all(number.bit_length() > 128 for number in numbers)


def test_another_cas_key_signs_nothing(signer: Signer) -> None:
    with pytest.raises((issuer.IssuerError, kms.KmsError)):
        Signer(pki.authority("another CA").pem, signer.source).issue()


# ---- planted bugs: openssl, or we ourselves, must notice ------------------------------------------------------------


def signed(builder: x509.CertificateBuilder, ca: pki.Authority) -> str:
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def another_signature(data: bytes) -> bytes:
    key: Any = pki.signing_key("p256", 8)
    return cast("bytes", key.sign(data, ec.ECDSA(hashes.SHA256())))


def profile(ca: pki.Authority) -> x509.CertificateBuilder:
    return issuer.profile(pki.signing_key("p256").public_key(), "SN-1", ca.certificate, NOW, DAY)


@pytest.mark.parametrize("missing", [x509.AuthorityKeyIdentifier, x509.SubjectKeyIdentifier, x509.ExtendedKeyUsage])
def test_a_certificate_without_one_of_its_extensions_is_noticed(missing: type, tmp_path: Path) -> None:
    ca = pki.authority("planted CA")
    bug = profile(ca)
    bug._extensions = [extension for extension in bug._extensions if not isinstance(extension.value, missing)]
    leaf = signed(bug, ca)
    if missing is not x509.AuthorityKeyIdentifier:  # openssl asks for no other of a device
        with pytest.raises(AssertionError):
            test_the_certificate_says_what_it_is(cast("Signer", Fixed(ca.pem, leaf)))
    else:
        assert "OK" not in judged(tmp_path, ca.pem, leaf)


@dataclass(frozen=True)
class Fixed:
    """Something that always issues the same."""

    ca_pem: str
    leaf: str

    def issue(self) -> str:
        """Return it."""
        return self.leaf


def test_a_signature_over_something_else_is_noticed(tmp_path: Path) -> None:
    class Wrong(kms.EcInKms):
        def sign(self, data: object, _algorithm: object) -> bytes:
            return another_signature(bytes(reversed(cast("bytes", data))))

    ca = pki.authority("planted CA")
    key = Wrong(cast("Any", None), "none", cast("ec.EllipticCurvePublicKey", ca.key.public_key()))
    leaf = profile(ca).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    assert "signature failure" in judged(tmp_path, ca.pem, leaf)


class Lying:
    """A KMS whose signatures do not verify."""

    def sign(self, **_request: object) -> dict[str, bytes]:
        """Return a signature of something else."""
        return {"Signature": another_signature(b"something else")}


def test_a_signature_of_kms_that_does_not_verify_is_never_handed_out() -> None:
    ca = pki.authority("planted CA")
    key = kms.private_key(cast("Any", Lying()), "arn:lying", ca.key.public_key())
    with pytest.raises(kms.KmsError, match="does not verify"):
        profile(ca).sign(key, hashes.SHA256())


def test_a_key_in_kms_does_nothing_but_sign_sha256() -> None:
    for kind in ("p256", "rsa-2048"):
        key = kms.private_key(cast("Any", Lying()), "arn:k", pki.signing_key(kind).public_key())
        with pytest.raises(kms.KmsError, match="stays in KMS"):
            key.private_numbers()
        arguments: tuple[Any, ...] = (ec.ECDSA(hashes.SHA384()),)
        if kind == "rsa-2048":
            arguments = (padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        with pytest.raises(kms.KmsError, match="stays in KMS"):
            cast("Any", key).sign(b"data", *arguments)
    with pytest.raises(kms.KmsError, match="only keys of RSA and of P-256"):
        kms.private_key(cast("Any", Lying()), "arn:k", pki.signing_key("p384").public_key())


# ---- the keeper in KMS ----------------------------------------------------------------------------------------------


@pytest.fixture
def keeper(here: Cloud, request: pytest.FixtureRequest) -> Iterator[custody.InKms]:
    made = custody.in_kms(here, Names(f"keeper-{abs(hash(request.node.name))}"), "ECC_NIST_P256")
    yield made
    made.remove()


def test_an_interrupted_run_leaves_no_second_key(
    keeper: custody.InKms, here: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Exception):
        """Ctrl-C between making the key and naming it."""

    def stop(**_request: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(keeper._kms, "create_alias", stop)
        with pytest.raises(Interrupted):
            keeper.make()
    found = keeper.find()
    assert found is not None
    client = here.session.client("kms", config=here.config)
    ours = [key for key in client.list_keys()["Keys"] if keeper._arn() == key["KeyArn"]]
    assert len(ours) == 1


def test_a_key_that_is_disabled_or_removed_cannot_sign(keeper: custody.InKms) -> None:
    key: Any = keeper.make()
    assert keeper.remove()
    assert keeper.find() is None
    assert not keeper.remove()
    with pytest.raises(ClientError):
        key.sign(b"data", ec.ECDSA(hashes.SHA256()))


def test_a_change_of_mind_is_refused(keeper: custody.InKms, here: Cloud) -> None:
    ssm = custody.InSsm(Parameters(here.session.client("ssm", config=here.config)), Names("nothing-in-ssm"))
    assert custody.choose(None, ssm, keeper) is ssm
    assert custody.choose("kms", ssm, keeper) is keeper
    keeper.make()
    for same in (None, "kms", "kms:ECC_NIST_P256"):
        assert custody.choose(same, ssm, keeper) is keeper
    for other in ("ssm", "kms:RSA_3072"):
        with pytest.raises(SetupError, match="asks for another"):
            custody.choose(other, ssm, keeper)
