"""The scheduled run: looks at every record that is due, and does what no message triggers.

A record is first written with the time of its next look, and only then acted upon. So a record that keeps failing does
not delay the others, two sweepers do not do the same work, and a run that is stopped loses nothing.
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
"""The time that the function must have left to begin another record: a retirement may wait for detachments."""


def sweep(world: World, remaining_ms: Callable[[], int]) -> None:
    """Look at every record that is due while there is time; the next run looks at the rest."""
    looked = 0
    for serial in world.devices.due(world.clock()):
        if remaining_ms() <= ENOUGH_MS:
            break
        looked += 1
        try:
            _look(world, serial)
        except ConflictError:
            continue  # another run has written the record
        except Exception as error:  # noqa: BLE001 - it is counted and looked at again; the others go on
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
    if device.removing is not None:
        steps.remove(world, serial)
