"""Where exploration starts: a new device, unknown or known to the cloud; one in service; one with an older disk."""

from __future__ import annotations

from cloud.rotation.record import Device, State
from iot_agent.core import lifecycle
from tests.explorer import choices, fair
from tests.explorer.paper import VENDOR_CA
from tests.explorer.tape import ALL
from tests.explorer.world import BOOTSTRAP, HOUR, SERIAL, STRANGER, Entry, World

LONG = 10_000


def unknown() -> World:
    """Give a new device, whose serial nobody has allowed."""
    world, key = World(own_keys=frozenset({"key-0"})), "key-0"
    world.put(BOOTSTRAP, Entry(key, world.sign(key, SERIAL, VENDOR_CA)))
    world.list(*choices.stranger())
    world.backup = world.disk
    world.boot()
    return world


def known() -> World:
    """Give a new device that is on the allow-list, beside another one."""
    world = unknown()
    world.table = {serial: Device(serial, State.ALLOWED, 0) for serial in (SERIAL, STRANGER)}
    return world


def in_service() -> World:
    """Give a device that has rotated twice, an hour before its certificate is due."""
    world = known()
    for _ in range(LONG):
        if fair.go_on(world, ALL) is None:
            break
    assert world.cycle is not None
    while (left := lifecycle.renewal_due(world.cycle.record) - world.now) > HOUR:
        fair.wait(world, left - HOUR)
    world.backup, world.lap, world.ordered = world.disk, 0, None
    world.limit_at = world.now + fair.LIMIT
    return world


def restored() -> World:
    """Give a device that has been given the disk that it had one rotation ago."""
    world = in_service()
    backup = world.disk
    for _ in range(LONG):
        if fair.go_on(world, ALL) is None:
            break
    world.power_off(0)
    world.disk, world.lap, world.ordered, world.excuses = backup, 0, None, frozenset({"restored"})
    world.backup = None
    world.limit_at = world.now + 4 * fair.LIMIT
    return world


STARTS = {"unknown": unknown, "known": known, "in-service": in_service, "restored": restored}
