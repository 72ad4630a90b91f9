"""Which stack a message is for: a device that another stack serves gets no refusal or failure from this one.

Every topic rule of an account and region whose filter matches receives a message. So a second stack with the same topic
prefix receives the messages of the first stack's devices, and a device takes any answer for that of its own stack.

- A message over a certificate that the table has is for this stack.
- So is a message over a certificate of this stack's CAs: the record may be lost, or older than the certificate.
- Any other message gets no answer, and neither does one whose CA cannot be determined: a device asks again.

Only a message that would be refused is checked, so the check costs a device in service nothing. The registry is asked
rarely: AWS IoT describes ten certificates a second for a whole account, and issuing needs those calls.
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
    """How often one process may ask the registry: AT_ONCE times, and once more every EVERY_MS."""

    left: float = AT_ONCE
    since: int = 0

    def take(self, now: int) -> bool:
        """Take one look, if there is one left, at `now` (ms)."""
        self.left = min(AT_ONCE, self.left + max(0, now - self.since) / EVERY_MS)
        self.since = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def foreign(world: World, looks: Looks, serial: str, principal: str, *, failing: bool = False) -> str | None:
    """Return why a message over the certificate `principal` is not answered; None if it is for this stack.

    AWS errors are raised as they are. `failing`: the answer would report a failure; if the table cannot be read, the
    registry decides.
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
        return "its certificate is no longer registered"
    if found.ca_id in (world.vendor_ca_id, world.manufacturer_ca_id):
        return None
    return f"its certificate was issued by CA {found.ca_id}, which does not belong to this stack"
