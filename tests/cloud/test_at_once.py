"""Two messages of one device at once, taking turns at each of their calls."""

from typing import Any

import pytest

from cloud.rotation.agenda import DAY_MS
from cloud.rotation.record import State
from tests.cloud.lambda_bench import Bench, request
from tests.cloud.scenarios import SWEEP, Event, ack, meet_at_each, pending


def two_creates(bench: Bench, keys: tuple[int, int]) -> tuple[Event, Event]:
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    first, second = (bench.event("create", "SN-1", vendor, request(number)) for number in keys)
    return first, second


def one_for_both(bench: Bench, both: list[Any]) -> None:
    assert [answer.get("cert_id") for answer in both] == [pending(bench)] * 2
    assert list(bench.issued().values()) == ["ACTIVE"]


def the_last_word_counts(bench: Bench, both: list[Any]) -> None:
    given = {answer.get("cert_id") for answer in both}
    assert pending(bench) in given
    assert set(bench.issued()) <= given


def one_of_them(_bench: Bench, both: list[Any]) -> None:
    assert sorted("error" in answer for answer in both) == [False, True]


def test_two_requests_for_one_key_get_one_certificate(aws: pytest.MonkeyPatch) -> None:
    assert meet_at_each(aws, lambda bench: two_creates(bench, (1, 1)), one_for_both) > 60


def test_of_two_requests_for_two_keys_one_certificate_stays(aws: pytest.MonkeyPatch) -> None:
    assert meet_at_each(aws, lambda bench: two_creates(bench, (1, 2)), the_last_word_counts) > 60


def test_an_acknowledgement_and_a_request_for_another_key_do_not_both_succeed(aws: pytest.MonkeyPatch) -> None:
    def scene(bench: Bench) -> tuple[Event, Event]:
        create, other = two_creates(bench, (1, 2))
        bench.deliver(create)
        return ack(bench, pending(bench), pending(bench)), other

    assert meet_at_each(aws, scene, one_of_them) > 20


def late_proof(bench: Bench) -> tuple[Event, Event]:
    """Let a device acknowledge at the very moment when the sweeper gives its certificate up."""
    create, _ = two_creates(bench, (1, 1))
    bench.deliver(create)
    bench.now += DAY_MS
    return ack(bench, pending(bench), pending(bench)), SWEEP


def all_or_nothing(bench: Bench, answers: list[Any]) -> None:
    device = bench.device()
    state = State.THING_CREATED if "error" in answers[0] else State.ROTATION_COMPLETE
    assert (device.state, device.pending) == (state, None)
    assert list(bench.issued().values()) == (["ACTIVE"] if device.active else [])


def test_a_certificate_is_proven_or_given_up_but_not_both(aws: pytest.MonkeyPatch) -> None:
    assert meet_at_each(aws, late_proof, all_or_nothing) > 20
