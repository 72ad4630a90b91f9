"""The order of the cycle: the intent is on the disk before a step begins, and applications hear of nothing unsaved."""

import errno
from dataclasses import replace

import pytest

from iot_agent.core.errors import Code
from iot_agent.core.reconcile import OnDisk
from iot_agent.core.record import Certificate, Failed, Failure, Identity, Introduced, Kind, Record, State
from iot_agent.core.schedule import Policy
from iot_agent.resident import cycle
from iot_agent.resident.cycle import Cycle, Means

NOW = 1_790_000_000
ACTIVE = Identity("iot-agent-1", Certificate("a" * 64, NOW - 1000, NOW + 100_000, NOW + 50_000))
OTHER = replace(ACTIVE, label="iot-agent-2")
ACKED = Record("SN-1", State.ACKED, active=ACTIVE, check_in_at=NOW + 1000)
SILENT = Failed(Code.NO_REPLY, "nobody answered", "look", fatal=False)
FAILURE = Failure(Kind.CHECK_IN, Code.NO_REPLY, "nobody answered", "look", NOW)


class World:
    """The ports of the cycle: a disk that may be full, applications, and a clock; `seen` is what happened, in order."""

    trusted = True

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.full = False
        self.wall = self.boot = float(NOW)
        self.identities: tuple[Identity, ...] = (ACTIVE, OTHER)

    def disk(self) -> OnDisk:
        return OnDisk(self.identities, frozenset(), ACTIVE.label)

    def save(self, record: Record) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        pending = f" with {record.pending.label} pending" if record.pending else ""
        self.seen.append(f"saved {record.active.label if record.active else 'nothing'}{pending}")

    def prepare(self, record: Record) -> None:
        self.seen.append(f"prepared {record.active.label if record.active else 'nothing'}")

    def publish(self, record: Record) -> None:
        self.seen.append(f"published {record.active.label if record.active else 'nothing'}")

    def now(self) -> float:
        return self.wall

    def elapsed(self) -> float:
        return self.boot

    def lift(self, floor: int) -> None:
        self.seen.append(f"lifted to {floor}")

    def start(self, record: Record) -> Cycle:
        self.seen.clear()
        return Cycle(Means(self, self, self, Policy(), lambda: "iot-agent-9", lambda: "r", lambda: 0.5), record)


@pytest.fixture
def world() -> World:
    return World()


def test_at_boot_the_record_is_saved_before_anything_is_done(world: World) -> None:
    begun = world.start(replace(ACKED, unconfirmed=(OTHER,)))
    assert world.seen == ["prepared iot-agent-1", "saved iot-agent-1", "published iot-agent-1"]
    assert begun.decide().kind is Kind.WAIT


def test_the_intent_of_a_step_is_saved_before_it_begins(world: World) -> None:
    begun = world.start(replace(ACKED, renew_requested=NOW, unconfirmed=(OTHER,)))
    step = begun.decide()
    world.seen.clear()
    assert (step.kind, begun.begin(step)) == (Kind.GENERATE, True)
    assert world.seen == ["saved iot-agent-1 with iot-agent-9 pending", "published iot-agent-1"]


def test_a_step_does_not_begin_while_the_disk_refuses_its_intent(world: World) -> None:
    begun = world.start(replace(ACKED, renew_requested=NOW, unconfirmed=(OTHER,)))
    world.full = True
    world.seen.clear()
    step = begun.decide()
    assert not begun.begin(step)
    assert "No space left" in (begun.trouble or "")
    assert world.seen == []
    assert (begun.is_due(step), begun.pause(step)) == (False, cycle.DISK_PAUSE)
    world.full, world.boot = False, world.boot + cycle.DISK_PAUSE
    assert begun.is_due(begun.decide())
    assert begun.begin(begun.decide())
    assert begun.trouble is None


def test_only_another_active_identity_is_prepared_and_only_a_saved_one_is_published(world: World) -> None:
    begun = world.start(ACKED)
    world.seen.clear()
    begun.record = replace(begun.record, attempt=1)
    assert begun.save()
    assert world.seen == ["saved iot-agent-1", "published iot-agent-1"]
    world.seen.clear()
    begun.record, world.full = replace(begun.record, active=OTHER), True
    assert not begun.save()
    assert world.seen == ["prepared iot-agent-2"]
    world.full = False
    assert begun.save()
    assert world.seen[1:] == ["prepared iot-agent-2", "saved iot-agent-2", "published iot-agent-2"]
    assert begun.save(), "nothing has changed"
    assert len(world.seen) == 4


def test_an_outcome_that_is_impossible_is_a_failure_of_ours_and_no_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    begun = world.start(ACKED)
    begun.finish(Kind.INTRODUCE, Introduced())
    assert begun.record.failure is not None
    assert begun.record.failure.code == Code.INTERNAL
    assert begun.record.state is State.ACKED
    assert "makes no sense" in caplog.text


def test_after_a_failure_what_the_disk_holds_is_looked_at_again(world: World) -> None:
    begun = world.start(ACKED)
    found = replace(OTHER, label="iot-agent-3")
    world.identities += (found,)
    begun.finish(Kind.CHECK_IN, SILENT)
    assert found in begun.record.unconfirmed


@pytest.mark.parametrize(("passed", "left"), [(0, 100), (40, 60), (-500, 100), (1000, 0)])
def test_a_wait_goes_on_over_a_restart_and_begins_again_under_a_clock_that_was_set_back(
    world: World, passed: float, left: float
) -> None:
    failed = replace(ACKED, check_in_at=0, attempt=1, waiting_since=NOW, wait=100, failure=FAILURE)
    world.wall += passed
    begun = world.start(failed)
    assert begun.pause(begun.decide()) == left
