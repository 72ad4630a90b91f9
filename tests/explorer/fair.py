"""How a world goes on when nothing (more) goes wrong: the one thing that happens next, until all is at rest.

Whoever can act does: runs in the cloud in the order in which they came, then the device. When nobody can, time passes
up to the next thing that is due. What was held back is let go at its deadline at the latest; the sweeper runs when a
look is due; an operator allows a device that is not on the list, and readmits one that an excuse keeps out. At rest the
device is started anew and one more rotation is ordered, so that what a fault has left cannot hide until the next
renewal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from cloud.rotation.record import State as Standing
from iot_agent.core import lifecycle
from iot_agent.core.record import Kind, State
from tests.explorer import cloudside, deviceside, judge
from tests.explorer.cloudside import READMISSION
from tests.explorer.deviceside import AWAIT
from tests.explorer.tape import ALL
from tests.explorer.world import DAY, HOUR, MINUTE, NEVER, Job, Run, Violation, World

if TYPE_CHECKING:
    from iot_agent.core.record import Step

SWEEPS = 5 * MINUTE  # cloud/template.yaml: ScheduleExpression
PATIENCE = 6 * HOUR  # after which an operator helps
LIMIT = 8 * DAY  # for coming to rest


def go_on(world: World, live: int = 1) -> str | None:  # noqa: PLR0911 - one for each thing that may come next
    """Have the next thing happen, up to its next call (or all of it: `live`); say what in words, None at the end."""
    judge.at_every_state(world)
    run = next(_ready(world), None)
    if run is not None:
        return _serve(world, run, live)
    job, cycle = world.job, world.cycle
    if job is not None and job.outcome is not None:
        return _finish(world, job)
    if job is not None and not (live < ALL and _waits(world, job)):
        return _work(world, job, live)
    if job is not None or cycle is None:
        return _pass_time(world)
    step = cycle.decide()
    if cycle.is_due(step):
        return begin(world, step)
    judge.at_waiting(world, step.kind)
    if _settled(world, step):
        return _rest(world)
    return _pass_time(world)


def is_due(world: World) -> bool:
    """Whether the device begins a step now."""
    return world.cycle is not None and world.cycle.is_due(world.cycle.decide())


# ---- who can act -----------------------------------------------------------------------------------------------------


def _ready(world: World) -> Iterator[Run]:
    return (run for run in world.runs if not run.held and run.ready_at <= world.now)


def _serve(world: World, run: Run, live: int) -> str:
    words = f"{run} {run.next}" if live < ALL else str(run)
    after = cloudside.advance(world, run, live, lambda: judge.at_every_state(world))
    settle(world, run, after)
    return words


def settle(world: World, run: Run, after: Run | None) -> None:
    """Put a run, as it is now, in the place of what it was; one that is over goes."""
    at = next(number for number, one in enumerate(world.runs) if one is run)
    world.runs = (*world.runs[:at], *(() if after is None else (after,)), *world.runs[at + 1 :])


def _waits(world: World, job: Job) -> bool:
    return job.next == AWAIT and not world.inbox and world.patience is not None and world.now < world.patience


def _work(world: World, job: Job, live: int) -> str:
    words = f"device: {job.kind}: {job.next}" if live < ALL else f"device: {job.kind}"

    def meanwhile() -> None:
        while live == ALL and not world.inbox and world.patience is not None and world.now < world.patience:
            run = next(_ready(world), None)
            if run is not None:
                _serve(world, run, live)
            else:
                _pass_time(world)

    world.job = deviceside.advance(world, job, live, lambda: judge.at_every_state(world), meanwhile)
    return words


def begin(world: World, step: Step) -> str:
    """Begin a step: its intent is written down first."""
    assert world.cycle is not None
    judge.at_begin(world, step.kind, world.cycle.record)
    if not world.cycle.begin(step):
        return f"device: cannot write down that it begins to {step.kind}"
    world.job = deviceside.begun(step, world.cycle, world)
    return f"device: begins to {step.kind}: {step.reason}"


def _finish(world: World, job: Job) -> str:
    assert world.cycle is not None
    assert job.outcome is not None
    world.job = None
    world.cycle.finish(job.kind, job.outcome)
    judge.at_failure(world, job.kind, job.outcome, world.cycle.record)
    code = getattr(job.outcome, "code", "")
    told = f"{job.kind} failed ({code}), {world.cycle.record.wait} s to wait" if code else f"{job.kind} is done"
    return f"device: {told}; it is {world.cycle.record.state}"


# ---- time ------------------------------------------------------------------------------------------------------------


def _pass_time(world: World) -> str:
    """Let time pass up to the next thing that is due, and have that come."""
    _note_need(world)
    at = min(_moments(world))
    if at > world.limit_at:
        raise Violation(f"not at rest after {(world.now - world.limit_at + LIMIT) / DAY:.0f} days; {_standing(world)}")
    passed, world.now = at - world.now, at
    return f"{_span(passed)} pass{_due(world)}"


def wait(world: World, seconds: float) -> None:
    """Let time pass without anything happening on the device: it has nothing to do but check in."""
    world.now += seconds


def _moments(world: World) -> Iterator[float]:
    for run in world.runs:
        yield run.deadline if run.held else run.ready_at
    for entry in world.disk.entries.values():
        yield entry.until
    yield from (world.clock_right_at, world.help_at or NEVER, _sweep_at(world))
    if world.cycle is None:
        yield world.off_until
    elif world.job is not None:
        yield world.patience or NEVER
    else:
        yield float(ceil(world.now + max(1.0, world.cycle.pause(world.cycle.decide()))))


def _sweep_at(world: World) -> float:
    looks = [device.look_at / 1000 for device in world.table.values() if device.look_at is not None]
    return ceil(max(min(looks), world.swept_at + SWEEPS, world.now)) if looks else NEVER


def _due(world: World) -> str:
    """Have come what is due now; say what."""
    said = []
    for run in world.runs:
        if run.held and run.deadline <= world.now:
            settle(world, run, replace(run, held=False))
            said.append(f"{run} goes on")
    for label, entry in world.disk.entries.items():
        if entry.until <= world.now:
            world.put(label, replace(entry, bad="", until=NEVER))
            said.append(f"{label} can be read again")
    if world.clock_right_at <= world.now:
        world.clock_error, world.clock_right_at = 0.0, NEVER
        said.append("the device's clock is put right")
    if world.cycle is None and world.off_until <= world.now:
        world.boot()
        said.append("the device starts")
    if _sweep_at(world) <= world.now:
        world.swept_at = world.now
        world.runs = (*world.runs, cloudside.sweeping(world))
    if world.help_at is not None and world.help_at <= world.now:
        said.append(_help(world))
    return "".join(f"; {one}" for one in said)


def _span(seconds: float) -> str:
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


# ---- the operator ----------------------------------------------------------------------------------------------------


def _needs(world: World) -> str | None:
    """Say which order the device needs to come in, if any."""
    if world.device is None or world.device.state is Standing.QUARANTINED:
        return "allow"
    return "readmit" if world.excuses and not _in_service(world) else None


def _in_service(world: World) -> bool:
    if world.cycle is None or world.cycle.record.active is None or world.device is None:
        return False
    record, held = world.cycle.record, world.cycle.record.active
    agreed = world.device.active and world.device.active.certificate_id == held.certificate.certificate_id
    entry = world.disk.entries.get(held.label)
    return bool(record.state is State.ACKED and agreed and entry and world.accepts(entry))


def _note_need(world: World) -> None:
    if _needs(world) is None:
        world.help_at = None
    elif world.help_at is None:
        world.help_at = world.now + PATIENCE


def _help(world: World) -> str:
    needed = _needs(world)
    world.help_at = world.now + READMISSION + PATIENCE
    if needed is None:
        return "nobody needs help"
    if world.revoked:
        judge.revoked(world)
    world.runs = (*world.runs, cloudside.order(world, needed))
    return f"an operator orders: {needed}"


# ---- rest ------------------------------------------------------------------------------------------------------------


def _settled(world: World, step: Step) -> bool:
    assert world.cycle is not None
    record, device = world.cycle.record, world.device
    return (
        step.kind is Kind.WAIT
        and record.state is State.ACKED
        and record.failure is record.cleanup is None
        and world.cycle.trouble is None
        and lifecycle.renewal_due(record) - world.now > 2 * DAY
        and world.clock_error == 0
        and not world.runs
        and not any(entry.until < NEVER for entry in world.disk.entries.values())
        and not any(until > world.now for until in world.quiet.values())
        and device is not None
        and device.state is Standing.ROTATION_COMPLETE
        and device.renew is None
        and device.readmit_until is None
        and not device.retiring
    )


def _rest(world: World) -> str | None:
    """Start the device anew and have one more rotation, then end."""
    assert world.cycle is not None
    if world.lap:
        judge.at_the_end(world)
        return None
    judge.at_rest(world)
    world.lap, world.excuses, world.revoked, world.limit_at = 1, frozenset(), False, world.now + LIMIT
    world.power_off(0)
    world.boot()
    order_rotation(world)
    return "all is at rest; the device is started anew, and ordered to rotate once more"


def order_rotation(world: World) -> None:
    """Do what `agentctl rotate` does."""
    assert world.cycle is not None
    in_force = world.cycle.record.active
    world.failed_at, world.last_wait = None, 0
    if world.cycle.order_rotation() and world.cycle.record.state is State.ACKED and in_force is not None:
        world.ordered = in_force.certificate.certificate_id


def _standing(world: World) -> str:
    """Say where both sides are, in a violation."""
    record = world.cycle.record if world.cycle else None
    reason = world.cycle.decide().reason if world.cycle else "off"
    ours = f"the device is {record.state if record else 'off'} ({reason})"
    device = world.device
    if device is None:
        return f"{ours}; the cloud does not know it"
    left = f", {len(device.retiring)} to retire" if device.retiring else ""
    return (
        f"{ours}; the cloud's record is {device.state}{left}, advice {device.renew}, readmission {device.readmit_until}"
    )
