"""A device that nothing it has in force can bring back: expired, or restored from an old copy of its disk."""

import shutil
from pathlib import Path

import pytest

from cloud.rotation.record import Device
from iot_agent.core.record import Kind
from iot_agent.worker import steps
from tests.simulator.device import LIFETIME, POLICY, SERIAL, NoProgress, SimulatedDevice

A_DAY = 24 * 3600.0


def lost(device: SimulatedDevice) -> str:
    """Say what the device says when it is on its own."""
    with pytest.raises(NoProgress):
        device.life(device.record.rotations + 1, turns=60)
    return device.cycle.decide().reason


def comes_back(device: SimulatedDevice) -> None:
    before = device.record.rotations
    device.cloud.readmit(SERIAL, A_DAY)
    device.life(before + 1)
    device.check_settled()


def test_an_expired_device_comes_back_when_it_is_readmitted(disk: Path) -> None:
    device = SimulatedDevice(disk)
    device.life(1)
    device.time.now += 2 * LIFETIME
    assert "the cloud closed the connection" in lost(device)
    comes_back(device)


def test_with_another_vendor_certificate_too(disk: Path) -> None:
    device = SimulatedDevice(disk)
    device.life(1)
    device.time.now += 2 * LIFETIME
    certificate, key = device.cloud.vendor.issue(SERIAL, device.time())
    device.bootstrap.certificate.write_text(certificate)
    device.vendor_key.write_text(key)
    comes_back(device)


def test_a_device_revoked_in_the_middle_of_a_rotation_comes_back_when_it_is_readmitted(disk: Path) -> None:
    device = SimulatedDevice(disk)
    device.life(1)
    device.cloud.register.mute_new = True
    with pytest.raises(NoProgress):
        device.life(2, turns=12)
    device.cloud.register.mute_new = False
    device.cloud.revoke(SERIAL)
    lost(device)
    assert device.record.unconfirmed or device.record.pending is not None
    comes_back(device)


def restored(disk: Path) -> SimulatedDevice:
    """Return a device that has been given its disk of two rotations ago."""
    (disk / "device").mkdir()
    device = SimulatedDevice(disk / "device")
    device.life(1)
    shutil.copytree(disk / "device", disk / "backup", symlinks=True)
    device.life(3)
    shutil.rmtree(disk / "device")
    shutil.copytree(disk / "backup", disk / "device", symlinks=True)
    return device


def test_a_restored_device_comes_back_when_it_is_readmitted(disk: Path) -> None:
    device = restored(disk)
    lost(device)
    assert device.record.rotations == 1
    comes_back(device)


def test_without_an_operator_it_stays_outside_and_nothing_comes_back_to_life(disk: Path) -> None:
    device = restored(disk)
    active = device.cloud.active()
    lost(device)
    assert device.cloud.active() == active


@pytest.mark.parametrize("swept", [True, False], ids=["swept", "not swept yet"])
def test_a_readmission_ends(disk: Path, *, swept: bool) -> None:
    device = restored(disk)
    active = device.cloud.active()
    device.cloud.readmit(SERIAL, 60)
    device.time.now += 120
    if swept:
        device.cloud.sweep()
    lost(device)
    assert device.cloud.active() == active


def test_bug_planted_a_device_that_never_asks_with_its_bootstrap_identity(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "asks_with_bootstrap", lambda record: record.active is None)
    with pytest.raises(NoProgress):
        comes_back_from_backup(disk)


def test_bug_planted_a_cloud_that_readmits_for_ever(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "readmitted", lambda device, _now: device.readmit_until is not None)
    with pytest.raises(pytest.fail.Exception):
        test_a_readmission_ends(disk, swept=False)


def comes_back_from_backup(disk: Path) -> None:
    device = restored(disk)
    device.cloud.readmit(SERIAL, A_DAY)
    device.life(2)


def test_a_refused_check_in_lets_another_identity_ask_only_when_it_is_refused_again_and_again(disk: Path) -> None:
    device = SimulatedDevice(disk)
    device.life(1)
    device.cloud.revoke(SERIAL)
    device.clock.pass_(POLICY.check_in_interval)
    kinds = []
    for _ in range(6):
        kinds.append(device.cycle.decide().kind)
        device.turn()
    assert kinds == [Kind.CHECK_IN] * 3 + [Kind.GENERATE, Kind.REQUEST, Kind.CHECK_IN]
