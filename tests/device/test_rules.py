"""The rules that make whole classes of faults impossible, over random sequences of failures, clocks and outcomes.

Each property is also held against a planted bug, which it must find.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from iot_agent.core import fallback, lifecycle
from iot_agent.core.codec import encode_record
from iot_agent.core.errors import REMEDIES, UNUSABLE, Code
from iot_agent.core.fallback import Bootstrap, turn
from iot_agent.core.lifecycle import ApplyContext, apply, begin, decide
from iot_agent.core.protocol import Advice
from iot_agent.core.record import (
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
from iot_agent.core.schedule import Policy

NOW = 1_790_000_000
POLICY = Policy(minimum_interval=100, retry_base=2, retry_cap=300, prove_attempts=3, check_in_interval=4000)
HOW = settings(deadline=None, max_examples=60)
PLANTED = settings(HOW, phases=(Phase.generate,), database=None)  # one example is enough, however long
Property = Callable[[settings], None]
YEARS = 10 * 365 * 86400


def identity(number: int, start: int = NOW - 1000, end: int = NOW + 100_000) -> Identity:
    return Identity(f"iot-agent-{number}", Certificate(f"{number:064x}", start, end, end - 1000))


ACKED = Record("SN-1", State.ACKED, active=identity(1), check_in_at=NOW)
WITH_OTHERS = replace(ACKED, unconfirmed=(identity(2), identity(3)))

failures = st.builds(
    Failed,
    code=st.sampled_from(sorted(Code)),
    message=st.text(max_size=3000),
    remedy=st.sampled_from(sorted(REMEDIES.values())),
    fatal=st.booleans(),
    retry_after=st.none() | st.integers(0, 10**15),
)
silences = st.sampled_from(sorted(set(Code) - lifecycle.COUNTS))
clocks = st.integers(NOW - YEARS, NOW + YEARS)
jitters = st.floats(0, 1, exclude_max=True)
turns = st.lists(st.tuples(failures, clocks, jitters), min_size=1, max_size=40)


def after(record: Record, failed: Failed, now: float, jitter: float) -> tuple[Record, Step]:
    """Take one turn that fails, whatever it is for; local successes on the way to it are taken."""
    while True:
        step = decide(record, now, POLICY, POLICY.retry_cap + 3600)
        if step.kind is Kind.WAIT:
            record = replace(record, check_in_at=0)
            continue
        label = f"iot-agent-new-{len(record.history)}-{record.attempt}"
        record = begin(record, step, lambda label=label: label, lambda: "r")  # type: ignore[misc]  # binds the loop's value
        if step.kind is Kind.RETIRE:
            record = apply(record, step.kind, Retired(record.to_delete), ApplyContext(now, POLICY, jitter))
        elif step.kind is Kind.GENERATE and failed.code not in {Code.KEY_STORE, Code.DISK, Code.TOKEN}:
            record = apply(record, step.kind, Generated(), ApplyContext(now, POLICY, jitter))
        else:
            return apply(record, step.kind, failed, ApplyContext(now, POLICY, jitter)), step


def outcome_of(kind: Kind, now: int) -> Outcome:
    successes: dict[Kind, Outcome] = {
        Kind.INTRODUCE: Introduced(),
        Kind.GENERATE: Generated(),
        Kind.REQUEST: Issued(Certificate("f" * 64, now - 10, now + 10_000), now),
        Kind.PROVE: Proven(now),
        Kind.RETIRE: Retired(()),
        Kind.CHECK_IN: CheckedIn(now, None),
    }
    return successes[kind]


# ---- the properties: functions, so that a planted bug can be held against them too -----------------------------------


def the_count_never_falls_without_contact(how: settings) -> None:
    @how
    @given(turns)
    def check(sequence: list[tuple[Failed, int, float]]) -> None:
        record = WITH_OTHERS
        for failed, now, jitter in sequence:
            before = record.attempt
            record, _ = after(record, failed, now, jitter)
            assert record.attempt == before + 1

    check()


def every_failure_waits_and_never_past_the_cap(how: settings) -> None:
    @how
    @given(turns)
    def check(sequence: list[tuple[Failed, int, float]]) -> None:
        record, waits = WITH_OTHERS, [0.0]
        for failed, now, jitter in sequence:
            record, _ = after(record, failed, now, jitter)
            cap = max(POLICY.retry_cap, 3600 if failed.code == Code.PIN_LOCKED else 0)
            assert 1 <= record.wait <= cap
            assert record.wait + 1 >= min(waits[-1], POLICY.retry_cap / 2), "a pause shorter than the one before"
            waits.append(record.wait if failed.retry_after is None else 0)
            for wrong in (now - YEARS, now, now + YEARS):
                waiting = replace(record, check_in_at=0, to_delete=())
                assert decide(waiting, wrong, POLICY, 0).due - wrong <= cap
                assert decide(waiting, wrong, POLICY, record.wait).due <= wrong

    check()


def every_identity_gets_its_turn(how: settings) -> None:
    bound = fallback.WHEN_SILENT[0] + (fallback.WHEN_SILENT[1] + 1) * 3 + 1

    @how
    @given(st.lists(st.tuples(failures, jitters), min_size=bound, max_size=bound))
    def check(sequence: list[tuple[Failed, float]]) -> None:
        record, tried = WITH_OTHERS, set()
        for failed, jitter in sequence:
            record, step = after(record, failed, NOW, jitter)
            tried.add(step.kind)
        assert record.fallbacks >= 3, f"after {bound} failures not every one had its turn: {record}"

    check()


def what_is_stored_is_bounded(how: settings) -> None:
    @how
    @given(st.lists(st.tuples(failures, clocks, jitters), min_size=60, max_size=80))
    def check(sequence: list[tuple[Failed, int, float]]) -> None:
        record = WITH_OTHERS
        for number, (failed, now, jitter) in enumerate(sequence):
            record, _ = after(record, failed, now, jitter)
            for least in range(6):
                useless = Pending(f"iot-agent-{number}-{least:060}", "r")
                record = lifecycle._drop_pending(replace(record, pending=useless), NOW, failed.message + "y" * 3000)
        assert len(encode_record(record)) < 128 * 1024

    check()


def silence_never_counts_against_a_certificate(how: settings) -> None:
    @how
    @given(st.lists(silences, max_size=lifecycle.LONG_SILENCE * POLICY.prove_attempts - 1))
    def check(codes: list[Code]) -> None:
        pending = Pending("iot-agent-9", "r", generated=True, certificate=identity(9).certificate)
        record = replace(ACKED, state=State.ROTATED, pending=pending)
        for code in codes:
            record = apply(record, Kind.PROVE, Failed(code, "m", "r", fatal=False), ApplyContext(NOW, POLICY, 0.5))
        assert record.state is State.ROTATED
        assert record.pending is not None
        assert record.pending.refusals == 0

    check()


def what_is_complete_is_never_given_up_without_the_cloud(how: settings) -> None:
    @how
    @given(turns)
    def check(sequence: list[tuple[Failed, int, float]]) -> None:
        record = WITH_OTHERS
        held = record.protected_labels
        for failed, now, jitter in sequence:
            record, _ = after(record, failed, now, jitter)
            assert held <= record.protected_labels
            assert not held & set(record.to_delete)

    check()


PROPERTIES = [
    the_count_never_falls_without_contact,
    every_failure_waits_and_never_past_the_cap,
    every_identity_gets_its_turn,
    what_is_stored_is_bounded,
    silence_never_counts_against_a_certificate,
    what_is_complete_is_never_given_up_without_the_cloud,
]


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_the_rule_holds(prop: Property) -> None:
    prop(HOW)


def test_the_longest_way_back_is_the_bootstrap_identity() -> None:
    record = replace(ACKED, check_in_at=0)
    for _ in range(fallback.WHEN_SILENT[0]):
        assert turn(record) is None
        record, _ = after(record, Failed(Code.NO_REPLY, "m", "r", fatal=False), NOW, 0.5)
    assert turn(record) is Bootstrap.IDENTITY


@pytest.mark.parametrize("most", [1, 5])
def test_the_pause_after_a_certificate_was_given_up_is_not_followed_by_a_shorter_one(most: int) -> None:
    policy = replace(POLICY, prove_attempts=most)
    pending = Pending("iot-agent-9", "r", generated=True, certificate=identity(9).certificate)
    record = replace(ACKED, state=State.ROTATED, pending=pending)
    given_up = apply(
        record, Kind.PROVE, Failed(Code.CLOUD_REFUSED, "m", "r", fatal=True), ApplyContext(NOW, policy, 0.5)
    )
    silent = Failed(Code.NO_REPLY, "m", "r", fatal=False)
    assert given_up.state is State.ACKED
    assert apply(given_up, Kind.CHECK_IN, silent, ApplyContext(NOW, policy, 0.5)).wait > given_up.wait


def test_advice_that_was_heard_by_a_clock_ahead_is_followed_when_the_clock_is_right() -> None:
    """The renewal and the first hearing happened while the clock was 40 days ahead."""
    ahead = NOW + 40 * 86400
    advice = Advice((NOW + 60) * 1000, (NOW + 3660) * 1000, "an exercise")
    record = replace(ACKED, renewed_at=ahead - 60)
    record = apply(record, Kind.CHECK_IN, CheckedIn(NOW, advice), ApplyContext(ahead, POLICY, 0.5))
    assert lifecycle.renewal_due(record) > NOW + 3660
    record = apply(record, Kind.CHECK_IN, CheckedIn(NOW + 10, advice), ApplyContext(NOW + 10, POLICY, 0.5))
    assert lifecycle.renewal_due(record) <= NOW + 3660
    again = apply(record, Kind.CHECK_IN, CheckedIn(NOW + 20, advice), ApplyContext(NOW + 20, POLICY, 0.9))
    assert lifecycle.renewal_due(again) == lifecycle.renewal_due(record)


@pytest.mark.parametrize("code", sorted(UNUSABLE))
def test_an_identity_that_cannot_be_used_here_is_useless_at_once(code: Code) -> None:
    record, step = after(ACKED, Failed(code, "m", "r", fatal=False), NOW, 0.5)
    assert (step.kind, turn(record)) == (Kind.CHECK_IN, Bootstrap.IDENTITY)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.WAIT])
@pytest.mark.parametrize("state", list(State))
def test_no_success_of_any_step_is_lost_on_an_allowed_state(state: State, kind: Kind) -> None:
    pending = Pending("iot-agent-9", "r", generated=True)
    if state is State.ROTATED:
        pending = replace(pending, certificate=identity(9).certificate)
    record = Record("SN-1", state, pending=pending, active=identity(1) if state is State.ACKED else None)
    if kind is Kind.PROVE and state is not State.ROTATED:
        record = replace(record, unconfirmed=(identity(2),), problem="refused", failures=3)
    if (state, kind) in lifecycle.TRANSITIONS:
        done = apply(record, kind, outcome_of(kind, NOW), ApplyContext(NOW, POLICY, 0.5))
        assert done.state is lifecycle.TRANSITIONS[state, kind]
    else:
        with pytest.raises(RuntimeError):
            apply(record, kind, outcome_of(kind, NOW), ApplyContext(NOW, POLICY, 0.5))


# ---- planted bugs ----------------------------------------------------------------------------------------------------


def planted_local_success_ends_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = lifecycle.apply

    def forgiving(record: Record, step: Kind, outcome: Outcome, context: ApplyContext) -> Record:
        done = honest(record, step, outcome, context)
        return replace(done, attempt=0) if isinstance(outcome, Generated | Retired) else done

    monkeypatch.setitem(globals(), "apply", forgiving)


def planted_wait_that_the_cloud_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_longest_wait", lambda _code, _policy: 10**15)


def planted_wait_that_slides_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def held_back(step: Step, record: Record, policy: Policy, _waited: float) -> Step:
        until = record.waiting_since + record.wait
        return step if until <= step.due else replace(step, due=min(until, step.due + policy.retry_cap))

    monkeypatch.setattr(lifecycle, "_held_back", held_back)


def planted_turns_by_the_parity_of_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_parity(record: Record) -> object:
        others = fallback.candidates(record)
        refused = record.problem in UNUSABLE
        return others[0] if others and refused and record.attempt % 2 else None

    monkeypatch.setattr(lifecycle, "turn", by_parity)


def planted_unbounded_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "HISTORY_LENGTH", 10_000)
    monkeypatch.setattr(lifecycle, "LONGEST_DETAIL", 10_000)
    monkeypatch.setattr(lifecycle, "MOST_TO_DELETE", 10_000)


def planted_silence_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "COUNTS", lifecycle.COUNTS | {Code.NO_REPLY})


def planted_giving_up_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = lifecycle._counted

    def counted(*arguments: object) -> Record:
        record: Record = honest(*arguments)  # type: ignore[arg-type]  # passed through
        gone = tuple(one.label for one in record.unconfirmed)
        return replace(record, unconfirmed=(), to_delete=gone) if record.attempt > 5 else record

    monkeypatch.setattr(lifecycle, "_counted", counted)


@pytest.mark.parametrize(
    ("plant", "prop"),
    [
        (planted_local_success_ends_a_failure, the_count_never_falls_without_contact),
        (planted_wait_that_the_cloud_names, every_failure_waits_and_never_past_the_cap),
        (planted_wait_that_slides_with_the_clock, every_failure_waits_and_never_past_the_cap),
        (planted_turns_by_the_parity_of_the_count, every_identity_gets_its_turn),
        (planted_unbounded_history, what_is_stored_is_bounded),
        (planted_silence_that_counts, silence_never_counts_against_a_certificate),
        (planted_giving_up_what_is_refused, what_is_complete_is_never_given_up_without_the_cloud),
    ],
)
def test_a_planted_bug_breaks_the_rule(
    plant: Callable[[pytest.MonkeyPatch], None], prop: Property, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        prop(PLANTED)
