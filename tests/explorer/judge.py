"""The promises: at every state, at each failure, when an operator looks, and at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud.rotation.record import State as Standing
from iot_agent.core.errors import Code
from iot_agent.core.record import Failed, Kind, Outcome, Record, State
from tests.explorer import paper
from tests.explorer.paper import MANUFACTURER_CA
from tests.explorer.world import BOOTSTRAP, DAY, NEVER, POLICY, SERIAL, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.explorer.world import Listed, World

HELPED = 24 * DAY  # more to come to rest in, where an operator has to help
ABOARD = (Standing.THING_CREATED, Standing.CERT_ISSUED, Standing.ROTATION_COMPLETE)


def at_every_state(world: World) -> None:
    """Invariant I: once let in, the device holds a complete identity that the cloud accepts.

    It is not asked for while something that nothing can help against is the case: an excuse, or an unreadable disk.
    """
    entries = world.disk.entries.values()
    accepted = any(world.accepts(entry) for entry in entries)
    if not world.boarded:
        world.boarded = accepted and world.device is not None and world.device.state in ABOARD
        return
    if world.excuses or accepted or any(one.until < NEVER for one in entries):
        return
    if world.device is not None and world.device.returning:
        return  # an order is being carried out: what a run before it has undone meanwhile, the sweeper puts right
    if world.destroyed & {name for name, listed in world.registry.items() if listed.status == "ACTIVE"}:
        world.excuses |= {"destroyed"}
        world.limit_at += HELPED
    else:
        raise Violation("bricked: nothing that the device holds is accepted by the cloud")


def at_failure(world: World, kind: Kind, outcome: Outcome, record: Record) -> None:
    """No failure without a pause, and each pause longer than the one before it, up to the cap."""
    if kind is Kind.RETIRE:
        return
    if not isinstance(outcome, Failed):
        if kind is not Kind.GENERATE and record.attempt == 0:
            world.failed_at, world.last_wait = None, 0
        return
    if outcome.code == Code.INTERNAL:
        raise Violation(f"a fault in the agent: {outcome.message}")
    if record.wait < 1 or record.wait + 1 < min(world.last_wait, POLICY.retry_cap / 2):
        raise Violation(f"a failure is followed by a pause of {record.wait} s, after one of {world.last_wait} s")
    world.failed_at, world.last_wait = world.now, 0 if outcome.retry_after else record.wait


def at_begin(world: World, kind: Kind, record: Record) -> None:
    """Nothing is tried again before its pause is over."""
    if kind is not Kind.RETIRE and world.failed_at is not None and world.now - world.failed_at < record.wait - 1:
        raise Violation(f"{kind} begins {world.now - world.failed_at:.0f} s after a failure, not {record.wait} s")


def at_waiting(world: World, kind: Kind) -> None:
    """No device waits that was ordered to rotate."""
    in_force = world.cycle.record.active if world.cycle else None
    if kind is Kind.WAIT and in_force is not None and in_force.certificate.certificate_id == world.ordered:
        raise Violation("an order to rotate is lost")


def revoked(world: World) -> None:
    """Check that a revoked device has nothing in service that the record knows, or that the stack issued."""
    device = world.device
    known = {name for name, listed in _ours(world) if listed.ca == MANUFACTURER_CA or (device and device.knows(name))}
    if device is None or device.state is not Standing.REVOKED or known & _active(world):
        raise Violation("the order to revoke is lost: the device is still in service")


def at_rest(world: World) -> None:
    """Both sides agree on one certificate, the registry has no other of ours, and no order is lost."""
    assert world.cycle is not None
    active, device = world.cycle.record.active, world.device
    if active is None or device is None or device.active is None:
        raise Violation("at rest without a certificate")
    agreed = active.certificate.certificate_id
    if device.active.certificate_id != agreed:
        raise Violation("at rest, device and cloud do not agree on the certificate in force")
    if _active(world) != {agreed}:
        raise Violation(f"at rest with {len(_active(world))} ACTIVE certificates")
    if {name for name, listed in _ours(world) if listed.ca == MANUFACTURER_CA} != {agreed}:
        raise Violation("at rest with a certificate in the registry that nobody needs")
    vendor = world.registry.get(str(device.vendor_certificate_id))
    if not world.let_in and (vendor is None or vendor.status != "INACTIVE" or vendor.policies or vendor.thing):
        raise Violation("at rest with a vendor certificate that may register, or be used, again")
    if not world.registry[agreed].policies or not world.registry[agreed].thing:
        raise Violation("at rest with a certificate without policy or thing")
    if world.cycle.record.state is not State.ACKED:
        raise Violation(f"at rest as {world.cycle.record.state}")
    if agreed == world.advised:
        raise Violation("advice to renew is lost")


def at_the_end(world: World) -> None:
    """Check the same, one more renewal later, and that nothing is left over on the device."""
    at_rest(world)
    assert world.cycle is not None
    record = world.cycle.record
    assert record.active is not None
    # What has a key and a certificate but no readable facts is not known to the device, and is never removed.
    known = {BOOTSTRAP, record.active.label}
    left = {label for label, entry in world.disk.entries.items() if entry.bad != "facts"} - known
    if left:
        raise Violation(f"left over on the device: {left}")
    if record.unconfirmed or record.pending or record.to_delete or world.disk.current != record.active.label:
        raise Violation("left over in the record, or `current` points elsewhere")


def _active(world: World) -> set[str]:
    return {name for name, listed in _ours(world) if listed.status == "ACTIVE"}


def _ours(world: World) -> Iterator[tuple[str, Listed]]:
    return ((name, listed) for name, listed in world.registry.items() if paper.read(listed.pem).serial == SERIAL)
