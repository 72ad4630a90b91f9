"""The rules of a device certificate's life. Pure: no clock, file, socket or log; time and chance are arguments.

States
  unprovisioned  only the bootstrap (vendor) identity; the cloud has not accepted a session yet
  jitp           the cloud knows the device; no certificate of its own yet
  rotated        a new certificate is stored but not proven; the previous identity still serves
  acked          one certificate, confirmed on both sides; renewed when its instant comes

Rules
  1. Make before break: an identity is given up only after the cloud has confirmed another one over a session of that
     other one. Nothing is removed from disk before that (`Record.protected_labels`).
  2. A key is made once for a rotation and asked for again after any crash; the cloud answers the same key with the
     same certificate. A key made in advance waits until a renewal is due.
  3. Only an explicit refusal counts against a new certificate. After a bounded number of them, or after a long time
     without any answer over it, the previous state returns. The certificate stays on disk as `unconfirmed`: a lost
     reply may have hidden that the cloud committed to it. It is deleted once the cloud issues for another key over the
     active identity, or acknowledges another certificate: either shows that the cloud will not commit to it any more.
  4. A certificate that is not fit is never stored; its key is dropped with it, because the cloud would answer that key
     with that same certificate for ever. So is a pending key that cannot be used.
  5. Every failure waits, and longer each time. The count is in the record; only contact with the cloud that ends the
     failure resets it. A wait is measured from when it was set and never passes the longest one of the policy,
     whatever the cloud names and whatever the clock says.
  6. An identity that gets no answer does not keep the device out: the others get their turn (`fallback`).
  7. The renewal instant is drawn once, when the certificate arrives. The cloud's advice, and an operator's request, can
     bring it forward, never put it off; advice never within the minimum interval of the last renewal.
  8. What nothing needs is removed before another key is made, unless removing it is what fails; that failure delays
     nothing else, and is tried again after the longest pause or the next contact.
  9. A cloud that speaks only the sample's protocol acknowledges once. There a certificate that connects, subscribes and
     publishes, but is left unanswered, becomes active without the answer; the previous identity stays on disk.

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
MOST_TO_DELETE = 200  # what is beyond that is found again on disk

# What counts against a certificate that is being proven: the cloud's word, or that it cannot be used on this device.
COUNTS = REFUSALS | {Code.BAD_CREDENTIALS, Code.KEY_STORE}
# Failures that do not even show that the cloud has seen the certificate, or that it will not answer: no patience ends.
NO_SESSION = frozenset({Code.UNREACHABLE, Code.UNTRUSTED_SERVER, Code.CLOUD_ERROR})
LONG_SILENCE = 4  # times as many failures without an answer as refusals, before other identities get their turn
USELESS_KEY = frozenset({Code.UNFIT_CERTIFICATE, Code.CLOUD_REFUSED, Code.PENDING_KEY})

TRANSITIONS = {
    # in this state      , after this success : the state is
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


# ---- what next ------------------------------------------------------------------------------------------------------


def decide(record: Record, now: float, policy: Policy, waited: float) -> Step:
    """Say what to do next and from when; `waited` is how long the last failure has been waited out, in seconds."""
    if _clean_up_at(record, now, policy) <= now:
        return Step(Kind.RETIRE, now, "removing keys and certificates that are no longer needed")
    chain = (_introduce, _prove, _first, _renew, _check_in)
    for rule in chain:
        step = rule(record, now, policy)
        if step is not None:
            return _held_back(_fall_back(step, record, now), record, policy, waited)
    due = min(renewal_due(record), record.check_in_at, _clean_up_at(record, now, policy))
    return Step(Kind.WAIT, float(due), "certificate in force; waiting for its renewal instant")


def _clean_up_at(record: Record, now: float, policy: Policy) -> float:
    """Say when to remove what nothing needs (rule 8); a failure under a clock that was ahead does not hold it up."""
    if not record.to_delete or (record.state, Kind.RETIRE) not in TRANSITIONS:
        return inf
    failed = record.cleanup
    return now if failed is None or failed.at > now else failed.at + policy.retry_cap


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
    """Say whether the next request goes over the bootstrap identity."""
    return record.active is None or turn(record) is Bootstrap.IDENTITY


def to_prove(record: Record) -> Identity:
    """Name the identity that the next proof is for: an unconfirmed one whose turn it is, or the pending one."""
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
    """Take an instant further away than the interval for one that was set under another clock: it does not hold."""
    if now < record.check_in_at <= now + policy.check_in_interval:
        return None
    return Step(Kind.CHECK_IN, now, "reporting to the cloud")


def _ask(record: Record, now: float, why: str) -> Step:
    if record.pending is None or not record.pending.generated:
        return Step(Kind.GENERATE, now, why)
    return Step(Kind.REQUEST, now, "asking for a certificate for the new key")


def _fall_back(step: Step, record: Record, now: float) -> Step:
    """Apply rule 6: another identity does what `step` was for."""
    other = turn(record)
    if other is None:
        return step
    if isinstance(other, Identity):
        return Step(Kind.PROVE, now, f"no use of the identity in force ({record.problem}): trying {other.label}")
    why = f"no use of the identity in force ({record.problem}): asking over the bootstrap identity"
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
    """Apply rule 5."""
    failure = record.failure
    if failure is None:
        return step
    left = min(record.wait, _longest_wait(failure.code, policy)) - waited
    if left <= 0:
        return step
    reason = f"{step.reason}; {record.attempt} failed, last: {failure.message}"
    return replace(step, due=step.due + left, reason=reason)


def _longest_wait(code: str, policy: Policy) -> int:
    """Give whole seconds. A locked token is the exception to the policy: trying it may make its lock longer."""
    return max(1, floor(policy.retry_cap), LOCKED_PAUSE if code == Code.PIN_LOCKED else 0)


# ---- intent ---------------------------------------------------------------------------------------------------------


def begin(record: Record, step: Step, label: Callable[[], str], request_id: Callable[[], str]) -> Record:
    """Write down the intent of a step before it acts: a rotation's label and request id exist before its key does."""
    if step.kind is Kind.GENERATE and record.pending is None:
        return replace(record, pending=Pending(label(), request_id()))
    return record


def reset_backoff(record: Record) -> Record:
    """End any wait: a person has changed something or is waiting."""
    return replace(record, attempt=0, wait=0, cleanup=None)


def request_rotation(record: Record, now: float) -> Record:
    """Ask for a rotation now (an operator's wish); a rotation under way is joined, and any back-off ends."""
    record = reset_backoff(record)
    if record.state is not State.ACKED:
        return record
    return note(replace(record, renew_requested=max(1, int(now))), now, "rotation-requested", "by an operator")


# ---- what it means --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ApplyContext:
    """When an outcome came in, under which policy, and the chance (uniform in [0, 1)) for whatever it leads to."""

    now: float
    policy: Policy
    jitter: float


def apply(record: Record, step: Kind, outcome: Outcome, context: ApplyContext) -> Record:
    """Fold the outcome of a step into the record; `RuntimeError` for one that cannot happen in this state (our bug)."""
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
            proven = to_prove(record)
            record = _promoted(_contact(record, now, outcome.cloud_time), proven, context)
        case Retired(labels):
            left = tuple(name for name in record.to_delete if name not in labels)
            record = note(replace(record, to_delete=left, cleanup=None), now, "retired", _named(labels))
        case CheckedIn():
            advised = _schedule_advice(record, outcome, context)
            record = replace(record, check_in_at=_next_check_in(context), advised=advised)
            record = _contact(record, now, outcome.cloud_time)
    return replace(record, state=state)


def _pending(record: Record) -> Pending:
    if record.pending is None:
        raise RuntimeError(f"no rotation is under way in state {record.state}")
    return record.pending


def _identity(pending: Pending) -> Identity:
    if pending.certificate is None:
        raise RuntimeError(f"{pending.label} has no certificate yet")
    return Identity(pending.label, pending.certificate)


def _issued(record: Record, issued: Issued, context: ApplyContext) -> Record:
    """Store the certificate's facts. Issued over the active identity, it shows that no other is in force (rule 3)."""
    fresh, pending = issued.certificate, _pending(record)
    renew_at = renewal_instant(fresh.not_before, fresh.not_after, context.now, context.policy, context.jitter)
    superseded = () if asks_with_bootstrap(record) else record.unconfirmed
    attempt = record.attempt if record.rollbacks else 0  # a new certificate does not end what failed for the one before
    record = replace(
        _contact(record, context.now, issued.cloud_time),
        attempt=attempt,
        pending=replace(pending, certificate=replace(fresh, renew_at=renew_at), refusals=0),
        proof_failures=0,
        answers_once=issued.answers_once,
        unconfirmed=tuple(identity for identity in record.unconfirmed if identity not in superseded),
        to_delete=_also(record, *superseded),
    )
    return note(record, context.now, "issued", fresh.certificate_id)


def _promoted(record: Record, proven: Identity, context: ApplyContext) -> Record:
    """Put a proven identity in force: every other one has been superseded by it."""
    pending = record.pending
    if pending is not None and pending.certificate is not None:
        pending = None  # proven, or superseded; a key without a certificate waits for the next time
    rivals = (record.active, *record.unconfirmed, _certified(record.pending))
    superseded = [identity for identity in rivals if identity is not None and identity.label != proven.label]
    if any(identity.label == proven.label for identity in record.unconfirmed):
        record = note(record, context.now, "taken-up-again", proven.certificate.certificate_id)
    record = replace(record, unconfirmed=(), to_delete=_also(record, *superseded))
    return _put_in_force(replace(record, pending=pending), proven, context)


def _put_in_force(record: Record, identity: Identity, context: ApplyContext) -> Record:
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


def _certified(pending: Pending | None) -> Identity | None:
    return None if pending is None or pending.certificate is None else _identity(pending)


def _failed(record: Record, step: Kind, failed: Failed, context: ApplyContext) -> Record:
    failure = Failure(step, failed.code, failed.message[:LONGEST_TEXT], failed.remedy[:LONGEST_TEXT], int(context.now))
    if step is Kind.RETIRE:
        return replace(record, cleanup=failure)
    other = turn(record)
    record = _counted(record, failure, failed.retry_after, context)
    if step is Kind.PROVE and other is None:
        return _not_proven(record, failed.code, context)
    useless = failed.code in USELESS_KEY or (step is Kind.GENERATE and failed.fatal)
    if step in (Kind.GENERATE, Kind.REQUEST) and useless:
        return _drop_pending(record, context.now, failed.message)
    return record


def _counted(record: Record, failure: Failure, retry_after: int | None, context: ApplyContext) -> Record:
    """Count a failure, of the identity whose turn it was, and draw its wait (rules 5 and 6)."""
    attempt = record.attempt + 1
    longest = _longest_wait(failure.code, context.policy)
    delay = backoff(attempt, context.policy, context.jitter)
    record = replace(
        record,
        attempt=attempt,
        waiting_since=int(context.now),
        wait=min(ceil(max(delay, retry_after or 0)), longest),
        failure=failure,
    )
    if turn(record) is not None:
        return replace(record, failures=0, fallbacks=record.fallbacks + 1)
    return replace(record, failures=record.failures + 1, problem=failure.code)


def _not_proven(record: Record, code: str, context: ApplyContext) -> Record:
    """Count what speaks against the pending certificate, and let others have their turn when that is enough."""
    pending, most = _pending(record), context.policy.prove_attempts
    refusals = pending.refusals + (code in COUNTS)
    failures = record.proof_failures + (code not in NO_SESSION)
    if record.answers_once and code == Code.NO_REPLY and failures >= most:
        return _accept_unanswered(record, context)
    if code == Code.CLOUD_REFUSED or refusals >= most or failures >= LONG_SILENCE * most:
        return _roll_back(record, context)
    return replace(record, proof_failures=failures, pending=replace(pending, refusals=refusals))


def _accept_unanswered(record: Record, context: ApplyContext) -> Record:
    """Apply rule 9: nothing is removed, because nothing was confirmed."""
    identity = _identity(_pending(record))
    record = replace(_forgiven(record), state=State.ACKED, pending=None, unconfirmed=_with(record, record.active))
    return _put_in_force(record, identity, context)


def _roll_back(record: Record, context: ApplyContext) -> Record:
    """Return to the previous state with the pending identity unconfirmed (rule 3); each time in a row waits longer.

    It counts for as many failures as the proof may have, so that the pauses after it are no shorter than its own.
    """
    unproven = _identity(_pending(record))
    rollbacks = record.rollbacks + 1
    attempt = max(record.attempt, rollbacks * context.policy.prove_attempts)
    delay = backoff(attempt, context.policy, context.jitter)
    kept = _with(record, unproven)
    record = replace(
        record,
        state=State.JITP if record.active is None else State.ACKED,
        pending=None,
        unconfirmed=kept,
        to_delete=_also(record, *(identity for identity in record.unconfirmed if identity not in kept)),
        proof_failures=0,
        rollbacks=rollbacks,
        attempt=attempt,
        problem="",
        failures=0,
        fallbacks=0,
        wait=min(max(record.wait, ceil(delay)), _longest_wait("", context.policy)),
    )
    return note(record, context.now, "rolled-back", f"{unproven.certificate.certificate_id} could not be proven")


def _with(record: Record, identity: Identity | None) -> tuple[Identity, ...]:
    """Add to what is unconfirmed. Of too many, the oldest and the newest are likeliest to be what the cloud has."""
    unconfirmed = (*record.unconfirmed, *(() if identity is None else (identity,)))
    return unconfirmed if len(unconfirmed) <= MOST_UNCONFIRMED else (unconfirmed[0], *unconfirmed[2:])


def _drop_pending(record: Record, now: float, why: str) -> Record:
    dropped = _pending(record)
    record = replace(record, pending=None, to_delete=(*record.to_delete, dropped.label)[-MOST_TO_DELETE:])
    return note(record, now, "key-dropped", why)


def _contact(record: Record, now: float, cloud_time: int | None) -> Record:
    """Remember a proof that the cloud is there. Its time lifts the floor only up to ours: both must agree it passed."""
    lifted = record.time_floor if cloud_time is None else max(record.time_floor, min(cloud_time, int(now)))
    return replace(_forgiven(record), last_contact=int(now), time_floor=lifted)


def _forgiven(record: Record) -> Record:
    return replace(record, attempt=0, wait=0, failure=None, cleanup=None, problem="", failures=0, fallbacks=0)


def _next_check_in(context: ApplyContext) -> int:
    """Between half an interval and a whole one from now, so that a fleet that booted together spreads out."""
    return int(context.now + context.policy.check_in_interval * (1 + context.jitter) / 2)


def _schedule_advice(record: Record, heard: CheckedIn, context: ApplyContext) -> Advised | None:
    """Draw one instant from advice, once: heard again it keeps its instant; withdrawn it is forgotten (rule 7).

    An instant that no right clock can have led to, later than both the window and the minimum interval, is drawn anew.
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


def _also(record: Record, *identities: Identity) -> tuple[str, ...]:
    return (*record.to_delete, *(identity.label for identity in identities))[-MOST_TO_DELETE:]


def _named(labels: tuple[str, ...]) -> str:
    return ", ".join(labels) or "nothing was left"


def note(record: Record, now: float, event: str, detail: str) -> Record:
    """Add a line to the history, which is bounded in lines and in length."""
    line = Event(int(now), event, detail[:LONGEST_DETAIL])
    return replace(record, history=(*record.history, line)[-HISTORY_LENGTH:])
