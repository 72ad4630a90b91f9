"""A whole life, with the power gone before each of its effects on disk and wire, and with everything going wrong."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pytest import MonkeyPatch  # noqa: PT013 - only its name, for annotations

from cloud.rotation import lifecycle as cloud_lifecycle
from cloud.rotation.record import Certificate, Device
from iot_agent.core import lifecycle
from iot_agent.core.lifecycle import ApplyContext
from iot_agent.core.record import Issued, Kind, Outcome, Proven, Record, State, Success
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.worker import steps
from tests.simulator.cloud import Faults
from tests.simulator.device import POLICY, NoProgress, SimulatedDevice
from tests.simulator.fuse import Crash, Fuse

ROTATIONS = 3
LONG = lifecycle.LONG_SILENCE * POLICY.prove_attempts  # proofs without an answer until others have their turn
Plant = Callable[[MonkeyPatch], None]


def device_on(disk: Path, name: str = "disk") -> SimulatedDevice:
    (disk / name).mkdir()
    return SimulatedDevice(disk / name)


def count_effects(disk: Path) -> list[str]:
    device = device_on(disk, "counted")
    device.life(ROTATIONS)
    return device.fuse.names


def crash_everywhere(disk: Path) -> int:
    """Run one life for each effect, crashing before that one; returns how many were tried."""
    names = count_effects(disk)
    for at in range(1, len(names) + 1):
        device = device_on(disk, f"crash-{at}")
        device.fuse = Fuse(lambda count, _name, at=at: count == at)  # type: ignore[misc]  # binds the loop's value
        with pytest.raises(Crash):
            device.life(ROTATIONS)
        device.check_never_bricked()
        device.fuse = Fuse()
        device.life(ROTATIONS)
        device.check_settled()
    return len(names)


def live_undisturbed(disk: Path) -> SimulatedDevice:
    device = device_on(disk)
    device.fuse.watch = device.check_never_bricked
    device.life(ROTATIONS)
    device.check_settled()
    return device


def test_an_undisturbed_life_holds_the_invariant_at_every_effect(disk: Path) -> None:
    device = live_undisturbed(disk)
    assert device.record.state is State.ACKED
    events = [event.event for event in device.record.history]
    assert events == [
        "introduced",
        "issued",
        "promoted",
        "issued",
        "promoted",
        "retired",
        "issued",
        "promoted",
        "retired",
    ]


def test_a_crash_before_any_effect_is_resumed(disk: Path) -> None:
    assert crash_everywhere(disk) > 100


class Chaos(Faults):
    """Everything that can go wrong on the way goes wrong now and then, until it is over."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.over = chance, False

    def happens(self, probability: float) -> bool:
        return not self.over and self.chance.random() < probability

    def refuse(self) -> bool:
        return self.happens(0.15)

    def lose_request(self) -> bool:
        return self.happens(0.1)

    def lose_reply(self, _topic: str) -> bool:
        return self.happens(0.25)

    def repeat_request(self) -> bool:
        return self.happens(0.2)


@pytest.mark.parametrize("seed", range(25))
def test_chaos_never_bricks_and_is_recovered_from(seed: int, disk: Path) -> None:
    device, chance = device_on(disk), random.Random(seed)  # noqa: S311 - a test's dice
    chaos = Chaos(chance)
    device.faults = chaos
    for _ in range(12):
        device.fuse = Fuse(lambda _count, _name: chance.random() < 0.01)
        device.fuse.watch = device.check_never_bricked
        with suppress(Crash, NoProgress):
            device.life(device.record.rotations + 2, turns=60)
    chaos.over = True
    device.fuse = Fuse()
    device.life(device.record.rotations + 2)
    device.check_settled()


class DeafToAcknowledgements(Faults):
    """The cloud commits, and its answer is lost, again and again."""

    def __init__(self, times: int) -> None:
        self.times = times

    def lose_reply(self, topic: str) -> bool:
        if "ack-man-cert" in topic and self.times > 0:
            self.times -= 1
            return True
        return False


def live_deaf(disk: Path, times: int) -> SimulatedDevice:
    device = device_on(disk)
    device.faults = DeafToAcknowledgements(times)
    device.fuse.watch = device.check_never_bricked
    device.life(2)
    device.check_settled()
    return device


@pytest.mark.parametrize("times", [1, 3, 11, 12, 13, 25])
def test_lost_acknowledgements_lead_back_to_the_certificate_that_the_cloud_has(times: int, disk: Path) -> None:
    device = live_deaf(disk, times)
    assert [event.event for event in device.record.history].count("rolled-back") == min(1, times // LONG)


def live_through_a_muted_certificate(disk: Path) -> None:
    device = device_on(disk)
    device.fuse.watch = device.check_never_bricked
    device.life(1)
    served = device.record.active
    device.cloud.register.mute_new = True
    with pytest.raises(NoProgress):
        device.life(2, turns=50)
    assert "rolled-back" in [event.event for event in device.record.history]
    assert device.record.active == served
    device.cloud.register.mute_new = False
    device.life(2)
    device.check_settled()


def test_a_new_certificate_that_may_not_publish_is_rolled_back_and_then_recovers(disk: Path) -> None:
    live_through_a_muted_certificate(disk)


def test_losing_the_record_and_its_copy_is_rebuilt_from_the_identities(disk: Path) -> None:
    names = count_effects(disk)
    for at in range(1, len(names) + 1, 3):
        device = device_on(disk, f"lost-{at}")
        device.fuse = Fuse(lambda count, _name, at=at: count == at)  # type: ignore[misc]  # binds the loop's value
        with pytest.raises(Crash):
            device.life(ROTATIONS)
        for name in ("state.json", "state.json.previous"):
            (device.disk / name).write_bytes(b"\0" * 512)
        device.fuse = Fuse()
        device.life(1)
        device.check_settled()


# ---- planted bugs: each must be caught by what is above ------------------------------------------------------------


def planted_break_before_make(monkeypatch: MonkeyPatch) -> None:
    """Remove the identity in force as soon as a new certificate is stored."""
    honest = steps.STEPS[Kind.REQUEST]

    def request(record: Record, now: float, context: steps.StepContext) -> Success:
        outcome = honest(record, now, context)
        if record.active is not None:
            context.identities.remove(record.active.label)
        return outcome

    monkeypatch.setitem(steps.STEPS, Kind.REQUEST, request)


def planted_promotion_without_proof(monkeypatch: MonkeyPatch) -> None:
    """Take a stored certificate for a proven one."""
    honest = lifecycle.apply

    def apply(record: Record, step: Kind, outcome: Outcome, context: ApplyContext) -> Record:
        record = honest(record, step, outcome, context)
        return honest(record, Kind.PROVE, Proven(None), context) if isinstance(outcome, Issued) else record

    monkeypatch.setattr(lifecycle, "apply", apply)


def planted_forgetting_what_is_unconfirmed(monkeypatch: MonkeyPatch) -> None:
    """Remove an unproven identity at once, although the cloud may have committed to it."""
    honest = lifecycle._roll_back

    def roll_back(record: Record, context: ApplyContext) -> Record:
        record = honest(record, context)
        return replace(record, unconfirmed=(), to_delete=tuple(one.label for one in record.unconfirmed))

    monkeypatch.setattr(lifecycle, "_roll_back", roll_back)


def planted_retiring_the_active_identity(monkeypatch: MonkeyPatch) -> None:
    """Keep only what is pending, whether applications use it or not."""
    honest = steps.STEPS[Kind.RETIRE]

    def retire(record: Record, now: float, context: steps.StepContext) -> Success:
        useless = context.identities.labels() - ({record.pending.label} if record.pending else set())
        return honest(replace(record, active=None, unconfirmed=(), to_delete=tuple(useless)), now, context)

    monkeypatch.setitem(steps.STEPS, Kind.RETIRE, retire)
    monkeypatch.setattr(IdentityDirectories, "current", lambda _identities: None)


def planted_cloud_that_retires_at_issue(monkeypatch: MonkeyPatch) -> None:
    """Have the cloud retire the previous certificate when it issues the next, before that is proven."""
    honest = cloud_lifecycle.with_pending

    def with_pending(device: Device, certificate: Certificate, now: int) -> cloud_lifecycle.Save:
        issued = honest(device, certificate, now)
        retiring = cloud_lifecycle.to_retire(device, device.present_certificate_id, now)
        return replace(issued, device=replace(issued.device, retiring=retiring))

    monkeypatch.setattr(cloud_lifecycle, "with_pending", with_pending)


@pytest.mark.parametrize(
    ("plant", "life"),
    [
        (planted_break_before_make, live_through_a_muted_certificate),
        (planted_promotion_without_proof, live_through_a_muted_certificate),
        (planted_forgetting_what_is_unconfirmed, lambda disk: live_deaf(disk, LONG + 1)),
        (planted_retiring_the_active_identity, live_undisturbed),
        (planted_cloud_that_retires_at_issue, live_undisturbed),
    ],
)
def test_a_planted_bug_is_caught(
    plant: Plant, life: Callable[[Path], object], disk: Path, monkeypatch: MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, NoProgress, pytest.fail.Exception)):
        life(disk)
