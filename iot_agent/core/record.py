"""What a device remembers, and the outcomes of a step: plain frozen data, no rules.

Times are seconds since the epoch. `codec` turns these into JSON; `lifecycle` has the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from iot_agent.core.protocol import Advice


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
    REQUEST = "request"  # send the CSR over the active identity; check and store the certificate
    PROVE = "prove"  # connect, subscribe, publish and be acknowledged over the new certificate
    RETIRE = "retire"  # remove keys and certificates that nothing needs any more
    CHECK_IN = "check-in"  # report to the cloud; receive its time and its advice
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
    """A rotation under way: the new key's label, how far it has come, how often its certificate was refused."""

    label: str
    request_id: str
    generated: bool = False
    certificate: Certificate | None = None
    refusals: int = 0


@dataclass(frozen=True)
class Failure:
    """A failure, until something succeeds that shows it is over; `code` is a word of `errors.Code`, or a later one."""

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
    """Everything the daemon must remember. Every field but the serial has a default: it is absent from older records.

    active            the identity that applications use; None while the bootstrap identity is the only one
    pending           the rotation under way, or a key made in advance
    unconfirmed       complete identities that the cloud may have committed to, its answer lost; the oldest first
    to_delete         labels of identities that nothing needs any more
    attempt           failures in a row, of whatever step; only contact with the cloud that ends them sets it to 0. A
                      rollback counts as many as a proof may have
    waiting_since     when the last failure began its wait of `wait` seconds
    failure           the last failure; `cleanup` the last one of removing what is in `to_delete`
    problem           the code of the last failure of the identity that should be used, "" once the cloud has answered
    failures          failures since another identity last had its turn; `fallbacks` is the number of such turns
    proof_failures    failures in a row to prove the pending certificate
    rollbacks         certificates in a row that could not be proven
    renewed_at        when the active identity became active
    answers_once      the cloud speaks the first form of the protocol only: it answers an acknowledgement once
    """

    serial: str
    state: State = State.UNPROVISIONED
    active: Identity | None = None
    pending: Pending | None = None
    unconfirmed: tuple[Identity, ...] = ()
    to_delete: tuple[str, ...] = ()
    attempt: int = 0
    waiting_since: int = 0
    wait: int = 0
    failure: Failure | None = None
    cleanup: Failure | None = None
    problem: str = ""
    failures: int = 0
    fallbacks: int = 0
    proof_failures: int = 0
    rollbacks: int = 0
    rotations: int = 0
    renewed_at: int = 0
    renew_requested: int = 0
    advised: Advised | None = None
    answers_once: bool = False
    check_in_at: int = 0
    last_contact: int = 0
    time_floor: int = 0
    history: tuple[Event, ...] = ()

    @property
    def protected_labels(self) -> frozenset[str]:
        """Labels that must stay on disk, whatever else is removed."""
        parts = (self.active, self.pending, *self.unconfirmed)
        return frozenset(part.label for part in parts if part is not None)


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
    """A fit certificate for the pending key is on disk; `cloud_time` in seconds if the cloud told it.

    `answers_once`: the reply had none of the fields that the sample's cloud does not know.
    """

    certificate: Certificate
    cloud_time: int | None
    answers_once: bool = False


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
    """The cloud has the report, and answered with its time, and with advice if it has any."""

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
