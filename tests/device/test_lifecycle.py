"""The rules, one by one; tests/simulator shows them together."""

from dataclasses import replace

import pytest

from iot_agent import lifecycle
from iot_agent.lifecycle import TRANSITIONS, Moment, apply, begin, decide, renewal_due, request_rotation
from iot_agent.messages import Advice
from iot_agent.record import (
    Certificate,
    CheckedIn,
    Failed,
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
from iot_agent.schedule import Policy

NOW = 1_790_000_000.0
POLICY = Policy(minimum_interval=100, prove_attempts=3)
OLD = Identity("iot-agent-old", Certificate("a" * 64, int(NOW) - 500, int(NOW) + 500, int(NOW) + 200))
NEW = Certificate("b" * 64, int(NOW) - 10, int(NOW) + 990)
PENDING = Pending("iot-agent-new", "r-1", generated=True)
ACKED = Record("SN-1", State.ACKED, active=OLD, check_in_at=int(NOW) + 1000)
ROTATED = replace(
    ACKED, state=State.ROTATED, pending=replace(PENDING, certificate=replace(NEW, renew_at=int(NOW) + 600))
)


def moment(now: float = NOW, draw: float = 0.5) -> Moment:
    return Moment(now, POLICY, draw)


def fail(code: str = "no-reply", *, fatal: bool = False, retry_after: int | None = None) -> Failed:
    return Failed(code, "it went wrong", "do something", fatal, retry_after)


@pytest.mark.parametrize(
    ("name", "record", "now", "kind"),
    [
        ("a fresh device introduces itself", Record("SN-1"), NOW, Kind.INTRODUCE),
        ("known to the cloud, it makes its first key", Record("SN-1", State.JITP), NOW, Kind.GENERATE),
        ("a crash before the key: the same label again", replace(ACKED, pending=Pending("x", "r")), NOW, Kind.GENERATE),
        ("with a key it asks for a certificate", replace(ACKED, pending=PENDING), NOW, Kind.REQUEST),
        ("a stored certificate is proven", ROTATED, NOW, Kind.PROVE),
        ("at rest it waits", ACKED, NOW, Kind.WAIT),
        ("at the renewal instant it makes a key", ACKED, NOW + 200, Kind.GENERATE),
        (
            "renewal comes before housekeeping",
            replace(ACKED, leftovers=("x",), check_in_at=0),
            NOW + 200,
            Kind.GENERATE,
        ),
        ("leftovers are removed", replace(ACKED, leftovers=("x",)), NOW, Kind.RETIRE),
        ("a check-in that is due is made", replace(ACKED, check_in_at=int(NOW)), NOW, Kind.CHECK_IN),
    ],
)
def test_what_next(name: str, record: Record, now: float, kind: Kind) -> None:
    assert decide(record, now, POLICY).kind is kind, name


def test_every_decision_has_a_reason_and_every_step_a_transition() -> None:
    for record in (Record("SN-1"), ACKED, ROTATED, replace(ACKED, pending=PENDING)):
        step = decide(record, NOW, POLICY)
        assert step.reason
        assert step.kind is Kind.WAIT or (record.state, step.kind) in TRANSITIONS


def test_waiting_ends_with_whatever_comes_first() -> None:
    assert decide(ACKED, NOW, POLICY).due == OLD.certificate.renew_at
    assert decide(replace(ACKED, check_in_at=int(NOW) + 7), NOW, POLICY).due == NOW + 7


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
        (ACKED, Kind.GENERATE, Generated()),
        (ROTATED, Kind.REQUEST, Issued(NEW, None)),
        (ACKED, Kind.INTRODUCE, Introduced()),
    ],
)
def test_an_impossible_outcome_is_our_bug(record: Record, step: Kind, outcome: Outcome) -> None:
    with pytest.raises(RuntimeError):
        apply(record, step, outcome, moment())


def test_an_issued_certificate_gets_its_renewal_instant_once() -> None:
    record = apply(replace(ACKED, pending=PENDING), Kind.REQUEST, Issued(NEW, int(NOW) + 5), moment(draw=0.25))
    assert record.state is State.ROTATED
    assert record.pending is not None
    assert record.pending.certificate is not None
    assert record.pending.certificate.renew_at == NEW.not_before + int(1000 * 2 / 3 + 25)
    assert record.active == OLD


def test_proof_promotes_and_leaves_the_old_identity_to_be_removed() -> None:
    record = apply(ROTATED, Kind.PROVE, Proven(int(NOW)), moment())
    assert record.state is State.ACKED
    assert record.active is not None
    assert record.active.label == PENDING.label
    assert (record.pending, record.leftovers, record.rotations) == (None, (OLD.label,), 1)
    assert apply(record, Kind.RETIRE, Retired((OLD.label,)), moment()).leftovers == ()


def test_a_failure_is_counted_kept_and_waited_out() -> None:
    record = apply(replace(ACKED, pending=PENDING), Kind.REQUEST, fail(), moment(draw=0.9))
    step = decide(record, NOW, POLICY)
    assert (step.kind, step.due) == (Kind.REQUEST, NOW + 5)
    assert record.attempt == 1
    assert record.failure is not None
    assert record.failure.remedy == "do something"
    assert "1 failed" in step.reason


def test_the_cloud_may_ask_for_more_patience_than_the_backoff() -> None:
    record = apply(replace(ACKED, pending=PENDING), Kind.REQUEST, fail("cloud-error", retry_after=77), moment())
    assert record.retry_at == NOW + 77


def test_a_fatal_failure_waits_longest_and_drops_a_key_that_cannot_help() -> None:
    record = apply(replace(ACKED, pending=PENDING), Kind.REQUEST, fail("cloud-refused", fatal=True), moment())
    assert record.retry_at == NOW + POLICY.retry_cap
    assert record.pending is None
    assert record.leftovers == (PENDING.label,)


def test_an_unfit_certificate_drops_its_key() -> None:
    record = apply(replace(ACKED, pending=PENDING), Kind.REQUEST, fail("unfit-certificate"), moment())
    assert record.pending is None
    assert record.state is State.ACKED


def test_housekeeping_never_delays_a_rotation() -> None:
    failing = apply(replace(ACKED, leftovers=("x",)), Kind.RETIRE, fail("key-store", fatal=True), moment())
    assert decide(failing, NOW + 200, POLICY) == Step(
        Kind.GENERATE, NOW + 200, "renewing: the certificate's renewal instant has come"
    )
    assert decide(failing, NOW, POLICY).due > NOW


def refused(times: int, code: str = "not-permitted", record: Record = ROTATED) -> Record:
    for _ in range(times):
        record = apply(record, Kind.PROVE, fail(code), moment())
    return record


def test_a_bounded_number_of_refusals_rolls_back_and_sets_aside() -> None:
    assert refused(2).state is State.ROTATED
    record = refused(3)
    assert record.state is State.ACKED
    assert record.active == OLD
    assert record.set_aside is not None
    assert record.set_aside.label == PENDING.label
    assert PENDING.label in record.kept
    assert decide(record, NOW, POLICY).due > NOW


def test_before_any_own_certificate_rolling_back_means_jitp() -> None:
    assert refused(3, record=replace(ROTATED, active=None)).state is State.JITP


@pytest.mark.parametrize("code", ["unreachable", "untrusted-server", "cloud-error"])
def test_what_says_nothing_about_the_certificate_never_rolls_it_back(code: str) -> None:
    assert refused(50, code).state is State.ROTATED


def test_repeated_rollbacks_wait_longer() -> None:
    once = refused(3)
    again = refused(3, record=replace(ROTATED, rollbacks=3))
    assert again.retry_at > once.retry_at


def test_what_was_set_aside_is_tried_again_when_the_identity_in_force_is_refused() -> None:
    waiting = replace(refused(3), attempt=0, pending=Pending("third", "r-3", generated=True))
    once = apply(waiting, Kind.REQUEST, fail("refused"), moment())
    assert once.state is State.ACKED, "the bootstrap identity comes first: an operator may have readmitted the device"
    record = apply(once, Kind.REQUEST, fail("refused"), moment())
    assert record.state is State.ROTATED
    assert record.pending is not None
    assert record.pending.label == PENDING.label
    assert record.leftovers == ("third",)
    assert apply(once, Kind.REQUEST, fail("unreachable"), moment()).state is State.ACKED


def test_what_was_set_aside_goes_when_the_cloud_issues_for_another_key() -> None:
    waiting = replace(refused(3), pending=Pending("third", "r-3", generated=True))
    record = apply(waiting, Kind.REQUEST, Issued(NEW, None), moment())
    assert record.set_aside is None
    assert record.leftovers == (PENDING.label,)


def test_advice_brings_renewal_forward_is_drawn_once_and_never_puts_it_off() -> None:
    sooner = Advice(int(NOW + 50) * 1000, int(NOW + 150) * 1000, "the CA changes")
    record = apply(ACKED, Kind.CHECK_IN, CheckedIn(int(NOW), sooner), moment(draw=0.5))
    assert renewal_due(record) == NOW + 100
    assert renewal_due(apply(record, Kind.CHECK_IN, CheckedIn(int(NOW), sooner), moment(draw=0.9))) == NOW + 100
    assert renewal_due(apply(record, Kind.CHECK_IN, CheckedIn(int(NOW), None), moment())) == OLD.certificate.renew_at
    later = Advice(int(NOW + 5000) * 1000, int(NOW + 6000) * 1000, "no hurry")
    assert renewal_due(apply(ACKED, Kind.CHECK_IN, CheckedIn(int(NOW), later), moment())) == OLD.certificate.renew_at


def test_an_operator_gets_a_rotation_at_once_and_joins_one_under_way() -> None:
    asked = request_rotation(ACKED, NOW)
    assert decide(asked, NOW, POLICY).kind is Kind.GENERATE
    assert "operator" in decide(asked, NOW, POLICY).reason
    held = apply(replace(ACKED, pending=PENDING), Kind.REQUEST, fail(), moment())
    joined = request_rotation(held, NOW)
    assert joined.pending == PENDING
    assert decide(joined, NOW, POLICY).due == NOW


def test_a_clock_set_back_does_not_hold_a_retry_for_years() -> None:
    future = apply(replace(ACKED, pending=PENDING), Kind.REQUEST, fail(), moment(now=NOW + 10 * 365 * 86400))
    assert decide(future, NOW, POLICY).due <= NOW + POLICY.retry_cap


def test_the_time_floor_needs_both_clocks_to_agree() -> None:
    ahead = apply(ACKED, Kind.CHECK_IN, CheckedIn(int(NOW) + 10**8, None), moment())
    assert ahead.time_floor == NOW
    behind = apply(ACKED, Kind.CHECK_IN, CheckedIn(int(NOW) - 100, None), moment())
    assert behind.time_floor == NOW - 100
    assert apply(ahead, Kind.CHECK_IN, CheckedIn(5, None), moment()).time_floor == NOW


def test_the_history_is_bounded() -> None:
    record = ACKED
    for _ in range(lifecycle.HISTORY_LENGTH * 2):
        record = request_rotation(record, NOW)
    assert len(record.history) == lifecycle.HISTORY_LENGTH
