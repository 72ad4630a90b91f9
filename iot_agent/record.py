"""What a device remembers of its life, and what a step may tell of itself: plain frozen data, no rules.

Times are seconds since the epoch. `store` gives these a form on disk; `lifecycle` holds the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from iot_agent.messages import Advice


class State(StrEnum):
    """Where a device is in its life."""

    UNPROVISIONED = "unprovisioned"
    JITP = "jitp"
    ROTATED = "rotated"
    ACKED = "acked"


class Kind(StrEnum):
    """What can be done next; all but `WAIT` run in a worker process."""

    INTRODUCE = "introduce"  # open a session with the bootstrap identity
    GENERATE = "generate"  # make the pending key and its CSR
    REQUEST = "request"  # send the CSR over the identity in force; check and store the certificate
    PROVE = "prove"  # connect, subscribe, publish and be acknowledged over the new certificate
    RETIRE = "retire"  # remove keys and certificates that nothing needs any more
    CHECK_IN = "check-in"  # report to the cloud; hear its time and its advice
    WAIT = "wait"


@dataclass(frozen=True)
class Certificate:
    """A certificate's facts. Its id is the SHA-256 of its DER, hex, as in AWS IoT; `renew_at` 0 means not drawn yet."""

    certificate_id: str
    not_before: int
    not_after: int
    renew_at: int = 0


@dataclass(frozen=True)
class Identity:
    """A key (by label) with its certificate, complete on disk."""

    label: str
    certificate: Certificate


@dataclass(frozen=True)
class Pending:
    """A rotation under way: the new key's label, how far it has come, how often its proof has failed."""

    label: str
    request_id: str
    generated: bool = False
    certificate: Certificate | None = None
    refusals: int = 0


@dataclass(frozen=True)
class Failure:
    """The last failure, until something succeeds that shows it is over; `step` is the value of a `Kind`."""

    step: Kind
    code: str
    message: str
    remedy: str
    at: int


@dataclass(frozen=True)
class Event:
    """One line of the device's history."""

    at: int
    event: str
    detail: str


@dataclass(frozen=True)
class Advised:
    """Renewal advice already heard, with the instant drawn from it."""

    start: int
    end: int
    at: int


@dataclass(frozen=True)
class Record:
    """Everything the daemon must remember. `active` is None while the bootstrap identity is the only one in force."""

    serial: str
    state: State = State.UNPROVISIONED
    active: Identity | None = None
    pending: Pending | None = None
    set_aside: Identity | None = None
    leftovers: tuple[str, ...] = ()
    attempt: int = 0
    rollbacks: int = 0
    retry_at: int = 0
    failure: Failure | None = None
    rotations: int = 0
    renew_requested: int = 0
    advised: Advised | None = None
    check_in_at: int = 0
    last_contact: int = 0
    time_floor: int = 0
    history: tuple[Event, ...] = ()

    @property
    def kept(self) -> frozenset[str]:
        """Labels that must stay on disk, whatever else is removed (rule 1)."""
        return frozenset(part.label for part in (self.active, self.pending, self.set_aside) if part is not None)


@dataclass(frozen=True)
class Step:
    """What to do, from when, and why in one sentence: the same for log, `agentctl status` and systemd's STATUS."""

    kind: Kind
    due: float
    reason: str


@dataclass(frozen=True)
class Introduced:
    """The cloud accepted a session of the bootstrap identity."""


@dataclass(frozen=True)
class Generated:
    """The pending key and its CSR are on disk."""


@dataclass(frozen=True)
class Issued:
    """A fit certificate for the pending key is on disk; `cloud_time` in seconds if the cloud told it."""

    certificate: Certificate
    cloud_time: int | None


@dataclass(frozen=True)
class Proven:
    """The cloud has acknowledged the new certificate over a session of that certificate."""

    cloud_time: int | None


@dataclass(frozen=True)
class Retired:
    """These labels, and all else that was not to be kept, are gone from disk."""

    labels: tuple[str, ...]


@dataclass(frozen=True)
class CheckedIn:
    """The cloud has the report; its clock, and advice if any."""

    cloud_time: int
    advice: Advice | None


@dataclass(frozen=True)
class Failed:
    """The step did not succeed; `retry_after` in seconds when the cloud named a time."""

    code: str
    message: str
    remedy: str
    fatal: bool
    retry_after: int | None = None


Success = Introduced | Generated | Issued | Proven | Retired | CheckedIn
Outcome = Success | Failed
