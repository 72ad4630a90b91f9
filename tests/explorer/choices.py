"""What may go otherwise at a point: every fault, order and forgery that makes sense in this world, by name.

A choice is a name and what it does to a copy of the world. Its name says where it strikes only by the point at which it
is made, so a path is a list of numbers and names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from cloud.rotation.record import State as Standing
from iot_agent.core.errors import Code, Retryable
from iot_agent.core.record import Failed
from iot_agent.resident.daemon import OF_A_ROTATION
from tests.explorer import cloudside, deviceside, fair, judge, paper
from tests.explorer.cloudside import PREFIX, again, message
from tests.explorer.deviceside import AWAIT
from tests.explorer.world import (
    BOOTSTRAP,
    DAY,
    HOUR,
    LIFETIME,
    MINUTE,
    NEVER,
    SERIAL,
    STRANGER,
    Listed,
    World,
)

Act = Callable[[World], None]
Choice = tuple[str, Act]

OFF = {"": 0.0, " for 10 min": 10 * MINUTE, " for 25 h": 25 * HOUR, " for 20 d": 20 * DAY, " for 100 d": 100 * DAY}
SPELLS = {"1 h": HOUR, "9 h": 9 * HOUR, "3 d": 3 * DAY}
CLOCKS = {"40 d ahead": 40 * DAY, "10 y ahead": 3650 * DAY, "1 d behind": -DAY, "10 y behind": -3650 * DAY}
UNREADABLE = ("key", "certificate", "facts")
FAR_KEY = "key-of-a-stranger"


def choices(world: World) -> Iterator[Choice]:
    """List what may go otherwise here, by one fault; nothing in the last rotation: it shows what faults left."""
    if world.lap:
        return
    yield from _power(world)
    yield from _disk(world)
    yield from _clock(world)
    yield from _worker(world)
    yield from _wire(world)
    yield from _cloud(world)
    yield from _orders(world)
    yield from _forgeries(world)


def releases(world: World) -> Iterator[Choice]:
    """List which of the runs that are held back may go on here: that is no further fault."""
    for number, run in enumerate(world.runs):
        if run.held:
            yield f"let go on: {run}", partial(_release, number=number)


def _release(world: World, number: int) -> None:
    run = world.runs[number]
    world.runs = (replace(run, held=False), *world.runs[:number], *world.runs[number + 1 :])


def _disturb(world: World, seconds: float, *, helped: str | None = None) -> None:
    """Give the world the time that a fault costs it, and an excuse where it allows no other way but readmission."""
    if helped is not None:
        world.excuses |= {helped}
    limit = fair.LIMIT + (judge.HELPED if world.excuses else 0)
    world.limit_at = max(world.limit_at, world.now + seconds + limit)


# ---- power, disk, clock ----------------------------------------------------------------------------------------------


def _power(world: World) -> Iterator[Choice]:
    if world.cycle is None:
        return
    if world.job is None and not fair.is_due(world):
        lengths = OFF  # between two steps
    else:
        lengths = {name: seconds for name, seconds in OFF.items() if seconds in (0, 25 * HOUR, 100 * DAY)}
    for name, seconds in lengths.items():
        yield f"power off{name}", partial(_cut, seconds=seconds)
    if world.disk.previous is not None:
        yield "power off, and the last save of the record is lost", partial(_cut, seconds=0, record="previous")
        yield "power off, and the record is lost", partial(_cut, seconds=0, record="none")
    if world.backup is not None and world.job is None:
        yield "power off, and an older copy of the disk is put back", _restore


def _cut(world: World, seconds: float, record: str = "") -> None:
    world.power_off(seconds)
    disk = world.disk
    if record:
        kept = disk.previous if record == "previous" else None
        world.disk = replace(disk, record=kept, previous=None)
        world.ordered = None  # the order was in the record that is lost
        if any(entry.bad == "facts" and entry.until == NEVER for entry in disk.entries.values()):
            world.excuses |= {"destroyed"}  # nothing tells any more that this identity is there
    holds = any(label != BOOTSTRAP and entry.certificate for label, entry in disk.entries.items())
    _disturb(world, seconds, helped="expired" if seconds >= LIFETIME and holds else None)


def _restore(world: World) -> None:
    assert world.backup is not None
    world.power_off(0)
    world.disk, world.ordered = world.backup, None
    _disturb(world, 0, helped="restored")


def _disk(world: World) -> Iterator[Choice]:
    if world.cycle is None:
        return
    if world.job is None or world.job.outcome is not None:
        yield "the disk refuses the next save", _fill
    if world.job is not None:
        return
    for label, entry in world.disk.entries.items():
        if entry.key is None or entry.bad:
            continue
        if label != BOOTSTRAP:
            yield f"the key of {label} is gone", partial(_spoil, label=label, bad="gone", until=NEVER)
        for bad in UNREADABLE:
            if (entry.certificate is None and bad != "key") or (label, bad) == (BOOTSTRAP, "facts"):
                continue
            spoil = partial(_spoil, label=label, bad=bad)
            yield f"{bad} of {label} unreadable for 9 h", partial(spoil, until=world.now + 9 * HOUR)
            if label != BOOTSTRAP:
                yield f"{bad} of {label} unreadable for good", partial(spoil, until=NEVER)


def _fill(world: World) -> None:
    world.full = True
    _disturb(world, 0)


def _spoil(world: World, label: str, bad: str, until: float) -> None:
    entry = world.disk.entries[label]
    for_good = until == NEVER
    world.put(label, replace(entry, key=None) if bad == "gone" else replace(entry, bad=bad, until=until))
    if for_good and entry.certificate is not None:
        world.destroyed |= {paper.read(entry.certificate).certificate_id}
    _disturb(world, 0 if for_good else until - world.now)


def _clock(world: World) -> Iterator[Choice]:
    if world.clock_error or world.cycle is None:
        return
    if world.job is not None and world.job.next != AWAIT:
        return
    for name, error in CLOCKS.items():
        for span, seconds in (("5 min", 5 * MINUTE), ("9 h", 9 * HOUR)):
            yield f"the device's clock is {name} for {span}", partial(_set, error=error, seconds=seconds)


def _set(world: World, error: float, seconds: float) -> None:
    world.clock_error, world.clock_right_at = error, world.now + seconds
    _disturb(world, seconds)


# ---- the worker and the wire -----------------------------------------------------------------------------------------


def _worker(world: World) -> Iterator[Choice]:
    job = world.job
    if job is None or job.outcome is not None:
        return
    yield "the step hangs and is stopped", _hang
    if job.next.startswith(("makes", "stores", "removes")):
        yield "the disk refuses it", partial(_fail, error=OSError("no space left on device"))


def _hang(world: World) -> None:
    assert world.job is not None
    world.end_session()
    failed = Failed(Code.WORKER_TIMEOUT, "the step took too long", "", fatal=False)
    world.job = replace(world.job, outcome=failed, next="ends")
    _disturb(world, 0)


def _fail(world: World, error: Exception) -> None:
    """Have the next call of the step fail."""
    job = world.job
    assert job is not None
    if job.next.startswith(("makes the key", "removes the key")):
        error = Retryable(Code.KEY_STORE, str(error))
    world.job = deviceside.advance(world, job, 1, lambda: judge.at_every_state(world), instead=error)
    _disturb(world, 0)


def _wire(world: World) -> Iterator[Choice]:
    job = world.job
    if job is None or job.outcome is not None:
        return
    if job.next.startswith("connects"):
        yield (
            "the connection is refused",
            partial(_fail, error=Retryable(Code.REFUSED, "the cloud closed the connection")),
        )
        yield (
            "the cloud cannot be reached",
            partial(_fail, error=Retryable(Code.UNREACHABLE, "cannot reach the endpoint")),
        )
        for name, seconds in SPELLS.items():
            for what in ("refused", "unreachable"):
                yield f"every connection is {what} for {name}", partial(_hush, what=what, seconds=seconds)
    if job.next.startswith("sends"):
        yield "the request is lost", partial(_hush, what="silent", seconds=1)
        yield "the request is forbidden", partial(_fail, error=Retryable(Code.NOT_PERMITTED, "the policy forbids it"))
        yield "the request comes twice, once late", _repeat
        for name, seconds in SPELLS.items():
            yield f"the cloud is silent for {name}", partial(_hush, what="silent", seconds=seconds)
            yield f"the cloud's answers are lost for {name}", partial(_hush, what="deaf", seconds=seconds)
    if job.next == AWAIT and world.inbox:
        yield "the answer is lost", _lose
        yield "the connection is lost", partial(_fail, error=Retryable(Code.CONNECTION_LOST, "the connection broke"))


def _hush(world: World, what: str, seconds: float) -> None:
    world.quiet = {**world.quiet, what: world.now + seconds}
    _disturb(world, seconds)


def _repeat(world: World) -> None:
    """Send the request, with a copy of it that stays on the way."""
    assert world.job is not None
    before = len(world.runs)
    world.job = deviceside.advance(world, world.job, 1, lambda: judge.at_every_state(world))
    world.runs = (*world.runs, *(replace(run, held=True) for run in world.runs[before:]))
    _disturb(world, 0)


def _lose(world: World) -> None:
    world.inbox, world.patience = (), world.now
    _disturb(world, 0)


# ---- the cloud -------------------------------------------------------------------------------------------------------


def _cloud(world: World) -> Iterator[Choice]:
    for number, run in enumerate(world.runs):
        if run.held or run.ready_at > world.now:
            continue
        yield f"{run} stays behind", partial(_hold, number=number)
        if run.program[0] != "template":
            yield f"{run} is killed", partial(_kill, number=number)
            yield f"a call of {run} fails", partial(_throttle, number=number)
        if run.program[0] == "sweep":
            yield "the schedule fires twice", _sweep_twice
        return  # the others come to be the first one later


def _sweep_twice(world: World) -> None:
    world.runs = (*world.runs, cloudside.sweeping(world))
    _disturb(world, 0)


def _hold(world: World, number: int) -> None:
    held = replace(world.runs[number], held=True)
    world.runs = (*world.runs[:number], held, *world.runs[number + 1 :])
    _disturb(world, 0)


def _kill(world: World, number: int) -> None:
    run = world.runs[number]
    fair.settle(world, run, again(world, run))
    _disturb(world, 0)


def _throttle(world: World, number: int) -> None:
    run = world.runs[number]
    refused = RuntimeError("ThrottlingException")
    after = cloudside.advance(world, run, 1, lambda: judge.at_every_state(world), instead=refused)
    fair.settle(world, run, after)
    _disturb(world, 0)


# ---- operators, and others -------------------------------------------------------------------------------------------


def _orders(world: World) -> Iterator[Choice]:
    device = world.device
    if device is None or device.state is Standing.QUARANTINED:
        orders = ["allow"]
    elif device.state is Standing.REVOKED:
        orders = ["readmit"]
    else:
        orders = ["revoke", *(["readmit"] if device.state is not Standing.ALLOWED else [])]
        orders += ["advise"] if device.active and device.renew is None else []
    for name in orders:
        yield f"an operator orders: {name}", partial(_order, name=name)
    if world.cycle is not None:
        yield "an operator orders: rotate (agentctl)", _rotate
        if world.cycle.record.pending is not None or world.cycle.record.renew_requested:
            yield "an operator orders: cancel (agentctl)", _cancel
        yield "the configuration is reloaded", _reload


def _order(world: World, name: str) -> None:
    world.runs = (cloudside.order(world, name), *world.runs)
    _disturb(world, 0, helped="revoked" if name == "revoke" else None)


def _rotate(world: World) -> None:
    fair.order_rotation(world)
    _disturb(world, 0)


def _cancel(world: World) -> None:
    """Do what `agentctl cancel` does, which ends a running step of the rotation."""
    assert world.cycle is not None
    if world.job is not None and world.job.kind in OF_A_ROTATION:
        world.end_session()
        world.job = None
    world.failed_at, world.last_wait, world.ordered = None, 0, None
    world.cycle.cancel_rotation()
    _disturb(world, 0)


def _reload(world: World) -> None:
    assert world.cycle is not None
    world.failed_at, world.last_wait = None, 0
    world.cycle.reset_backoff()
    _disturb(world, 0)


def _forgeries(world: World) -> Iterator[Choice]:
    """Send what a stranger would, over a certificate of its own, and what the device would over a wrong one."""
    device = world.device
    if device is None:
        return
    forged = [("create-man-cert", {"csr": paper.request(FAR_KEY, SERIAL)}, _stranger())]
    if device.pending is not None:
        named = {"cert_id": device.pending.certificate_id}
        forged.append(("ack-man-cert", named, _stranger()))
        if device.present_certificate_id is not None:
            forged.append(("ack-man-cert", named, device.present_certificate_id))
    for verb, payload, principal in forged:
        whose = "a stranger's certificate" if principal == _stranger() else "the previous certificate"
        yield f"{verb} is forged over {whose}", partial(_forge, verb=verb, payload=payload, principal=principal)


def _stranger() -> str:
    return f"{10**9:064x}"


def stranger() -> tuple[str, Listed]:
    """Give a certificate of another device, in service."""
    facts = paper.Paper(_stranger(), STRANGER, FAR_KEY, paper.MANUFACTURER_CA, 0, 10**10)
    return _stranger(), Listed(paper.write(facts), "ACTIVE", paper.MANUFACTURER_CA, frozenset({"device"}), thing=True)


def _forge(world: World, verb: str, payload: dict[str, str], principal: str) -> None:
    topic = f"{PREFIX}/{verb}/{SERIAL}/rqst"
    run = message(world, principal, topic, json.dumps(payload).encode(), f"the Lambda, for a forged {verb}")
    world.runs = (run, *world.runs)
    _disturb(world, 0)
