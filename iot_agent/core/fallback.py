"""Which identity makes the next attempt, when the active one gets no useful answer. Pure.

- Every complete identity on the disk, and the bootstrap identity, gets its turn, for whatever reason the active one
  fails: its key or certificate is damaged, its token is away, the cloud refuses it, or does not answer. So an
  operator's readmission always reaches the device, and a certificate that the cloud committed to is always found.
- How soon depends on the failure. If this device cannot use the identity: after one. If the cloud refuses it: after a
  few, because the control plane of AWS IoT is eventually consistent. If there is no answer, which says nothing about an
  identity: after many, and then rarely.
- Failures are counted since the last such turn, so no order of failures can deny an identity its turn.
- A cloud that speaks only the sample's protocol leaves many requests unanswered. With such a cloud, missing answers
  never lead to the bootstrap certificate: that cloud has deleted it, and a connection with it would register it again.
"""

from enum import Enum

from iot_agent.core.errors import TURNED_AWAY, UNUSABLE
from iot_agent.core.record import Identity, Record, State


class Bootstrap(Enum):
    """The bootstrap identity. Its turn is a request for a certificate."""

    IDENTITY = "bootstrap"


WHEN_UNUSABLE = (1, 1)  # (failures before the first turn of another identity, failures before each further one)
WHEN_TURNED_AWAY = (3, 1)
WHEN_SILENT = (12, 3)


def turn(record: Record) -> Identity | Bootstrap | None:
    """Give the identity whose turn it is: an unconfirmed one, the bootstrap identity, or None for the active one."""
    others = candidates(record)
    first, further = _failures_before_a_turn(record.problem)
    if not record.problem or not others or record.failures < (further if record.fallbacks else first):
        return None
    return others[record.fallbacks % len(others)]


def candidates(record: Record) -> tuple[Identity | Bootstrap, ...]:
    """List the other identities, the newest first, then the bootstrap identity, unless that is the only one in use."""
    newest_first: tuple[Identity | Bootstrap, ...] = record.unconfirmed[::-1]
    if record.state is not State.ACKED or (
        record.answers_once and _failures_before_a_turn(record.problem) is WHEN_SILENT
    ):
        return newest_first
    return (*newest_first, Bootstrap.IDENTITY)


def _failures_before_a_turn(problem: str) -> tuple[int, int]:
    if problem in UNUSABLE:
        return WHEN_UNUSABLE
    return WHEN_TURNED_AWAY if problem in TURNED_AWAY else WHEN_SILENT
