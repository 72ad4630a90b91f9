"""The rules of a device certificate's life. Pure: no clock, file, socket or log; time and random numbers are arguments.

States
  unprovisioned  only the bootstrap (vendor) identity; the cloud has not accepted a session yet
  jitp           the cloud knows the device; the device has no certificate of its own yet
  rotated        a new certificate is stored but not proven; the previous identity is still the active one
  acked          the cloud has acknowledged the active certificate; it is renewed when its renewal instant comes

Rules
  1. Make before break: an identity is given up only after the cloud has acknowledged another one, in a session that was
     made with that other one. Nothing is deleted before that (`Record.protected_labels`).
  2. A rotation makes one key, and after a crash sends the request for that same key again; the cloud answers the same
     key with the same certificate. A key that was made in advance waits until a renewal is due.
  3. Only an explicit refusal counts against a new certificate. After a bounded number of refusals, or after many more
     failures without an answer, the device returns to the previous state. The certificate stays on disk as
     `unconfirmed`: the cloud may have committed to it, and its answer may have been lost. It is deleted once the cloud
     issues a certificate for another key over the active identity (that proves that the cloud never committed to it),
     or acknowledges another certificate (that supersedes it).
  4. An unfit certificate is never stored, and its key is dropped, because the cloud would answer that key with that
     same certificate for ever. A pending key that cannot be used is dropped too.
  5. After every failure the device waits, each time longer. The number of failures is in the record; only contact with
     the cloud that ends the failure resets it. A wait is measured from the moment when it was set, and is never longer
     than the longest one of the policy, whatever the cloud asks for and whatever the clock says.
  6. When the active identity gets no answer, the other identities get their turns (`fallback`).
  7. The renewal instant is drawn once, when the certificate arrives. The cloud's advice, or an operator's request, can
     bring it forward but never put it off; advice never to less than the minimum interval after the last renewal.
  8. What nothing needs is deleted before another key is made. If deleting fails, that delays nothing else; it is tried
     again after the longest pause, or after the next contact with the cloud.
  9. An operator may withdraw a rotation at any moment. A certificate that was stored stays as `unconfirmed`, as after a
     failed proof (rule 3); a key without a certificate is dropped. A renewal that is due begins again with another key.
 10. A cloud that speaks only the sample's protocol acknowledges once. With such a cloud, a certificate that connects,
     subscribes and publishes, but gets no answer, becomes active without one; the previous identity stays on disk.

How a certificate becomes active
  `apply` of a request   → `_issued`: the certificate is pending, the state `rotated`
  `decide`               → a step `prove` for it
  `apply` of that proof  → `_promote` → `_activate`: the certificate is active, the state `acked`
  or, if the proof fails → `_failed` → `_not_proven`: the proof is tried again, or `_roll_back` returns to the previous
                           state, or (rule 10) `_accept_unanswered` → `_activate`

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import ceil, floor, inf

from iot_agent.core.errors import LOCKED_PAUSE, LONGEST_TEXT, REFUSALS, Code
from iot_agent.core.fallback import Bootstrap, turn
from iot_agent.core.record import (
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
from iot_agent.core.schedule import Policy, backoff, renewal_instant

HISTORY_LENGTH, LONGEST_DETAIL = 40, 256
MOST_UNCONFIRMED = 4  # the cloud can have committed to one of them only
MOST_TO_DELETE = 200  # labels beyond that are found on disk again by `reconcile`

# These failures count against a certificate that is being proven: the cloud refused it, or this device cannot use it.
COUNTS = REFUSALS | {Code.BAD_CREDENTIALS, Code.KEY_STORE}
# After these failures it is not even known whether the cloud has seen the certificate: they never end its proof.
NO_SESSION = frozenset({Code.UNREACHABLE, Code.UNTRUSTED_SERVER, Code.CLOUD_ERROR})
LONG_SILENCE = 4  # a proof ends after `prove_attempts` refusals, or this many times as many failures without an answer
# After these failures of a request, the same key would fail again: another key is made.
USELESS_KEY = frozenset({Code.UNFIT_CERTIFICATE, Code.CLOUD_REFUSED, Code.PENDING_KEY})

TRANSITIONS = {
    # in this state      , after this success : the state is. A failure changes the state in `_not_proven` only.
    (State.UNPROVISIONED, Kind.INTRODUCE): State.JITP,
    (State.UNPROVISIONED, Kind.PROVE):     State.ACKED,  # an identity found on disk
    (State.JITP,          Kind.GENERATE):  State.JITP,
    (State.JITP,          Kind.REQUEST):   State.ROTATED,
    (State.JITP,          Kind.RETIRE):    State.JITP,
    (State.JITP,          Kind.PROVE):     State.ACKED,  # an unconfirmed one
    (State.ROTATED,       Kind.PROVE):     State.ACKED,
    (State.ACKED,         Kind.GENERATE):  State.ACKED,
    (State.ACKED,         Kind.REQUEST):   State.ROTATED,
    (State.ACKED,         Kind.RETIRE):    State.ACKED,
    (State.ACKED,         Kind.CHECK_IN):  State.ACKED,
    (State.ACKED,         Kind.PROVE):     State.ACKED,  # an unconfirmed one
}  # fmt: skip
SUCCESS = {
    Kind.INTRODUCE: Introduced,
    Kind.GENERATE: Generated,
    Kind.REQUEST: Issued,
    Kind.PROVE: Proven,
    Kind.RETIRE: Retired,
    Kind.CHECK_IN: CheckedIn,
}


# ---- what to do next ------------------------------------------------------------------------------------------------


def decide(record: Record, now: float, policy: Policy, waited: float) -> Step:
    """Say what to do next and from when; `waited` is how long the last failure has been waited out, in seconds."""
    if _clean_up_at(record, now, policy) <= now:
        return Step(Kind.RETIRE, now, "removing keys and certificates that are no longer needed")
    for rule in (_introduce, _prove, _first, _renew, _check_in):
        step = rule(record, now, policy)
        if step is not None:
            return _held_back(_fall_back(step, record, now), record, policy, waited)
    due = min(renewal_due(record), record.check_in_at, _clean_up_at(record, now, policy))
    return Step(Kind.WAIT, float(due), "the certificate is active; waiting for its renewal instant")


def _clean_up_at(record: Record, now: float, policy: Policy) -> float:
    """Say when to delete what nothing needs (rule 8). A failure in the future is ignored: the clock was ahead then."""
    if not record.to_delete or (record.state, Kind.RETIRE) not in TRANSITIONS:
        return inf
    failed = record.cleanup
    return now if failed is None or failed.at > now else failed.at + policy.retry_cap


def renewal_due(record: Record) -> int:
    """Say when the active certificate is to be renewed: at its own instant, or earlier by advice or by request."""
    if record.active is None:
        return 0
    due = record.active.certificate.renew_at
    if record.advised is not None:
        due = min(due, record.advised.at)
    if record.renew_requested:
        due = min(due, record.renew_requested)
    return due


def asks_with_bootstrap(record: Record) -> bool:
    """Say whether the next request goes over the bootstrap identity."""
    return record.active is None or turn(record) is Bootstrap.IDENTITY


def to_prove(record: Record) -> Identity:
    """Give the identity that the next proof is for: the unconfirmed one whose turn it is, else the pending one."""
    unconfirmed = turn(record)
    return unconfirmed if isinstance(unconfirmed, Identity) else _identity(_pending(record))


def _introduce(record: Record, now: float, _policy: Policy) -> Step | None:
    if record.state is not State.UNPROVISIONED:
        return None
    return Step(Kind.INTRODUCE, now, "introducing this device to the cloud with its bootstrap certificate")


def _prove(record: Record, now: float, _policy: Policy) -> Step | None:
    if record.state is not State.ROTATED:
        return None
    return Step(Kind.PROVE, now, "proving the new certificate before it replaces the previous identity")


def _first(record: Record, now: float, _policy: Policy) -> Step | None:
    return _ask(record, now, "making the key of the first certificate") if record.state is State.JITP else None


def _renew(record: Record, now: float, _policy: Policy) -> Step | None:
    if not record.renew_requested and now < renewal_due(record):
        return None
    return _ask(record, now, _why_renew(record, now))


def _check_in(record: Record, now: float, policy: Policy) -> Step | None:
    """Check in when it is due, or due later than an interval from now: the clock was wrong when that was set."""
    if now < record.check_in_at <= now + policy.check_in_interval:
        return None
    return Step(Kind.CHECK_IN, now, "reporting to the cloud")


def _ask(record: Record, now: float, why: str) -> Step:
    if record.pending is None or not record.pending.generated:
        return Step(Kind.GENERATE, now, why)
    return Step(Kind.REQUEST, now, "asking for a certificate for the new key")


def _fall_back(step: Step, record: Record, now: float) -> Step:
    """Replace `step` by an attempt of another identity, if it is the turn of one (rule 6)."""
    other = turn(record)
    if other is None:
        return step
    if isinstance(other, Identity):
        return Step(Kind.PROVE, now, f"the active identity cannot be used ({record.problem}): trying {other.label}")
    why = f"the active identity cannot be used ({record.problem}): asking over the bootstrap identity"
    return _ask(record, now, f"{why}; if it is refused, an operator must readmit this device")


def _why_renew(record: Record, now: float) -> str:
    if record.renew_requested:
        return "renewing: an operator asked for it"
    if record.advised is not None and record.advised.at <= now:
        return "renewing: the cloud advised it"
    if record.active is not None and record.active.certificate.not_after <= now:
        return "renewing: the certificate has expired by this clock; if it is refused, an operator must readmit it"
    return "renewing: the certificate's renewal instant has come"


def _held_back(step: Step, record: Record, policy: Policy, waited: float) -> Step:
    """Put `step` off until the wait after the last failure is over (rule 5)."""
    failure = record.failure
    if failure is None:
        return step
    left = min(record.wait, _longest_wait(failure.code, policy)) - waited
    if left <= 0:
        return step
    reason = f"{step.reason}; {record.attempt} failed, last: {failure.message}"
    return replace(step, due=step.due + left, reason=reason)


def _longest_wait(code: str, policy: Policy) -> int:
    """Give whole seconds: the policy's, or more for a locked token, whose lock may become longer with each attempt."""
    return max(1, floor(policy.retry_cap), LOCKED_PAUSE if code == Code.PIN_LOCKED else 0)


# ---- the intent, and an operator's wish -----------------------------------------------------------------------------


def begin(record: Record, step: Step, label: Callable[[], str], request_id: Callable[[], str]) -> Record:
    """Note the intent of a step before it acts: a rotation's label and request id are in the record before its key."""
    if step.kind is Kind.GENERATE and record.pending is None:
        return replace(record, pending=Pending(label(), request_id()))
    return record


def reset_backoff(record: Record) -> Record:
    """End any wait: a person has changed something or is waiting."""
    return replace(record, attempt=0, wait=0, cleanup=None)


def request_rotation(record: Record, now: float) -> Record:
    """Renew now, because an operator asked for it. Any wait ends; if a rotation is under way, no second one begins."""
    record = reset_backoff(record)
    if record.state is not State.ACKED:
        return record
    return note(replace(record, renew_requested=max(1, int(now))), now, "rotation-requested", "by an operator")


def cancel_rotation(record: Record, now: float) -> Record:
    """Withdraw the rotation that was ordered or is under way (rule 9); the same record if there is none.

    A check-in is then due: it shows over the previous identity whether the cloud has committed to the withdrawn one.
    """
    pending = record.pending
    if pending is None and not record.renew_requested:
        return record
    record = replace(reset_backoff(record), renew_requested=0, check_in_at=0)
    if pending is not None and pending.certificate is None:
        record = _drop_pending(record, now, "its rotation was withdrawn")
    elif pending is not None:
        record = _set_aside(record)
    return note(record, now, "rotation-cancelled", "by an operator")


# ---- what a success changes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ApplyContext:
    """When an outcome came, the policy, and a random number, uniform in [0, 1), for every draw that follows from it."""

    now: float
    policy: Policy
    jitter: float


def apply(record: Record, step: Kind, outcome: Outcome, context: ApplyContext) -> Record:
    """Give the record after a step; `RuntimeError` for an outcome that is impossible in this state (our bug)."""
    if isinstance(outcome, Failed):
        return _failed(record, step, outcome, context)
    state = TRANSITIONS.get((record.state, step))
    if state is None or not isinstance(outcome, SUCCESS[step]):
        raise RuntimeError(f"{step} cannot end with {type(outcome).__name__} in state {record.state}")
    now = context.now
    match outcome:
        case Introduced():
            record = note(
                _contact(record, now, None), now, "introduced", "the cloud accepted the bootstrap certificate"
            )
        case Generated():
            record = replace(record, pending=replace(_pending(record), generated=True))
        case Issued():
            record = _issued(record, outcome, context)
        case Proven():
            proven = to_prove(record)  # before the contact is noted: that ends the turn of another identity
            record = _promote(_contact(record, now, outcome.cloud_time), proven, context)
        case Retired(labels):
            left = tuple(name for name in record.to_delete if name not in labels)
            detail = ", ".join(labels) or "nothing was left"
            record = note(replace(record, to_delete=left, cleanup=None), now, "retired", detail)
        case CheckedIn():
            advised = _schedule_advice(record, outcome, context)
            record = replace(record, check_in_at=_next_check_in(context), advised=advised)
            record = _contact(record, now, outcome.cloud_time)
    return replace(record, state=state)


def _issued(record: Record, issued: Issued, context: ApplyContext) -> Record:
    """Note the pending certificate's facts. If it was issued over the active identity, no other is needed (rule 3)."""
    fresh, pending = issued.certificate, _pending(record)
    renew_at = renewal_instant(fresh.not_before, fresh.not_after, context.now, context.policy, context.jitter)
    superseded = () if asks_with_bootstrap(record) else record.unconfirmed
    attempt = record.attempt if record.rollbacks else 0  # after a rollback only a proof shows that the failures ended
    record = replace(
        _contact(record, context.now, issued.cloud_time),
        attempt=attempt,
        pending=replace(pending, certificate=replace(fresh, renew_at=renew_at), refusals=0),
        proof_failures=0,
        answers_once=issued.answers_once,
        unconfirmed=tuple(identity for identity in record.unconfirmed if identity not in superseded),
        to_delete=_more_to_delete(record, *superseded),
    )
    return note(record, context.now, "issued", fresh.certificate_id)


def _promote(record: Record, proven: Identity, context: ApplyContext) -> Record:
    """Make a proven identity the active one. It supersedes every other one, and those may now be deleted."""
    others = (record.active, *record.unconfirmed, _certified(record.pending))
    superseded = [identity for identity in others if identity is not None and identity.label != proven.label]
    if any(identity.label == proven.label for identity in record.unconfirmed):
        record = note(record, context.now, "taken-up-again", proven.certificate.certificate_id)
    record = replace(
        record,
        pending=None if _certified(record.pending) else record.pending,  # a key without a certificate waits
        unconfirmed=(),
        to_delete=_more_to_delete(record, *superseded),
    )
    return _activate(record, proven, context)


def _activate(record: Record, identity: Identity, context: ApplyContext) -> Record:
    record = replace(
        record,
        active=identity,
        proof_failures=0,
        rollbacks=0,
        rotations=record.rotations + 1,
        renewed_at=int(context.now),
        renew_requested=0,
        advised=None,
        check_in_at=_next_check_in(context),
    )
    return note(record, context.now, "promoted", identity.certificate.certificate_id)


# ---- what a failure changes -----------------------------------------------------------------------------------------


class _Meaning(Enum):
    """What a failed step means for the record."""

    NOT_DELETED = auto()  # what nothing needs is still there
    NOT_PROVEN = auto()  # the pending certificate has one more failed proof
    USELESS_KEY = auto()  # the pending key leads to no certificate
    ONE_MORE_FAILURE = auto()  # nothing but that


def _failed(record: Record, step: Kind, failed: Failed, context: ApplyContext) -> Record:
    failure = Failure(step, failed.code, failed.message[:LONGEST_TEXT], failed.remedy[:LONGEST_TEXT], int(context.now))
    counted = _counted(record, failure, failed.retry_after, context)
    match _classify(record, step, failed):  # not `counted`: to count a failure can begin or end a turn (`fallback`)
        case _Meaning.NOT_DELETED:
            return replace(record, cleanup=failure)
        case _Meaning.NOT_PROVEN:
            return _not_proven(counted, failed.code, context)
        case _Meaning.USELESS_KEY:
            return _drop_pending(counted, context.now, failed.message)
        case _Meaning.ONE_MORE_FAILURE:
            return counted


def _classify(record: Record, step: Kind, failed: Failed) -> _Meaning:
    """Classify a failure; `record` is the one with which the step ran."""
    if step is Kind.RETIRE:
        return _Meaning.NOT_DELETED
    if step is Kind.PROVE and turn(record) is None:
        return _Meaning.NOT_PROVEN
    if step is Kind.GENERATE and (failed.fatal or failed.code in USELESS_KEY):
        return _Meaning.USELESS_KEY
    if step is Kind.REQUEST and failed.code in USELESS_KEY:
        return _Meaning.USELESS_KEY
    return _Meaning.ONE_MORE_FAILURE


def _counted(record: Record, failure: Failure, retry_after: int | None, context: ApplyContext) -> Record:
    """Count a failure, of the active or pending identity or of a turn of another one, and draw its wait (rule 5)."""
    attempt = record.attempt + 1
    longest = _longest_wait(failure.code, context.policy)
    delay = backoff(attempt, context.policy, context.jitter)
    other = turn(record)
    record = replace(
        record,
        attempt=attempt,
        waiting_since=int(context.now),
        wait=min(ceil(max(delay, retry_after or 0)), longest),
        failure=failure,
    )
    if other is not None:
        return replace(record, failures=0, fallbacks=record.fallbacks + 1)
    return replace(record, failures=record.failures + 1, problem=failure.code)


def _not_proven(record: Record, code: str, context: ApplyContext) -> Record:
    """Count a failed proof of the pending certificate: after enough of them the proof is over (rules 3 and 10)."""
    pending, most = _pending(record), context.policy.prove_attempts
    refusals = pending.refusals + (code in COUNTS)
    failures = record.proof_failures + (code not in NO_SESSION)
    if record.answers_once and code == Code.NO_REPLY and failures >= most:
        return _accept_unanswered(record, context)
    if code == Code.CLOUD_REFUSED or refusals >= most or failures >= LONG_SILENCE * most:
        return _roll_back(record, context)
    return replace(record, proof_failures=failures, pending=replace(pending, refusals=refusals))


def _accept_unanswered(record: Record, context: ApplyContext) -> Record:
    """Make the pending identity active without an answer (rule 10). Nothing was acknowledged, so nothing is deleted."""
    identity = _identity(_pending(record))
    unconfirmed = _more_unconfirmed(record, record.active)
    record = replace(_without_failures(record), state=State.ACKED, pending=None, unconfirmed=unconfirmed)
    return _activate(record, identity, context)


def _roll_back(record: Record, context: ApplyContext) -> Record:
    """Return to the previous state with the pending identity unconfirmed (rule 3); each time in a row waits longer.

    It counts for as many failures as the proof may have, so that the pauses after it are no shorter than its own.
    """
    unproven = _identity(_pending(record))
    rollbacks = record.rollbacks + 1
    attempt = max(record.attempt, rollbacks * context.policy.prove_attempts)
    delay = backoff(attempt, context.policy, context.jitter)
    record = replace(
        _set_aside(record),
        rollbacks=rollbacks,
        attempt=attempt,
        wait=min(max(record.wait, ceil(delay)), _longest_wait("", context.policy)),
    )
    return note(record, context.now, "rolled-back", f"{unproven.certificate.certificate_id} could not be proven")


def _set_aside(record: Record) -> Record:
    """Return to the previous state; the pending identity stays on disk, unconfirmed. Its failures say nothing now."""
    kept = _more_unconfirmed(record, _identity(_pending(record)))
    return replace(
        record,
        state=State.JITP if record.active is None else State.ACKED,
        pending=None,
        unconfirmed=kept,
        to_delete=_more_to_delete(record, *(identity for identity in record.unconfirmed if identity not in kept)),
        proof_failures=0,
        problem="",
        failures=0,
        fallbacks=0,
    )


def _drop_pending(record: Record, now: float, why: str) -> Record:
    dropped = _pending(record)
    record = replace(record, pending=None, to_delete=(*record.to_delete, dropped.label)[-MOST_TO_DELETE:])
    return note(record, now, "key-dropped", why)


# ---- parts of these -------------------------------------------------------------------------------------------------


def _pending(record: Record) -> Pending:
    if record.pending is None:
        raise RuntimeError(f"no rotation is under way in state {record.state}")
    return record.pending


def _identity(pending: Pending) -> Identity:
    if pending.certificate is None:
        raise RuntimeError(f"{pending.label} has no certificate yet")
    return Identity(pending.label, pending.certificate)


def _certified(pending: Pending | None) -> Identity | None:
    return None if pending is None or pending.certificate is None else _identity(pending)


def _more_unconfirmed(record: Record, identity: Identity | None) -> tuple[Identity, ...]:
    """Add to what is unconfirmed. Of too many, the cloud has most likely committed to the oldest or to the newest."""
    unconfirmed = (*record.unconfirmed, *(() if identity is None else (identity,)))
    return unconfirmed if len(unconfirmed) <= MOST_UNCONFIRMED else (unconfirmed[0], *unconfirmed[2:])


def _more_to_delete(record: Record, *identities: Identity) -> tuple[str, ...]:
    return (*record.to_delete, *(identity.label for identity in identities))[-MOST_TO_DELETE:]


def _contact(record: Record, now: float, cloud_time: int | None) -> Record:
    """Note that the cloud has answered: the failures are over.

    The clock's floor rises to the cloud's time, but not above this device's: a time has passed only if both say so.
    """
    lifted = record.time_floor if cloud_time is None else max(record.time_floor, min(cloud_time, int(now)))
    return replace(_without_failures(record), last_contact=int(now), time_floor=lifted)


def _without_failures(record: Record) -> Record:
    return replace(record, attempt=0, wait=0, failure=None, cleanup=None, problem="", failures=0, fallbacks=0)


def _next_check_in(context: ApplyContext) -> int:
    """Draw an instant between half an interval and a whole one from now: a fleet that booted together spreads out."""
    return int(context.now + context.policy.check_in_interval * (1 + context.jitter) / 2)


def _schedule_advice(record: Record, heard: CheckedIn, context: ApplyContext) -> Advised | None:
    """Draw one instant from the cloud's advice (rule 7). The same advice again keeps it; without advice there is none.

    It is drawn again if it is later than both the window and the minimum interval from now: the clock was wrong then.
    """
    if heard.advice is None:
        return None
    start, end = heard.advice.start // 1000, heard.advice.end // 1000
    before, latest = record.advised, max(end, int(context.now + context.policy.minimum_interval))
    if before is not None and (before.start, before.end) == (start, end) and before.at <= latest:
        return before
    drawn = int(start + context.jitter * (end - start))
    earliest = int(record.renewed_at + context.policy.minimum_interval) if record.renewed_at <= context.now else 0
    return Advised(start, end, max(drawn, earliest))


def note(record: Record, now: float, event: str, detail: str) -> Record:
    """Add a line to the history, which is bounded in lines and in length."""
    line = Event(int(now), event, detail[:LONGEST_DETAIL])
    return replace(record, history=(*record.history, line)[-HISTORY_LENGTH:])
