"""Whose turn it is when the identity that should serve gets no answer."""

from dataclasses import replace

import pytest

from iot_agent.core.errors import TURNED_AWAY, UNUSABLE
from iot_agent.core.fallback import WHEN_SILENT, WHEN_TURNED_AWAY, WHEN_UNUSABLE, Bootstrap, candidates, turn
from iot_agent.core.record import Certificate, Identity, Record, State

OLDER, NEWER = (Identity(label, Certificate(label * 64, 1, 2)) for label in ("a", "b"))
ACKED = Record("SN-1", State.ACKED, active=Identity("c", Certificate("c" * 64, 1, 2)), unconfirmed=(OLDER, NEWER))


def test_the_newest_unconfirmed_identity_comes_first_and_the_bootstrap_identity_last() -> None:
    assert candidates(ACKED) == (NEWER, OLDER, Bootstrap.IDENTITY)


@pytest.mark.parametrize("state", [State.UNPROVISIONED, State.JITP, State.ROTATED])
def test_where_the_bootstrap_identity_is_the_first_anyway_it_gets_no_other_turn(state: State) -> None:
    assert candidates(replace(ACKED, state=state)) == (NEWER, OLDER)


@pytest.mark.parametrize(
    ("problem", "shown"), [("no-reply", False), ("", False), ("refused", True), ("key-store", True)]
)
def test_silence_of_a_cloud_that_answers_once_does_not_lead_to_the_bootstrap_identity(
    problem: str, *, shown: bool
) -> None:
    record = replace(ACKED, answers_once=True, problem=problem)
    assert (Bootstrap.IDENTITY in candidates(record)) is shown


@pytest.mark.parametrize(
    ("problem", "patience"),
    [
        *((code, WHEN_UNUSABLE) for code in sorted(UNUSABLE)),
        *((code, WHEN_TURNED_AWAY) for code in sorted(TURNED_AWAY)),
        ("no-reply", WHEN_SILENT),
        ("a-later-agents-code", WHEN_SILENT),
    ],
)
def test_the_first_turn_of_another_comes_after_as_many_failures_as_the_problem_says_each_further_one_sooner(
    problem: str, patience: tuple[int, int]
) -> None:
    first, further = patience
    record = replace(ACKED, problem=problem)
    assert turn(replace(record, failures=first - 1)) is None
    assert turn(replace(record, failures=first)) == NEWER
    assert turn(replace(record, failures=further - 1, fallbacks=1)) is None
    assert turn(replace(record, failures=further, fallbacks=1)) == OLDER


def test_the_turns_go_round() -> None:
    record = replace(ACKED, problem="refused", failures=99)
    turns = [turn(replace(record, fallbacks=number)) for number in range(4)]
    assert turns == [NEWER, OLDER, Bootstrap.IDENTITY, NEWER]


def test_nobody_else_has_a_turn_without_a_problem_or_without_another_identity() -> None:
    assert turn(replace(ACKED, problem="", failures=99)) is None
    assert turn(replace(ACKED, state=State.JITP, unconfirmed=(), problem="refused", failures=99)) is None
