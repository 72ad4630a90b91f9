"""`setup.sh device` as typed, against a cloud on moto: what goes wrong is said, and keeps no other device from it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import boto3
import pytest

from cloud.common import aws_session
from cloud.common.aws_session import Endpoint
from cloud.rotation import operator_rules
from cloud.rotation.devices import ConflictError
from cloud.rotation.operator_rules import OrderError
from cloud.rotation.record import State
from cloud.setup import authorities, preflight
from cloud.setup.__main__ import main
from cloud.setup.ca_key import InSsm
from cloud.setup.ssm_parameters import Names, Parameters
from tests.cloud.conftest import aws_environment, bench
from tests.fleet import conftest as of_fleet
from tests.fleet.conftest import Fleet, fleet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud.rotation.lifecycle import Keep, Save
    from cloud.rotation.record import Device
    from tests.fleet.conftest import Said

__all__ = ["aws_environment", "bench", "fleet"]


@pytest.fixture
def setup(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Said]:
    """Give a factory floor: a stack with its CAs, and setup's command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "check", lambda *_, **__: None)
    monkeypatch.setattr(aws_session.Cloud, "endpoint", lambda _self: Endpoint("example.test", 8883, "trust\n"))
    monkeypatch.setitem(of_fleet.OUTPUTS, "TopicPrefix", "cert-rotation")
    parameters = Parameters(boto3.client("ssm"))
    authorities.vendor_ca(parameters, "iot-agent", authorities.VendorKeys(tmp_path / "state"))
    authorities.manufacturer_ca(parameters, "iot-agent", InSsm(parameters, Names("iot-agent")))

    def run(line: str) -> Said:
        fleet.capsys.readouterr()
        status = main([*shlex.split(line), "--state", str(tmp_path / "state")])
        said = fleet.capsys.readouterr()
        return of_fleet.Said(status, said.out, said.err)

    return run


@pytest.fixture
def revoked(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a serial that may not be allowed."""
    honest = operator_rules.allow

    def allow(device: Device | None, serial: str, now: int, by: str | None = None) -> Save | Keep:
        if serial == "SN-8":
            raise OrderError("it is revoked: readmit it instead")
        return honest(device, serial, now, by)

    monkeypatch.setattr(operator_rules, "allow", allow)
    return "SN-8"


def test_a_serial_that_may_not_be_allowed_is_an_error_with_the_bundle_made(
    setup: Callable[[str], Said], revoked: str, tmp_path: Path
) -> None:
    said = setup(f"device {revoked} --out b")
    assert said.status == 1
    assert "it is revoked: readmit it instead" in said.err
    assert f"iot-fleet show {revoked}" in said.err
    assert (tmp_path / "b/agent.yaml").exists()  # what the readmission is for


@pytest.mark.parametrize("which", ["SN-7", "--from list"])
def test_a_lifetime_for_a_bundle_that_is_kept_is_not_ignored_in_silence(
    setup: Callable[[str], Said], tmp_path: Path, which: str
) -> None:
    (tmp_path / "list").write_text("SN-7\n")
    line = f"device {which} --vendor-lifetime 90d"
    assert "no effect" not in setup(line).out
    assert "--vendor-lifetime has no effect" in setup(line).out
    assert "no effect" not in setup(f"device {which}").out
    assert "no effect" not in setup(f"{line} --force").out


def test_in_a_list_that_row_is_reported_and_the_others_are_done(
    setup: Callable[[str], Said], fleet: Fleet, revoked: str, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text(f"SN-7\n{revoked}\nSN-9\n")
    said = setup("device --from list")
    assert said.status == 1
    assert "1 devices are not ready" in said.err
    assert f"line 2: {revoked}: its bundle is written" in said.err
    assert [fleet.bench.device(serial).state for serial in ("SN-7", "SN-9")] == [State.ALLOWED] * 2


def test_a_record_that_others_keep_writing_is_an_error_too(
    setup: Callable[[str], Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def conflict(*_: object) -> None:
        raise ConflictError("the record was written by somebody else")

    monkeypatch.setattr("cloud.rotation.devices.Devices.save", conflict)
    said = setup("device SN-7")
    assert (said.status, "by somebody else" in said.err) == (1, True)


@pytest.mark.parametrize("line", ["device SN-7 --out file/b", "device --from .", "device --from file/list"])
def test_a_place_that_cannot_be_used_is_named(setup: Callable[[str], Said], tmp_path: Path, line: str) -> None:
    (tmp_path / "file").write_text("")
    said = setup(line)
    assert said.status == 1
    assert line.rsplit(" ", 1)[1] in said.err
    assert "what to do:" in said.err


def test_in_a_list_an_unusable_place_is_reported_for_its_row(setup: Callable[[str], Said], tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices/SN-8").write_text("in the way")
    (tmp_path / "list").write_text("SN-7\nSN-8\n")
    said = setup("device --from list")
    assert (said.status, "line 2: SN-8" in said.err) == (1, True)
    assert (tmp_path / "devices/SN-7/agent.yaml").exists()
