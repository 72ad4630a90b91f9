from __future__ import annotations

import stat
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from cloud.common import certificates
from cloud.common.errors import SetupError
from cloud.setup import authorities, files
from cloud.setup.authorities import VendorKeys
from cloud.setup.ca_key import InSsm
from cloud.setup.ssm_parameters import Names, Parameters
from tests.end_to_end.sample_device import SampleCa

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_ssm import SSMClient

NAMES = Names("stack")


class Stopped(BaseException):
    """Somebody pressed Ctrl-C."""


class Interrupted(Parameters):
    """A store whose user presses Ctrl-C just before or just after the n-th write."""

    def __init__(self, ssm: SSMClient, before_write: int, *, after: bool) -> None:
        super().__init__(ssm)
        self._left, self._after = before_write, after

    def keep(self, name: str, value: str, *, secret: bool = False) -> str:
        """Write, or stop."""
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Stopped
        kept = super().keep(name, value, secret=secret)
        if self._left < 0:
            raise Stopped
        return kept


def make_both(parameters: Parameters, state: Path) -> tuple[str, str]:
    """Do what `deploy` does."""
    manufacturer, _ = authorities.manufacturer_ca(parameters, "stack", InSsm(parameters, NAMES))
    vendor, _ = authorities.vendor_ca(parameters, "stack", VendorKeys(state))
    return manufacturer, vendor


def test_a_second_deploy_keeps_both_cas(parameters: Parameters, tmp_path: Path) -> None:
    first = make_both(parameters, tmp_path / "state")
    assert make_both(parameters, tmp_path / "state") == first


def test_the_manufacturers_key_is_kept_secret_and_nowhere_else(ssm: SSMClient, tmp_path: Path) -> None:
    make_both(Parameters(ssm), tmp_path / "state")
    key = ssm.get_parameter(Name=NAMES.manufacturer_key, WithDecryption=True)["Parameter"]
    assert key["Type"] == "SecureString"
    assert all(key["Value"] not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_the_vendors_key_is_readable_by_its_owner_only(parameters: Parameters, tmp_path: Path) -> None:
    state = tmp_path / "state"
    make_both(parameters, state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE(VendorKeys(state).key.stat().st_mode) == 0o600


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", [0, 1, 2])
def test_stopped_at_any_write_the_next_run_ends_in_matching_pairs(
    ssm: SSMClient, tmp_path: Path, write: int, *, after: bool
) -> None:
    with pytest.raises(Stopped):
        make_both(Interrupted(ssm, write, after=after), tmp_path)
    manufacturer, vendor = make_both(Parameters(ssm), tmp_path)
    stored = Parameters(ssm).get(NAMES.manufacturer_key)
    assert stored is not None
    assert certificates.is_pair(manufacturer, certificates.load(stored, "it"))
    kept = VendorKeys(tmp_path).read()
    assert kept is not None
    assert certificates.is_pair(vendor, kept)


@pytest.mark.parametrize("lost", ["manufacturer_key", "both sides differ", "vendor key"])
def test_a_pair_that_does_not_match_is_reported_and_left_alone(ssm: SSMClient, tmp_path: Path, lost: str) -> None:
    parameters = Parameters(ssm)
    make_both(parameters, tmp_path)
    match lost:
        case "manufacturer_key":
            parameters.delete(NAMES.manufacturer_key)
        case "both sides differ":
            parameters.delete(NAMES.manufacturer_key)
            parameters.keep(NAMES.manufacturer_key, certificates.new_key(), secret=True)
        case _:
            VendorKeys(tmp_path).key.write_text(certificates.new_key())
    before = [parameters.get(name) for name in NAMES.all()]
    with pytest.raises(SetupError) as caught:
        make_both(parameters, tmp_path)
    assert caught.value.remedy
    assert [parameters.get(name) for name in NAMES.all()] == before


def test_another_machine_may_deploy_but_not_sign(parameters: Parameters, tmp_path: Path) -> None:
    make_both(parameters, tmp_path / "here")
    there = VendorKeys(tmp_path / "there")
    authorities.vendor_ca(parameters, "stack", there)
    with pytest.raises(SetupError, match="not on this machine"):
        authorities.vendor_signer(parameters, "stack", there)


def test_a_kept_vendor_key_serves_the_next_stack(parameters: Parameters, tmp_path: Path) -> None:
    """After `destroy`, which keeps it unless told otherwise: bundles signed before still verify."""
    _, vendor = make_both(parameters, tmp_path)
    for name in NAMES.all():
        parameters.delete(name)
    assert make_both(parameters, tmp_path)[1] == vendor


def test_a_vendor_ca_made_elsewhere_is_taken_over_with_its_key(parameters: Parameters, tmp_path: Path) -> None:
    """The way that docs/protocol.md tells those who come from the sample: its RSA key, in openssl's older form."""
    sample = SampleCa.make(tmp_path, "Vendor")
    parameters.keep(NAMES.vendor_certificate, sample.certificate.read_text())
    state = tmp_path / "state"
    files.private_directory(state)
    keys = VendorKeys(state)
    files.write(keys.key, sample.key.read_text(), secret=True)
    certificate, new = authorities.vendor_ca(parameters, "stack", keys)
    assert (certificate, new) == (sample.certificate.read_text(), False)
    signer, now = authorities.vendor_signer(parameters, "stack", keys), certificates.now()
    made, day = certificates.new_key(), timedelta(days=1)
    leaf = certificates.device_certificate(made, "SN-1", signer, day, now)
    assert certificates.is_current(leaf + certificate, made, "SN-1", certificate, now)


def test_the_key_of_another_stack_in_the_directory_is_refused_also_without_its_name(
    parameters: Parameters, tmp_path: Path
) -> None:
    """What `destroy` asks before it may delete the key, in a directory that a version before 0.2.0 has filled."""
    make_both(parameters, tmp_path / "here")
    other = VendorKeys(tmp_path / "there")
    files.private_directory(other.state)
    files.write(other.key, certificates.new_key(), secret=True)
    with pytest.raises(SetupError, match="does not belong to the certificate"):
        authorities.check_vendor_key(parameters, "stack", other)
    authorities.check_vendor_key(parameters, "another-stack", other)
