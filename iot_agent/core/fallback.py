"""Which identity gets the next turn, when the one that should serve gets no answer. Pure.

- Every complete identity on the disk, and the bootstrap identity, gets its turn, whatever keeps the first from working:
  its key or certificate is damaged, its token is away, the cloud refuses it, or nobody answers. So an operator's
  readmission always reaches the device, and a certificate that the cloud committed to is always found.
- How soon depends on what is known. An identity that cannot be used here is useless at once. A refusal is taken
  seriously after a few: the control plane of AWS IoT is eventually consistent. Silence says nothing about an identity,
  so the others have a turn only after many failures, and rarely.
- Failures are counted since the last such turn, so no order of failures can keep one from its turn for ever.
- A cloud that speaks only the sample's protocol leaves much unanswered. There silence never leads to the bootstrap
  certificate: the sample has deleted it, and showing it would register it again.
"""

from enum import Enum

from iot_agent.core.errors import TURNED_AWAY, UNUSABLE
from iot_agent.core.record import Identity, Record, State


class Bootstrap(Enum):
    """The identity from the factory: a turn of it is a request for a certificate."""

    IDENTITY = "bootstrap"


WHEN_UNUSABLE = (1, 1)  # (failures before the first turn of another identity, failures before each further one)
WHEN_TURNED_AWAY = (3, 1)
WHEN_SILENT = (12, 3)


def turn(record: Record) -> Identity | Bootstrap | None:
    """Say whose turn it is: another identity's, the bootstrap identity's, or (None) the one's that should serve."""
    others = candidates(record)
    first, further = _patience(record.problem)
    if not record.problem or not others or record.failures < (further if record.fallbacks else first):
        return None
    return others[record.fallbacks % len(others)]


def candidates(record: Record) -> tuple[Identity | Bootstrap, ...]:
    """List the other identities, the newest first, and the bootstrap identity where it is not the first anyway."""
    newest_first: tuple[Identity | Bootstrap, ...] = record.unconfirmed[::-1]
    if record.state is not State.ACKED or (record.answers_once and _patience(record.problem) is WHEN_SILENT):
        return newest_first
    return (*newest_first, Bootstrap.IDENTITY)


def _patience(problem: str) -> tuple[int, int]:
    if problem in UNUSABLE:
        return WHEN_UNUSABLE
    return WHEN_TURNED_AWAY if problem in TURNED_AWAY else WHEN_SILENT
