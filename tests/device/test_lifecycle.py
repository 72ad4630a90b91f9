"""The rules, one by one; tests/simulator shows them together."""

from dataclasses import replace

import pytest

from iot_agent.core import lifecycle
from iot_agent.core.lifecycle import (
    TRANSITIONS,
    ApplyContext,
    apply,
    begin,
    cancel_rotation,
    renewal_due,
    request_rotation,
    reset_backoff,
    to_prove,
)
from iot_agent.core.protocol import Advice
from iot_agent.core.record import (
    Advised,
    Certificate,
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
from iot_agent.core.schedule import Policy

NOW = 1_790_000_000.0
POLICY = Policy(minimum_interval=100, prove_attempts=3)
OLD = Identity("iot-agent-old", Certificate("a" * 64, int(NOW) - 500, int(NOW) + 500, int(NOW) + 200))
NEW = Certificate("b" * 64, int(NOW) - 10, int(NOW) + 990)
PENDING = Pending("iot-agent-new", "r-1", generated=True)
ACKED = Record("SN-1", State.ACKED, active=OLD, check_in_at=int(NOW) + 1000)
ROTATED = replace(
    ACKED, state=State.ROTATED, pending=replace(PENDING, certificate=replace(NEW, renew_at=int(NOW) + 600))
)


def decide(record: Record, now: float = NOW, waited: float = 0.0) -> Step:
    return lifecycle.decide(record, now, POLICY, waited)


def context(now: float = NOW, jitter: float = 0.5) -> ApplyContext:
    return ApplyContext(now, POLICY, jitter)


def fail(code: str = "no-reply", *, fatal: bool = False, retry_after: int | None = None) -> Failed:
    return Failed(code, "it went wrong", "do something", fatal, retry_after)


@pytest.mark.parametrize(
    ("name", "record", "now", "kind"),
    [
        ("a fresh device introduces itself", Record("SN-1"), NOW, Kind.INTRODUCE),
        ("known to the cloud, it makes its first key", Record("SN-1", State.JITP), NOW, Kind.GENERATE),
        (
            "a crash before the key: the same label again",
            replace(ACKED, pending=Pending("x", "r")),
            NOW + 200,
            Kind.GENERATE,
        ),
        ("with a key it asks for a certificate", replace(ACKED, pending=PENDING), NOW + 200, Kind.REQUEST),
        ("a key made in advance waits for the renewal", replace(ACKED, pending=PENDING), NOW, Kind.WAIT),
        ("a stored certificate is proven", ROTATED, NOW, Kind.PROVE),
        ("at rest it waits", ACKED, NOW, Kind.WAIT),
        ("at the renewal instant it makes a key", ACKED, NOW + 200, Kind.GENERATE),
        ("renewal comes before a check-in", replace(ACKED, check_in_at=0), NOW + 200, Kind.GENERATE),
        ("useless identities go before another key is made", replace(ACKED, to_delete=("x",)), NOW + 200, Kind.RETIRE),
        ("what nothing needs is removed", replace(ACKED, to_delete=("x",)), NOW, Kind.RETIRE),
        ("a proof comes before that", replace(ROTATED, to_delete=("x",)), NOW, Kind.PROVE),
        (
            "a check-in set by a clock ahead does not hold",
            replace(ACKED, check_in_at=2**40),
            NOW,
            Kind.CHECK_IN,
        ),
        ("a check-in that is due is made", replace(ACKED, check_in_at=int(NOW)), NOW, Kind.CHECK_IN),
    ],
)
def test_what_next(name: str, record: Record, now: float, kind: Kind) -> None:
    step = decide(record, now)
    assert step.kind is kind, name
    assert step.reason, name
    assert kind is Kind.WAIT or step.due == now, name


def test_every_decision_has_a_reason_and_every_step_a_transition() -> None:
    for record in (Record("SN-1"), ACKED, ROTATED, replace(ACKED, pending=PENDING)):
        step = decide(record, NOW)
        assert step.reason
        assert step.kind is Kind.WAIT or (record.state, step.kind) in TRANSITIONS


def test_waiting_ends_with_whatever_comes_first() -> None:
    assert decide(ACKED, NOW).due == OLD.certificate.renew_at
    assert decide(replace(ACKED, check_in_at=int(NOW) + 7), NOW).due == NOW + 7


def test_the_intent_of_a_rotation_is_a_label_and_a_request_id() -> None:
    begun = begin(ACKED, Step(Kind.GENERATE, NOW, ""), lambda: "label", lambda: "r-9")
    assert begun.pending == Pending("label", "r-9")
    assert begin(begun, Step(Kind.GENERATE, NOW, ""), lambda: "other", lambda: "other") == begun


@pytest.mark.parametrize(
    ("record", "step", "outcome"),
    [
        (Record("SN-1"), Kind.PROVE, Proven(None)),
        (Record("SN-1"), Kind.REQUEST, Issued(NEW, None)),
        (ACKED, Kind.PROVE, Proven(None)),
        (replace(ACKED, pending=PENDING), Kind.REQUEST, Proven(None)),
        (ACKED, Kind.GENERATE, Generated()),
        (ROTATED, Kind.REQUEST, Issued(NEW, None)),
        (ACKED, Kind.INTRODUCE, Introduced()),
    ],
)
def test_an_impossible_outcome_is_our_bug(record: Record, step: Kind, outcome: Outcome) -> None:
    with pytest.raises(RuntimeError):
        apply(record, step, outcome, context())


def test_an_issued_certificate_gets_its_renewal_instant_once() -> None:
    record = apply(replace(ACKED, pending=PENDING), Kind.REQUEST, Issued(NEW, int(NOW) + 5), context(jitter=0.25))
    assert record.state is State.ROTATED
    assert record.pending is not None
    assert record.pending.certificate is not None
    assert record.pending.certificate.renew_at == NEW.not_before + int(1000 * 2 / 3 + 25)
    assert record.active == OLD


def test_proof_promotes_and_leaves_the_old_identity_to_be_removed() -> None:
    record = apply(ROTATED, Kind.PROVE, Proven(int(NOW)), context())
    assert record.state is State.ACKED
    assert record.active is not None
    assert record.active.label == PENDING.label
    assert (record.pending, record.to_delete, record.rotations) == (None, (OLD.label,), 1)
    assert apply(record, Kind.RETIRE, Retired((OLD.label,)), context()).to_delete == ()


ASKING = replace(ACKED, pending=PENDING, renew_requested=1)


def test_a_failure_is_counted_kept_and_waited_out() -> None:
    record = apply(ASKING, Kind.REQUEST, fail(), context(jitter=0.9))
    step = decide(record)
    assert (step.kind, step.due) == (Kind.REQUEST, NOW + 5)
    assert decide(record, waited=4).due == NOW + 1
    assert decide(record, waited=5).due == NOW
    assert record.attempt == 1
    assert record.failure is not None
    assert record.failure.remedy == "do something"
    assert "1 failed" in step.reason


def test_the_cloud_may_ask_for_more_patience_than_the_backoff_but_not_for_more_than_the_cap() -> None:
    assert apply(ASKING, Kind.REQUEST, fail("cloud-error", retry_after=77), context()).wait == 77
    assert apply(ASKING, Kind.REQUEST, fail("cloud-error", retry_after=10**12), context()).wait == POLICY.retry_cap


def test_only_a_locked_token_is_left_alone_for_longer_than_the_cap() -> None:
    short = ApplyContext(NOW, replace(POLICY, retry_cap=10), 0.5)
    assert apply(ASKING, Kind.REQUEST, fail("pin-locked", retry_after=3600), short).wait == 3600
    assert apply(ASKING, Kind.REQUEST, fail("cloud-error", retry_after=3600), short).wait == 10


@pytest.mark.parametrize("code", ["cloud-refused", "unfit-certificate", "pending-key"])
def test_a_key_that_cannot_help_is_dropped(code: str) -> None:
    record = apply(ASKING, Kind.REQUEST, fail(code), context())
    assert record.pending is None
    assert record.to_delete == (PENDING.label,)
    assert record.state is State.ACKED


@pytest.mark.parametrize("code", ["bad-credentials", "key-store", "disk", "token", "no-reply", "not-allowed"])
def test_an_identity_that_cannot_ask_says_nothing_about_the_new_key(code: str) -> None:
    assert apply(ASKING, Kind.REQUEST, fail(code, fatal=True), context()).pending == PENDING


def test_making_a_key_ends_no_failure() -> None:
    failing = replace(apply(ASKING, Kind.REQUEST, fail("unfit-certificate"), context()), to_delete=())
    begun = begin(failing, decide(failing), lambda: "label", lambda: "r")
    made = apply(begun, Kind.GENERATE, Generated(), context())
    assert (made.attempt, made.failure) == (1, failing.failure)
    assert decide(made).due > NOW


def test_removing_what_nothing_needs_fails_alone() -> None:
    failing = apply(replace(ACKED, to_delete=("x",)), Kind.RETIRE, fail("key-store", fatal=True), context())
    assert (failing.attempt, failing.wait) == (0, 0)
    assert decide(failing).kind is Kind.WAIT
    assert decide(failing, NOW + 200).kind is Kind.GENERATE
    heard = apply(replace(failing, check_in_at=0), Kind.CHECK_IN, CheckedIn(int(NOW), None), context())
    assert decide(heard).kind is Kind.RETIRE, "it is tried again after the next contact"
    assert decide(replace(failing, check_in_at=2**40, active=None, state=State.JITP), NOW + 1).kind is Kind.GENERATE
    resting = replace(failing, active=replace(OLD, certificate=replace(OLD.certificate, renew_at=int(NOW) + 10**6)))
    again = replace(resting, check_in_at=int(NOW) + 80_000)
    assert decide(again).due == NOW + POLICY.retry_cap, "and after the longest pause"
    assert decide(again, NOW + POLICY.retry_cap).kind is Kind.RETIRE
    assert decide(again, NOW - 10).kind is Kind.RETIRE, "a clock that was ahead does not put it off"
    gone = apply(heard, Kind.RETIRE, Retired(("x",)), context())
    assert gone.cleanup is None


def refused(times: int, code: str = "not-permitted", record: Record = ROTATED) -> Record:
    for _ in range(times):
        record = apply(record, Kind.PROVE, fail(code), context())
    return record


def test_a_bounded_number_of_refusals_rolls_back_and_keeps_the_certificate() -> None:
    assert refused(2).state is State.ROTATED
    record = refused(3)
    assert record.state is State.ACKED
    assert record.active == OLD
    assert [identity.label for identity in record.unconfirmed] == [PENDING.label]
    assert PENDING.label in record.protected_labels
    assert decide(replace(record, renew_requested=1)).due > NOW


def test_before_any_own_certificate_rolling_back_means_jitp() -> None:
    assert refused(3, record=replace(ROTATED, active=None)).state is State.JITP


@pytest.mark.parametrize("code", ["unreachable", "untrusted-server", "cloud-error"])
def test_what_shows_that_the_cloud_has_not_seen_it_never_rolls_a_certificate_back(code: str) -> None:
    assert refused(500, code).state is State.ROTATED


@pytest.mark.parametrize("code", ["no-reply", "connection-lost", "worker-timeout", "not-allowed", "bad-reply", "token"])
def test_silence_lets_others_have_their_turn_only_after_long_and_the_certificate_stays(code: str) -> None:
    long = lifecycle.LONG_SILENCE * POLICY.prove_attempts
    assert refused(long - 1, code).state is State.ROTATED
    after = refused(long, code)
    assert after.state is State.ACKED
    assert PENDING.label in after.protected_labels


def test_repeated_rollbacks_wait_longer() -> None:
    once = refused(3)
    again = refused(3, record=replace(ROTATED, rollbacks=3))
    assert again.wait > once.wait


def test_what_is_unconfirmed_gets_its_turn_when_the_active_identity_is_refused() -> None:
    record = replace(refused(3), pending=Pending("third", "r-3", generated=True), renew_requested=1)
    for _ in range(3):
        assert decide(record).kind is Kind.REQUEST
        record = apply(record, Kind.REQUEST, fail("refused"), context())
    assert decide(record).kind is Kind.PROVE
    assert lifecycle.to_prove(record).label == PENDING.label
    proven = apply(record, Kind.PROVE, Proven(None), context())
    assert proven.active is not None
    assert proven.active.label == PENDING.label
    assert (proven.state, proven.unconfirmed, proven.to_delete) == (State.ACKED, (), (OLD.label,))
    assert proven.pending == record.pending, "the key that was made in vain serves the next renewal"


@pytest.mark.parametrize("over_bootstrap", [False, True])
def test_what_is_unconfirmed_goes_when_the_cloud_issues_over_the_active_identity(*, over_bootstrap: bool) -> None:
    asking = replace(refused(3), pending=Pending("third", "r-3", generated=True), renew_requested=1)
    if over_bootstrap:
        asking = replace(asking, problem="refused", failures=3, fallbacks=1)
        assert lifecycle.asks_with_bootstrap(asking)
    record = apply(asking, Kind.REQUEST, Issued(NEW, None), context())
    labels = tuple(identity.label for identity in record.unconfirmed)
    expected = ((PENDING.label,), ()) if over_bootstrap else ((), (PENDING.label,))
    assert (labels, record.to_delete) == expected


def test_a_cloud_that_answers_once_leaves_a_working_certificate_unanswered() -> None:
    issued = apply(ASKING, Kind.REQUEST, Issued(NEW, None, answers_once=True), context())
    for _ in range(POLICY.prove_attempts):
        assert issued.state is State.ROTATED
        issued = apply(issued, Kind.PROVE, fail("no-reply"), context())
    assert issued.state is State.ACKED
    assert issued.active is not None
    assert issued.active.label == PENDING.label
    assert issued.unconfirmed == (OLD,), "nothing was confirmed, so nothing is removed"
    assert issued.to_delete == ()


def test_advice_in_the_past_keeps_the_minimum_interval() -> None:
    fresh = apply(ROTATED, Kind.PROVE, Proven(int(NOW)), context())
    advice = Advice(0, 1000, "at once")
    heard = apply(replace(fresh, check_in_at=0), Kind.CHECK_IN, CheckedIn(int(NOW), advice), context(NOW + 1))
    assert renewal_due(heard) == NOW + POLICY.minimum_interval


def test_advice_brings_renewal_forward_is_drawn_once_and_never_puts_it_off() -> None:
    sooner = Advice(int(NOW + 50) * 1000, int(NOW + 150) * 1000, "the CA changes")
    record = apply(ACKED, Kind.CHECK_IN, CheckedIn(int(NOW), sooner), context(jitter=0.5))
    assert renewal_due(record) == NOW + 100
    assert renewal_due(apply(record, Kind.CHECK_IN, CheckedIn(int(NOW), sooner), context(jitter=0.9))) == NOW + 100
    assert renewal_due(apply(record, Kind.CHECK_IN, CheckedIn(int(NOW), None), context())) == OLD.certificate.renew_at
    later = Advice(int(NOW + 5000) * 1000, int(NOW + 6000) * 1000, "no hurry")
    assert renewal_due(apply(ACKED, Kind.CHECK_IN, CheckedIn(int(NOW), later), context())) == OLD.certificate.renew_at


def test_an_operator_gets_a_rotation_at_once_and_joins_one_under_way() -> None:
    asked = request_rotation(ACKED, NOW)
    assert decide(asked).kind is Kind.GENERATE
    assert "operator" in decide(asked).reason
    held = apply(ASKING, Kind.REQUEST, fail(), context())
    joined = request_rotation(held, NOW)
    assert joined.pending == PENDING
    assert decide(joined).due == NOW
    assert request_rotation(ROTATED, NOW) == ROTATED


def test_a_cancelled_rotation_leaves_the_active_identity_and_its_certificate_gets_its_turn() -> None:
    cancelled = cancel_rotation(ROTATED, NOW)
    assert cancelled.active == OLD
    assert cancelled.unconfirmed == (to_prove(ROTATED),)
    assert cancelled.protected_labels == {OLD.label, PENDING.label}
    assert decide(cancelled).kind is Kind.CHECK_IN
    refused = cancelled
    for _ in range(3):  # the cloud had committed to it, and its answer was lost
        refused = apply(refused, Kind.CHECK_IN, fail("refused"), context())
    assert (decide(refused).kind, to_prove(refused)) == (Kind.PROVE, to_prove(ROTATED))


def test_a_cancelled_rotation_that_is_due_begins_again_with_another_key() -> None:
    late = NOW + 300
    again = begin(cancel_rotation(ROTATED, late), Step(Kind.GENERATE, late, ""), lambda: "another", lambda: "r-2")
    assert decide(again, late).kind is Kind.GENERATE
    assert again.pending == Pending("another", "r-2")


def test_an_order_given_under_a_clock_that_was_ahead_is_not_lost() -> None:
    assert decide(request_rotation(ACKED, NOW + 10**8)).kind is Kind.GENERATE


def test_the_time_floor_needs_both_clocks_to_agree() -> None:
    ahead = apply(ACKED, Kind.CHECK_IN, CheckedIn(int(NOW) + 10**8, None), context())
    assert ahead.time_floor == NOW
    behind = apply(ACKED, Kind.CHECK_IN, CheckedIn(int(NOW) - 100, None), context())
    assert behind.time_floor == NOW - 100
    assert apply(ahead, Kind.CHECK_IN, CheckedIn(5, None), context()).time_floor == NOW


def test_the_history_is_bounded() -> None:
    record = ACKED
    for _ in range(lifecycle.HISTORY_LENGTH * 2):
        record = request_rotation(record, NOW)
    assert len(record.history) == lifecycle.HISTORY_LENGTH


# ---- each rule to the last field: what a step leaves in the record, and what it leaves as it was -------------------

THIRD = Identity("iot-agent-third", replace(NEW, certificate_id="c" * 64))
FAILURE = Failure(Kind.REQUEST, "no-reply", "it went wrong", "do something", int(NOW) - 5)
FAILING = {"attempt": 4, "wait": 9, "failure": FAILURE, "cleanup": FAILURE, "problem": "no-reply", "failures": 2}
BUSY = replace(ACKED, waiting_since=3, fallbacks=1, proof_failures=2, rollbacks=1, **FAILING)  # type: ignore[arg-type]  # values of many types
OVER = {"attempt": 0, "wait": 0, "failure": None, "cleanup": None, "problem": "", "failures": 0, "fallbacks": 0}
HEARD = replace(BUSY, last_contact=int(NOW), **OVER)  # type: ignore[arg-type]  # the same
NEXT_CHECK_IN = int(NOW + POLICY.check_in_interval * 3 / 4)


def line(event: str, detail: str) -> tuple[Event, ...]:
    return (Event(int(NOW), event, detail),)


def test_the_first_contact_ends_every_failure() -> None:
    fresh = replace(BUSY, state=State.UNPROVISIONED, active=None)
    assert apply(fresh, Kind.INTRODUCE, Introduced(), context()) == replace(
        HEARD, state=State.JITP, active=None, history=line("introduced", "the cloud accepted the bootstrap certificate")
    )


def test_a_key_that_was_made_is_noted_and_nothing_else() -> None:
    making = replace(BUSY, pending=Pending("iot-agent-new", "r-1"))
    assert apply(making, Kind.GENERATE, Generated(), context()) == replace(making, pending=PENDING)


def test_what_is_issued_is_stored_and_the_proof_begins_anew() -> None:
    asking = replace(BUSY, pending=replace(PENDING, refusals=2), fallbacks=0, failures=0, rollbacks=0)
    certificate = replace(NEW, renew_at=NEW.not_before + int(1000 * 2 / 3 + 50))
    assert apply(asking, Kind.REQUEST, Issued(NEW, int(NOW) - 7), context()) == replace(
        HEARD,
        state=State.ROTATED,
        pending=replace(PENDING, certificate=certificate),
        proof_failures=0,
        rollbacks=0,
        time_floor=int(NOW) - 7,
        history=line("issued", NEW.certificate_id),
    )


@pytest.mark.parametrize(("rollbacks", "attempt"), [(0, 0), (1, 4)])
def test_after_a_rollback_another_certificate_does_not_end_the_failures(rollbacks: int, attempt: int) -> None:
    asking = replace(BUSY, pending=PENDING, rollbacks=rollbacks)
    assert apply(asking, Kind.REQUEST, Issued(NEW, None), context()).attempt == attempt


PROVING = replace(
    BUSY,
    state=State.ROTATED,
    pending=ROTATED.pending,
    unconfirmed=(THIRD,),
    to_delete=("x",),
    renew_requested=5,
    advised=Advised(1, 2, 1),
    rotations=7,
    failures=0,
    problem="",
)
ACTIVATED = replace(
    HEARD,
    proof_failures=0,
    rollbacks=0,
    rotations=8,
    renewed_at=int(NOW),
    check_in_at=NEXT_CHECK_IN,
)


def test_a_proof_puts_the_new_identity_in_force_and_ends_every_order() -> None:
    assert apply(PROVING, Kind.PROVE, Proven(int(NOW) - 7), context()) == replace(
        ACTIVATED,
        active=to_prove(PROVING),
        to_delete=("x", OLD.label, THIRD.label),
        time_floor=int(NOW) - 7,
        history=line("promoted", NEW.certificate_id),
    )


def test_an_unconfirmed_identity_that_is_proven_supersedes_a_pending_certificate_too() -> None:
    silent = replace(PROVING, problem="refused", failures=9)
    assert to_prove(silent) == THIRD
    assert apply(silent, Kind.PROVE, Proven(None), context()) == replace(
        ACTIVATED,
        active=THIRD,
        to_delete=("x", OLD.label, PENDING.label),
        history=line("taken-up-again", "c" * 64) + line("promoted", "c" * 64),
    )


def test_what_was_removed_is_noted_and_a_failure_to_remove_is_over() -> None:
    leaving = replace(BUSY, to_delete=("x", "y", "z"))
    assert apply(leaving, Kind.RETIRE, Retired(("x", "z")), context()) == replace(
        leaving, to_delete=("y",), cleanup=None, history=line("retired", "x, z")
    )
    nothing = apply(leaving, Kind.RETIRE, Retired(()), context())
    assert nothing.history == line("retired", "nothing was left")


def test_a_check_in_is_followed_by_another_after_half_an_interval_to_a_whole_one() -> None:
    assert apply(BUSY, Kind.CHECK_IN, CheckedIn(int(NOW) - 7, None), context()) == replace(
        HEARD, check_in_at=NEXT_CHECK_IN, time_floor=int(NOW) - 7
    )


def test_a_failure_that_says_nothing_more_is_counted() -> None:
    asking = replace(BUSY, pending=PENDING, fallbacks=0, cleanup=None)
    counted = apply(asking, Kind.REQUEST, fail("cloud-error"), context())
    assert counted == replace(
        asking,
        attempt=5,
        waiting_since=int(NOW),
        wait=60,  # three quarters of 5 * 2 ** 4
        failure=Failure(Kind.REQUEST, "cloud-error", "it went wrong", "do something", int(NOW)),
        problem="cloud-error",
        failures=3,
    )


def test_a_failed_turn_of_another_identity_keeps_the_problem_and_counts_the_turn() -> None:
    record = replace(BUSY, unconfirmed=(THIRD,), problem="refused", failures=3, fallbacks=1)
    failed = apply(record, Kind.PROVE, fail("no-reply"), context())
    assert (failed.problem, failed.failures, failed.fallbacks) == ("refused", 0, 2)
    assert (failed.state, failed.proof_failures, failed.attempt) == (State.ACKED, 2, 5)


@pytest.mark.parametrize(
    ("code", "fatal", "dropped"),
    [("token", False, False), ("token", True, True), ("pending-key", False, True), ("unfit-certificate", True, True)],
)
def test_a_key_that_cannot_be_made_is_dropped_only_if_trying_again_cannot_help(
    code: str, *, fatal: bool, dropped: bool
) -> None:
    making = replace(ACKED, pending=Pending("iot-agent-new", "r-1"))
    failed = apply(making, Kind.GENERATE, fail(code, fatal=fatal), context())
    assert (failed.pending is None) is dropped
    assert failed.to_delete == (("iot-agent-new",) if dropped else ())
    assert failed.history == (line("key-dropped", "it went wrong") if dropped else ())


def test_a_certificate_that_is_given_up_is_kept_and_the_failures_of_the_proof_are_over() -> None:
    record = replace(PROVING, attempt=1, wait=1, rollbacks=2, unconfirmed=(), failures=0, cleanup=None)
    given_up = apply(record, Kind.PROVE, fail("cloud-refused"), context())
    assert given_up == replace(
        record,
        state=State.ACKED,
        pending=None,
        unconfirmed=(to_prove(record),),
        proof_failures=0,
        rollbacks=3,
        attempt=9,  # three rollbacks, of three proofs each
        waiting_since=int(NOW),
        wait=960,  # three quarters of 5 * 2 ** 8
        failure=Failure(Kind.PROVE, "cloud-refused", "it went wrong", "do something", int(NOW)),
        problem="",
        failures=0,
        fallbacks=0,
        history=line("rolled-back", f"{NEW.certificate_id} could not be proven"),
    )


def test_of_too_many_unconfirmed_identities_the_second_oldest_goes() -> None:
    others = tuple(Identity(f"iot-agent-{number}", NEW) for number in range(lifecycle.MOST_UNCONFIRMED))
    record = replace(ROTATED, unconfirmed=others[:-1], to_delete=("x",))
    kept = apply(record, Kind.PROVE, fail("cloud-refused"), context())
    assert (kept.unconfirmed, kept.to_delete) == ((*others[:-1], to_prove(record)), ("x",))
    full = replace(record, unconfirmed=others)
    one_less = apply(full, Kind.PROVE, fail("cloud-refused"), context())
    assert one_less.unconfirmed == (others[0], *others[2:], to_prove(record))
    assert one_less.to_delete == ("x", others[1].label)


def test_a_certificate_that_works_unanswered_is_put_in_force_and_nothing_is_deleted() -> None:
    record = replace(PROVING, answers_once=True, proof_failures=POLICY.prove_attempts - 1, cleanup=None)
    accepted = apply(record, Kind.PROVE, fail("no-reply"), context())
    assert accepted == replace(
        ACTIVATED,
        active=to_prove(record),
        answers_once=True,
        unconfirmed=(THIRD, OLD),
        to_delete=("x",),
        waiting_since=int(NOW),
        last_contact=0,
        history=line("promoted", NEW.certificate_id),
    )


def test_an_identity_with_no_certificate_yet_cannot_be_proven_which_is_our_bug() -> None:
    with pytest.raises(RuntimeError, match="iot-agent-new has no certificate yet"):
        to_prove(replace(ROTATED, pending=PENDING))
    with pytest.raises(RuntimeError, match="no rotation is under way in state rotated"):
        to_prove(replace(ROTATED, pending=None))
    with pytest.raises(RuntimeError, match="introduce cannot end with Generated in state unprovisioned"):
        apply(Record("SN-1"), Kind.INTRODUCE, Generated(), context())


def test_what_a_person_changes_ends_every_wait_and_forgets_no_problem() -> None:
    assert reset_backoff(BUSY) == replace(BUSY, attempt=0, wait=0, cleanup=None)


def test_a_cancelled_certificate_stays_unconfirmed_and_its_failures_are_over() -> None:
    proving = replace(PROVING, problem="no-reply", failures=3, fallbacks=1)
    assert cancel_rotation(proving, NOW) == replace(
        proving,
        state=State.ACKED,
        pending=None,
        unconfirmed=(THIRD, to_prove(PROVING)),
        renew_requested=0,
        check_in_at=0,
        proof_failures=0,
        attempt=0,
        wait=0,
        cleanup=None,
        problem="",
        failures=0,
        fallbacks=0,
        history=line("rotation-cancelled", "by an operator"),
    )
    assert cancel_rotation(replace(proving, active=None), NOW).state is State.JITP


def test_a_cancelled_key_is_dropped_and_an_order_that_had_not_begun_is_withdrawn() -> None:
    asking = replace(BUSY, pending=PENDING, renew_requested=7, to_delete=("x",))
    ended = replace(asking, renew_requested=0, check_in_at=0, attempt=0, wait=0, cleanup=None)
    assert cancel_rotation(asking, NOW) == replace(
        ended,
        pending=None,
        to_delete=("x", PENDING.label),
        history=line("key-dropped", "its rotation was withdrawn") + line("rotation-cancelled", "by an operator"),
    )
    assert cancel_rotation(replace(asking, pending=None), NOW) == replace(
        ended, pending=None, history=line("rotation-cancelled", "by an operator")
    )
    assert cancel_rotation(BUSY, NOW) == BUSY


@pytest.mark.parametrize(("now", "requested"), [(NOW, int(NOW)), (0.0, 1)])
def test_an_order_to_renew_is_noted_even_at_the_beginning_of_time(now: float, requested: int) -> None:
    asked = request_rotation(ACKED, now)
    history = (Event(int(now), "rotation-requested", "by an operator"),)
    assert asked == replace(ACKED, renew_requested=requested, history=history)


def test_an_order_brings_the_renewal_forward_and_never_puts_it_off() -> None:
    assert renewal_due(replace(ACKED, renew_requested=7)) == 7
    assert renewal_due(replace(ACKED, renew_requested=OLD.certificate.renew_at + 1)) == OLD.certificate.renew_at


def test_a_device_without_a_certificate_is_due_for_one_at_once() -> None:
    assert renewal_due(Record("SN-1", State.JITP)) == 0


@pytest.mark.parametrize(
    ("reason", "record", "now"),
    [
        ("the first certificate", Record("SN-1", State.JITP), NOW),
        ("an operator", replace(ACKED, renew_requested=1), NOW),
        ("the cloud advised", replace(ACKED, advised=Advised(0, 1, int(NOW))), NOW),
        ("renewal instant", replace(ACKED, advised=Advised(0, 1, int(NOW) + 201)), NOW + 200),
        ("has expired", ACKED, NOW + 500),
        ("renewal instant", ACKED, NOW + 499),
        (
            "(refused): trying iot-agent-third",
            replace(BUSY, unconfirmed=(THIRD,), problem="refused", fallbacks=2),
            NOW + 200,
        ),
        ("(refused): asking over the bootstrap identity", replace(BUSY, problem="refused"), NOW + 200),
    ],
)
def test_a_decision_says_why(reason: str, record: Record, now: float) -> None:
    assert reason in decide(record, now).reason


def test_a_check_in_that_is_a_whole_interval_away_is_waited_for() -> None:
    at = int(NOW + POLICY.check_in_interval)
    assert decide(replace(ACKED, check_in_at=at), NOW).kind is Kind.WAIT
    assert decide(replace(ACKED, check_in_at=at + 1), NOW).kind is Kind.CHECK_IN


def test_a_wait_that_is_over_is_told_no_more() -> None:
    failed = apply(ASKING, Kind.REQUEST, fail(), context(jitter=0.9))
    assert "failed" in decide(failed, waited=failed.wait - 0.5).reason
    assert "failed" not in decide(failed, waited=failed.wait).reason


def test_the_longest_wait_is_a_whole_second_at_least() -> None:
    brief = ApplyContext(NOW, replace(POLICY, retry_cap=0.5), 0.5)
    assert apply(ASKING, Kind.REQUEST, fail(retry_after=9), brief).wait == 1


@pytest.mark.parametrize(
    ("why", "heard_at", "renewed_at", "at", "due"),
    [
        ("an instant within the window is kept", NOW, 0, int(NOW) + 400, int(NOW) + 400),
        ("at its very end too", NOW, 0, int(NOW) + 500, int(NOW) + 500),
        ("a later one was drawn under a wrong clock", NOW, 0, int(NOW) + 501, int(NOW) + 450),
        (
            "or for the minimum interval, which may end after the window",
            NOW + 450,
            NOW + 450,
            int(NOW) + 550,
            int(NOW) + 550,
        ),
        ("even if the window is over", NOW + 600, NOW + 600, int(NOW) + 650, int(NOW) + 650),
        ("then one after that interval is drawn anew", NOW + 450, NOW + 450, int(NOW) + 551, int(NOW) + 550),
        ("a renewal under a clock that was ahead does not count", NOW, NOW + 999, int(NOW) + 501, int(NOW) + 450),
        ("one at this moment does", NOW + 399, NOW + 399, int(NOW) + 501, int(NOW) + 499),
    ],
)
def test_advice_that_is_heard_again_keeps_its_instant_if_a_right_clock_can_have_drawn_it(
    why: str, heard_at: float, renewed_at: float, at: int, due: int
) -> None:
    start, end = int(NOW) + 400, int(NOW) + 500
    record = replace(ACKED, renewed_at=int(renewed_at), advised=Advised(start, end, at))
    advice = Advice(start * 1000 + 999, end * 1000 + 999, "the CA changes")
    heard = apply(record, Kind.CHECK_IN, CheckedIn(int(NOW), advice), context(heard_at))
    assert heard.advised == Advised(start, end, due), why
