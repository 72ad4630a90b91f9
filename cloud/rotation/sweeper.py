"""The scheduled run: looks at every record whose time has come, and does what no message will come to do.

A record is first written with the time of its next look, and only then acted upon: one that keeps failing does not hold
up the others, two sweepers do not do the same work, and a run that is cut short loses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloud.rotation import agenda, steps, telemetry
from cloud.rotation.devices import ConflictError
from cloud.rotation.lifecycle import Save

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud.rotation.steps import World

ENOUGH_MS: Final = 20_000
"""What must be left of the function's time to begin with one more record: a retirement may wait for detachments."""


def sweep(world: World, remaining_ms: Callable[[], int]) -> None:
    """Look at every record that is due, as far as the time goes; the next run goes on from there."""
    looked = 0
    for serial in world.devices.due(world.clock()):
        if remaining_ms() <= ENOUGH_MS:
            break
        looked += 1
        try:
            _look(world, serial)
        except ConflictError:
            continue  # the device itself is at it
        except Exception as error:  # noqa: BLE001 - counted, and looked at again; the others must not wait for it
            problem = f"{type(error).__name__}: {error}"
            telemetry.count("Failed", world.stack, serial=serial, request="sweep", reason=problem)
    telemetry.count("Swept", world.stack, looked)


def _look(world: World, serial: str) -> None:
    now = world.clock()
    device = world.devices.get(serial)
    if device is None or device.look_at is None or device.look_at > now:
        return
    decision = agenda.decide_sweep(device, now)
    if isinstance(decision, Save):
        world.devices.save(agenda.looked_at(decision.device), now, decision.entry)
        if decision.entry and decision.entry.event == "abandoned":
            telemetry.count("Abandoned", world.stack, serial=serial, certificate=decision.entry.certificate_id)
    else:
        world.devices.save(agenda.looked_at(device), now)
    if counted := agenda.late(device, now):
        telemetry.count(counted, world.stack, serial=serial)
    steps.finish(world, serial)
