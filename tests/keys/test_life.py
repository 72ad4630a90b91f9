"""A device's life on real tokens against the simulated cloud: many rotations, moves between file and token, crashes."""

from contextlib import suppress
from pathlib import Path

import pytest

from iot_agent.core import lifecycle
from iot_agent.core.record import Kind, Record, Step
from iot_agent.core.schedule import Policy
from iot_agent.storage.layout import KEY_ON_TOKEN
from tests.keys.bench import Bench, device_on, holds, label
from tests.simulator.device import SERIAL, NoProgress, SimulatedDevice
from tests.simulator.fuse import Crash, Fuse


def move_to_the_token(device: SimulatedDevice, rotation: int) -> None:
    device.backend = "pkcs11"
    device.life(rotation)


def move_to_a_file(device: SimulatedDevice, rotation: int) -> None:
    """Have the settings forget the token altogether: the key on it must stay usable, and in the end be destroyed."""
    device.token, device.backend = None, "file"
    device.life(rotation)


def test_a_device_moves_to_the_token_and_back(device: SimulatedDevice, on_token: Bench) -> None:
    device.backend = "file"
    device.life(1)
    assert "key.pem" in holds(device)
    assert on_token.objects() == []
    move_to_the_token(device, 2)
    device.check_settled()
    assert holds(device) & {"key.pem", KEY_ON_TOKEN} == {KEY_ON_TOKEN}
    assert on_token.objects() == [label(device), label(device)]
    move_to_a_file(device, 3)
    device.check_settled()
    assert holds(device) & {"key.pem", KEY_ON_TOKEN} == {"key.pem"}
    assert on_token.objects() == []


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
@pytest.mark.parametrize("there", ["pkcs11", "file"])
def test_the_power_goes_on_the_way(on_token: Bench, disk: Path, there: str) -> None:
    """Before every fifteenth effect of a move; whenever it goes, the device holds an identity that is accepted."""

    def before_the_move(name: str) -> SimulatedDevice:
        device = device_on(on_token, disk / name)
        device.backend = "file" if there == "pkcs11" else "pkcs11"
        device.life(1)
        device.backend = there
        return device

    counted = before_the_move("counted")
    counted.fuse = Fuse()
    counted.life(2)
    assert counted.fuse.count > 30
    for at in range(1, counted.fuse.count + 1, 15):
        device = before_the_move(f"crash-{at}")
        device.labels = at * 100  # the token is shared: every device has labels of its own
        device.fuse = Fuse(lambda count, _name, at=at: count == at)  # type: ignore[misc]  # binds the loop's value
        with pytest.raises(Crash):
            device.life(2)
        device.check_never_bricked()
        device.fuse = Fuse()
        device.life(2)
        device.check_settled()
        assert ("key.pem" in holds(device)) == (there == "file")


def roll_back(device: SimulatedDevice) -> None:
    """Have the cloud issue a certificate for the key on the token, and not let it speak."""
    device.backend = "file"
    device.life(1)
    served = device.record.active
    device.backend = "pkcs11"
    device.cloud.register.mute_new = True
    with pytest.raises(NoProgress):
        device.life(2, turns=30)
    assert "rolled-back" in [event.event for event in device.record.history]
    assert device.record.active == served
    assert "key.pem" in holds(device)
    device.check_never_bricked()


def test_a_move_that_cannot_be_proven_is_rolled_back_and_tried_again(device: SimulatedDevice, on_token: Bench) -> None:
    roll_back(device)
    device.cloud.register.mute_new = False
    device.life(2)
    device.check_settled()
    assert KEY_ON_TOKEN in holds(device)
    assert on_token.objects() == [label(device), label(device)], "nothing is left of the keys that were rolled back"


def lose_the_token(device: SimulatedDevice, bench: Bench) -> None:
    """Take the token away for good; then readmit the device, and let it use files."""
    assert bench.local is not None
    device.life(1)
    bench.local.module.rename(bench.local.module.with_name("lost.so"))
    device.time.now += 0.7 * 10_000
    with pytest.raises(NoProgress):
        device.life(2, turns=12)
    assert device.record.failure is not None
    assert device.record.failure.code == "token"
    device.backend = "file"
    device.cloud.readmit(SERIAL, 1e6)
    with suppress(NoProgress):
        device.life(2, turns=25)
    assert device.record.rotations == 2, "it has not come back"
    assert device.record.cleanup is not None, "the key on the lost token cannot be removed"


@pytest.fixture
def copied_module(on_token: Bench, tmp_path: Path) -> None:
    """Give the test a module that it may lose."""
    assert on_token.local is not None
    copy = tmp_path / "module.so"
    copy.write_bytes(on_token.local.module.read_bytes())
    on_token.local.module = copy


@pytest.mark.usefixtures("copied_module")
@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_a_device_that_has_lost_its_token_comes_back_when_it_is_readmitted(on_token: Bench, disk: Path) -> None:
    device = device_on(on_token, disk / "device")
    lose_the_token(device, on_token)
    assert "key.pem" in holds(device)
    heard = device.record.last_contact
    device.time.now += 5000
    with suppress(NoProgress):
        device.life(3, turns=6)
    assert device.record.last_contact > heard, "what cannot be removed does not keep it from checking in"


@pytest.mark.usefixtures("copied_module")
@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_bug_planted_a_removal_that_nothing_may_overtake(
    on_token: Bench, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = lifecycle.decide

    def decide(record: Record, now: float, policy: Policy, waited: float) -> Step:
        return Step(Kind.RETIRE, now, "") if record.to_delete else honest(record, now, policy, waited)

    monkeypatch.setattr(lifecycle, "decide", decide)
    with pytest.raises(AssertionError, match="from checking in"):
        test_a_device_that_has_lost_its_token_comes_back_when_it_is_readmitted(on_token, disk)


@pytest.mark.usefixtures("copied_module")
@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_bug_planted_a_device_that_does_not_ask_with_its_bootstrap_identity(
    on_token: Bench, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "turn", lambda _record: None)
    with pytest.raises(AssertionError, match="has not come back"):
        lose_the_token(device_on(on_token, disk / "device"), on_token)
