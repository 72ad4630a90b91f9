"""Whose message it is: nobody is refused, or told of a failure, whom another stack serves.

Every topic rule of an account and region whose filter matches gets a message. So a second stack with the same topic
prefix hears the devices of the first, and a device takes whatever answer comes for that of its own stack.

- What comes over a certificate that the table knows is ours.
- So is what comes over a certificate of this stack's CAs: of a device whose record was lost, or is older than it.
- Anything else is somebody else's, and gets no answer. What is not known is not answered either: a device asks again.

Only what would be refused is looked at, so it costs a device in service nothing. The registry is asked seldom: AWS IoT
describes ten certificates a second for a whole account, and issuing needs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cloud.rotation.steps import World

AT_ONCE: Final = 10
EVERY_MS: Final = 1000


@dataclass(slots=True)
class Looks:
    """How often one process may ask the registry: AT_ONCE, and once more for each EVERY_MS that has passed."""

    left: float = AT_ONCE
    since: int = 0

    def take(self, now: int) -> bool:
        """Take one, if there is one, at `now` (ms)."""
        self.left = min(AT_ONCE, self.left + max(0, now - self.since) / EVERY_MS)
        self.since = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def foreign(world: World, looks: Looks, serial: str, principal: str, *, failing: bool = False) -> str | None:
    """Return why what came over the certificate `principal` is not answered; None if it is ours.

    Raises what AWS raises. `failing`: it is to be told of a failure, so the registry decides where the table cannot.
    """
    try:
        device = world.devices.get(serial)
    except Exception:
        if not failing:
            raise
        device = None
    if device is not None and device.knows(principal):
        return None
    if not looks.take(world.clock()):
        return "too many certificates that the table does not know came at once"
    found = world.registry.describe(principal)
    if found is None:
        return "its certificate is not registered any more"
    if found.ca_id in (world.vendor_ca_id, world.manufacturer_ca_id):
        return None
    return f"its certificate is of the CA {found.ca_id}, which is not this stack's"
