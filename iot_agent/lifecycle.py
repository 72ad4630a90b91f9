"""The rules of a device certificate's life. Pure: no clock, file, socket or log; time and chance are arguments.

States
  unprovisioned  only the bootstrap (vendor) identity; the cloud has not accepted a session yet
  jitp           the cloud knows the device; no certificate of its own yet
  rotated        a new certificate is stored but not proven; the previous identity still serves
  acked          one certificate, confirmed on both sides; renewed when its instant comes

Rules
  1. Make before break: an identity is given up only after the cloud has confirmed another one over a session of that
     other one. Nothing is removed from disk before that (`Record.kept`).
  2. A key is generated once for a rotation and its CSR sent again, unchanged, after any crash; the cloud answers the
     same key with the same certificate.
  3. A new certificate that is refused a bounded number of times is set aside, and the previous state returns with a
     fresh key and a growing delay. It is set aside, not removed: a lost reply may have hidden that the
     cloud did commit to it. It goes when the cloud issues for another key, which proves that it did not; and if the
     previous identity is refused meanwhile, and then the bootstrap identity (rule 6), the one set aside is tried again.
  4. A certificate that is not fit is never stored; its key is dropped with it, because the cloud would answer that key
     with that same certificate for ever. So is a pending key that cannot be used.
  5. Failures back off; the count is in the record. Housekeeping (retire, check-in) never delays a rotation.
  6. An identity that the cloud keeps refusing is renewed, whatever its dates say; and every other time the request goes
     over the bootstrap identity, because that is how an operator readmits a device that has expired, was restored, or
     has lost the token of its key.
  7. The renewal instant is drawn once, when the certificate arrives. The cloud's advice, and an operator's request, can
     bring it forward, never put it off.

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from iot_agent.errors import Code
from iot_agent.record import (
    Advised,
    CheckedIn,
    Event,
    Failed,
    Failure,
    Generated,
    Identity,
    Introduced,
    Issued,
    Kind,
    Outcome,
    Pending,
    Proven,
    Record,
    Retired,
    State,
    Step,
)
from iot_agent.schedule import Policy, backoff, renewal_instant

HISTORY_LENGTH = 40
# That the identity in force may not open a session: the cloud refuses it, or its key cannot be used (a token may hang).
NO_WAY_IN = frozenset(
    {Code.REFUSED, Code.TOKEN, Code.PIN, Code.PIN_REFUSED, Code.PIN_LOCKED, Code.WORKER_TIMEOUT, Code.WORKER_CRASHED}
)
SAYS_NOTHING = frozenset(
    {Code.UNREACHABLE, Code.UNTRUSTED_SERVER, Code.CLOUD_ERROR}
)  # about the certificate being proven
HOUSEKEEPING = frozenset({Kind.RETIRE, Kind.CHECK_IN})
REFUSED_FOR_GOOD = 5  # check-ins refused in a row: a policy that has not settled takes fewer


TRANSITIONS = {
    # in this state      , after this success : the state is
    (State.UNPROVISIONED, Kind.INTRODUCE): State.JITP,
    (State.JITP,          Kind.GENERATE):  State.JITP,
    (State.JITP,          Kind.REQUEST):   State.ROTATED,
    (State.JITP,          Kind.RETIRE):    State.JITP,
    (State.ROTATED,       Kind.PROVE):     State.ACKED,
    (State.ACKED,         Kind.GENERATE):  State.ACKED,
    (State.ACKED,         Kind.REQUEST):   State.ROTATED,
    (State.ACKED,         Kind.RETIRE):    State.ACKED,
    (State.ACKED,         Kind.CHECK_IN):  State.ACKED,
}  # fmt: skip


# ---- what next ------------------------------------------------------------------------------------------------------


def decide(record: Record, now: float, policy: Policy) -> Step:
    """Say what to do next and from when. The first rule with something to say wins; the chain is the specification."""
    chain = (_introduce, _prove, _request, _generate, _first_key, _renew, _retire, _check_in)
    for rule in chain:
        step = rule(record, now)
        if step is not None:
            return _held_back(step, record, now, policy)
    due = float(_next_instant(record))
    return Step(Kind.WAIT, due, "certificate in force; waiting for its renewal instant")


def renewal_due(record: Record) -> int:
    """When the active certificate is to be renewed: its own instant, or earlier by advice or request."""
    if record.active is None:
        return 0
    due = record.active.certificate.renew_at
    if record.advised is not None:
        due = min(due, record.advised.at)
    if record.renew_requested:
        due = min(due, record.renew_requested)
    return due


def asks_with_bootstrap(record: Record) -> bool:
    """Say whether the next request goes over the bootstrap identity (rule 6)."""
    failure = record.failure
    if record.active is None or failure is None:
        return record.active is None
    return failure.step == Kind.REQUEST and failure.code in NO_WAY_IN and record.attempt % 2 == 1


def _introduce(record: Record, now: float) -> Step | None:
    if record.state is not State.UNPROVISIONED:
        return None
    return Step(Kind.INTRODUCE, now, "introducing this device to the cloud with its bootstrap certificate")


def _prove(record: Record, now: float) -> Step | None:
    if record.state is not State.ROTATED:
        return None
    return Step(Kind.PROVE, now, "proving the new certificate before it replaces the previous identity")


def _request(record: Record, now: float) -> Step | None:
    if record.pending is None or not record.pending.generated:
        return None
    return Step(Kind.REQUEST, now, "asking for a certificate for the new key")


def _generate(record: Record, now: float) -> Step | None:
    if record.pending is None:
        return None
    return Step(Kind.GENERATE, now, "making the key of the next certificate")


def _first_key(record: Record, now: float) -> Step | None:
    if record.state is not State.JITP:
        return None
    return Step(Kind.GENERATE, now, "making the key of the first certificate")


def _renew(record: Record, now: float) -> Step | None:
    if now < renewal_due(record) and not _refused_for_good(record):
        return None
    return Step(Kind.GENERATE, now, _why_renew(record, now))


def _refused_for_good(record: Record) -> bool:
    failure = record.failure
    if failure is None or record.attempt < REFUSED_FOR_GOOD:
        return False
    return failure.step == Kind.CHECK_IN and failure.code == Code.REFUSED


def _retire(record: Record, now: float) -> Step | None:
    if not record.leftovers:
        return None
    if record.failure is not None and record.failure.step == Kind.RETIRE and now >= record.check_in_at:
        return None  # what cannot be removed, because its token is away, must not keep the device from checking in
    return Step(Kind.RETIRE, now, "removing keys and certificates that are no longer needed")


def _check_in(record: Record, now: float) -> Step | None:
    if now < record.check_in_at:
        return None
    return Step(Kind.CHECK_IN, now, "reporting to the cloud")


def _next_instant(record: Record) -> int:
    return min(renewal_due(record), record.check_in_at)


def _why_renew(record: Record, now: float) -> str:
    if record.renew_requested:
        return "renewing: an operator asked for it"
    if record.advised is not None and record.advised.at <= now:
        return "renewing: the cloud advised it"
    if record.active is not None and record.active.certificate.not_after <= now:
        return "renewing: the certificate has expired by this clock; if it is refused, an operator must readmit it"
    if _refused_for_good(record):
        return "renewing: the cloud keeps refusing the certificate; if this is refused too, an operator must readmit it"
    return "renewing: the certificate's renewal instant has come"


def _held_back(step: Step, record: Record, now: float, policy: Policy) -> Step:
    """Apply rule 5. An instant further away than the cap means that the clock has gone back: it is cut to the cap."""
    failure = record.failure
    if failure is None or record.retry_at <= now:
        return step
    if failure.step in HOUSEKEEPING and step.kind not in HOUSEKEEPING:
        return step
    until = min(record.retry_at, now + policy.retry_cap)
    return replace(step, due=until, reason=f"{step.reason}; {record.attempt} failed, last: {failure.message}")


# ---- intent ---------------------------------------------------------------------------------------------------------


def begin(record: Record, step: Step, label: Callable[[], str], request_id: Callable[[], str]) -> Record:
    """Write down the intent of a step before it acts: a rotation's label and request id exist before its key does."""
    if step.kind is Kind.GENERATE and record.pending is None:
        return replace(record, pending=Pending(label(), request_id()))
    return record


def try_now(record: Record) -> Record:
    """End any back-off: a person has changed something or is waiting."""
    return replace(record, attempt=0, retry_at=0)


def request_rotation(record: Record, now: float) -> Record:
    """Ask for a rotation now (an operator's wish); a rotation under way is joined, and any back-off ends."""
    record = try_now(record)
    if record.state is not State.ACKED or record.pending is not None:
        return record
    return _note(replace(record, renew_requested=int(now)), now, "rotation-requested", "by an operator")


# ---- what it means --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When an outcome came in, under which policy, and the chance (uniform in [0, 1)) for whatever it leads to."""

    now: float
    policy: Policy
    draw: float


def apply(record: Record, step: Kind, outcome: Outcome, moment: Moment) -> Record:
    """Fold the outcome of a step into the record; `RuntimeError` for one that cannot happen in this state (our bug)."""
    if isinstance(outcome, Failed):
        return _failed(record, step, outcome, moment)
    state = TRANSITIONS.get((record.state, step))
    if state is None:
        raise RuntimeError(f"{step} cannot succeed in state {record.state}")
    record = replace(record, state=state, attempt=0, retry_at=0)
    now = moment.now
    match outcome:
        case Introduced():
            record = _contact(record, now, None)
            record = _note(record, now, "introduced", "the cloud accepted the bootstrap certificate")
        case Generated():
            record = replace(record, pending=replace(_pending(record), generated=True))
        case Issued():
            record = _contact(_issued(record, outcome, moment), now, outcome.cloud_time)
        case Proven():
            record = _contact(_promoted(record, moment), now, outcome.cloud_time)
        case Retired(labels):
            record = replace(record, leftovers=tuple(name for name in record.leftovers if name not in labels))
            record = _note(record, now, "retired", ", ".join(labels) or "nothing was left")
        case CheckedIn():
            record = replace(record, check_in_at=_next_check_in(moment), advised=_heed(record, outcome, moment.draw))
            record = _contact(record, now, outcome.cloud_time)
    return record


def _pending(record: Record) -> Pending:
    if record.pending is None:
        raise RuntimeError(f"no rotation is under way in state {record.state}")
    return record.pending


def _issued(record: Record, issued: Issued, moment: Moment) -> Record:
    """Store the certificate's facts; whatever was set aside is now known to be useless to the cloud (rule 3)."""
    fresh = issued.certificate
    renew_at = renewal_instant(fresh.not_before, fresh.not_after, moment.now, moment.policy, moment.draw)
    record = replace(
        record,
        pending=replace(_pending(record), certificate=replace(fresh, renew_at=renew_at)),
        set_aside=None,
        leftovers=_also(record.leftovers, record.set_aside),
    )
    return _note(record, moment.now, "issued", fresh.certificate_id)


def _promoted(record: Record, moment: Moment) -> Record:
    proven = _identity(_pending(record))
    record = replace(
        record,
        active=proven,
        pending=None,
        leftovers=_also(record.leftovers, record.active),
        rollbacks=0,
        rotations=record.rotations + 1,
        renew_requested=0,
        advised=None,
        check_in_at=_next_check_in(moment),
    )
    return _note(record, moment.now, "promoted", proven.certificate.certificate_id)


def _identity(pending: Pending) -> Identity:
    if pending.certificate is None:
        raise RuntimeError(f"{pending.label} has no certificate yet")
    return Identity(pending.label, pending.certificate)


def _failed(record: Record, step: Kind, failed: Failed, moment: Moment) -> Record:
    now, policy = moment.now, moment.policy
    last_resort = asks_with_bootstrap(record)
    attempt = record.attempt + 1
    delay = policy.retry_cap if failed.fatal else backoff(attempt, policy, moment.draw)
    record = replace(
        record,
        attempt=attempt,
        retry_at=ceil(now + max(delay, failed.retry_after or 0)),
        failure=Failure(step, failed.code, failed.message, failed.remedy, int(now)),
    )
    if step is Kind.PROVE:
        return _not_proven(record, failed, moment)
    if step is Kind.REQUEST and failed.code == Code.REFUSED and last_resort and record.set_aside is not None:
        return _take_up_again(record, record.set_aside, now)
    useless = failed.fatal or failed.code == Code.UNFIT_CERTIFICATE
    if step in (Kind.GENERATE, Kind.REQUEST) and useless:
        return _drop_pending(record, now, failed.message)
    return record


def _not_proven(record: Record, failed: Failed, moment: Moment) -> Record:
    """Count what speaks against the new certificate (a dead network does not), and roll back when that is enough."""
    pending = _pending(record)
    if failed.code in SAYS_NOTHING:
        return record
    refusals = pending.refusals + 1
    if failed.fatal or refusals >= moment.policy.prove_attempts:
        return _roll_back(record, moment)
    return replace(record, pending=replace(pending, refusals=refusals))


def _roll_back(record: Record, moment: Moment) -> Record:
    """Return to the previous state with the unproven identity set aside (rule 3); each time in a row waits longer."""
    unproven = _identity(_pending(record))
    rollbacks = record.rollbacks + 1
    delay = backoff(rollbacks * moment.policy.prove_attempts, moment.policy, moment.draw)
    record = replace(
        record,
        state=State.JITP if record.active is None else State.ACKED,
        pending=None,
        set_aside=unproven,
        leftovers=_also(record.leftovers, record.set_aside),
        rollbacks=rollbacks,
        retry_at=ceil(moment.now + delay),
    )
    return _note(record, moment.now, "rolled-back", f"{unproven.certificate.certificate_id} could not be proven")


def _take_up_again(record: Record, unproven: Identity, now: float) -> Record:
    """Try again what was set aside: the identity in force is refused, so the cloud may have committed to the other."""
    unsent = _pending(record)
    record = replace(
        record,
        state=State.ROTATED,
        pending=Pending(unproven.label, unsent.request_id, generated=True, certificate=unproven.certificate),
        set_aside=None,
        leftovers=(*record.leftovers, unsent.label),
    )
    return _note(record, now, "taken-up-again", unproven.certificate.certificate_id)


def _drop_pending(record: Record, now: float, why: str) -> Record:
    dropped = _pending(record)
    record = replace(record, pending=None, leftovers=(*record.leftovers, dropped.label))
    return _note(record, now, "key-dropped", why)


def _contact(record: Record, now: float, cloud_time: int | None) -> Record:
    """Remember a proof that the cloud is there. Its time lifts the floor only up to ours: both must agree it passed."""
    floor = record.time_floor if cloud_time is None else max(record.time_floor, min(cloud_time, int(now)))
    return replace(record, last_contact=int(now), time_floor=floor, failure=None)


def _next_check_in(moment: Moment) -> int:
    """Between half an interval and a whole one from now, so that a fleet that booted together spreads out."""
    return int(moment.now + moment.policy.check_in_interval * (1 + moment.draw) / 2)


def _heed(record: Record, heard: CheckedIn, draw: float) -> Advised | None:
    """Draw one instant from advice, once: heard again it keeps its instant; withdrawn it is forgotten."""
    if heard.advice is None:
        return None
    start, end = heard.advice.start // 1000, heard.advice.end // 1000
    if record.advised is not None and (record.advised.start, record.advised.end) == (start, end):
        return record.advised
    return Advised(start, end, int(start + draw * (end - start)))


def _also(leftovers: tuple[str, ...], identity: Identity | None) -> tuple[str, ...]:
    return leftovers if identity is None else (*leftovers, identity.label)


def _note(record: Record, now: float, event: str, detail: str) -> Record:
    return replace(record, history=(*record.history, Event(int(now), event, detail))[-HISTORY_LENGTH:])
