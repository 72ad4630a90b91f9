"""A device's life in the cloud, lived with a fault at each call, and two requests that take turns at each call.

Both end in AssertionError if ever an invariant of the bench is broken; test_planted.py shows that they would.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

from botocore.exceptions import ClientError, ReadTimeoutError

from cloud.rotation import handler
from cloud.rotation.lifecycle import SETTLE_MS
from cloud.rotation.record import State
from tests.cloud.lambda_bench import Context, a_bench, after_each_call, before_each_call, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from tests.cloud.lambda_bench import Bench

Event: TypeAlias = dict[str, str]
Act: TypeAlias = "Callable[[], object]"
Scene: TypeAlias = "Callable[[Bench], tuple[Event, Event]]"

TURN_S = 60.0
CONTEXT = Context(60_000)
SWEEP = {"event": "sweep"}


class Killed(BaseException):
    """The function was stopped: not an Exception, so nothing in it gets to answer or clean up."""


@dataclass(frozen=True)
class Fault:
    """What happens to a call: it is refused before it took effect, or its answer is lost after it did."""

    error: BaseException
    after: bool


FAULTS = {
    "refused": Fault(ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, "any"), after=False),
    "answer lost": Fault(ReadTimeoutError(endpoint_url="https://aws.invalid"), after=True),
    "stopped": Fault(Killed(), after=True),
}


def story(bench: Bench) -> Iterator[Event]:
    """Tell an onboarding and a renewal as events, among them what is forged and what comes late."""
    vendor = bench.vendor("SN-1")
    yield bench.registered_event(vendor)
    first_request = bench.event("create", "SN-1", vendor, request(1))
    yield first_request
    first = pending(bench)
    yield ack(bench, vendor, first)  # over the wrong certificate
    yield ack(bench, first, first)
    yield first_request  # late
    yield bench.event("create", "SN-1", first, request(2))
    second = pending(bench)
    yield ack(bench, first, second)  # over the wrong certificate
    yield ack(bench, second, second)
    yield ack(bench, first, first)  # late
    bench.now += SETTLE_MS
    yield bench.event("check-in", "SN-1", second, {"request_id": "r-3", "report": {}})


def live(bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Fault, at: int) -> int:
    """Live the story with the fault at call `at` of each event, which is then delivered again; return the faults."""
    faults = 0
    watch = after_each_call if fault.after else before_each_call

    def strike(number: int, _operation: str) -> None:
        nonlocal faults
        if number == at:
            faults += 1
            raise fault.error

    for event in story(bench):
        before = faults
        with watch(monkeypatch, strike):
            try:
                handler.handle(event, CONTEXT)
            except type(fault.error):
                raised = True
            else:
                raised = False
        assert raised == (faults > before), "a failure that Lambda would not see"
        bench.check_never_bricked()
        if raised:
            handler.handle(event, CONTEXT)
        bench.check_settled()
    device = bench.device()
    assert (device.state, device.pending, device.retiring) == (State.ROTATION_COMPLETE, None, ())
    assert device.active is not None
    assert device.active.public_key == bench.key_of(2)
    given = defaultdict(set)
    for answer in answers(bench):
        if "pem" in answer:
            given[answer["request_id"]].add(answer["cert_id"])
    assert {name: len(ids) for name, ids in given.items()} == {"r-1": 1, "r-2": 1}, "two certificates for one key"
    return faults


def live_with_each(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> int:
    """Live the story again and again, until the fault has met every call; return how many it met."""
    met, at = 0, 0
    while True:
        at += 1
        with a_bench(monkeypatch) as bench:
            faults = live(bench, monkeypatch, fault, at)
        if not faults:
            return met
        met += faults


def take_turns(
    monkeypatch: pytest.MonkeyPatch,
    acts: tuple[Act, Act],
    turns: tuple[int, int],
    meanwhile: Callable[[str, int], object] = lambda _who, _call: None,
) -> Counter[str]:
    """Run the first act up to its call `turns[0]`, the second up to its own, then the first to its end, the second.

    `meanwhile` is told of each call before it is made, of "first" or "second" and which of its calls it is, and may
    raise: calls of its own do not count. Return how many calls each made.
    """
    calls: Counter[str] = Counter()
    second_starts, first_resumes, second_resumes = threading.Event(), threading.Event(), threading.Event()
    within = threading.local()

    def hook(_number: int, _operation: str) -> None:
        if getattr(within, "hook", False):
            return
        me = threading.current_thread().name
        calls[me] += 1
        if (me, calls[me]) == ("first", turns[0]):
            second_starts.set()
            assert first_resumes.wait(TURN_S)
        elif (me, calls[me]) == ("second", turns[1]):
            first_resumes.set()
            assert second_resumes.wait(TURN_S)
        within.hook = True
        try:
            meanwhile(me, calls[me])
        finally:
            within.hook = False

    def first() -> None:
        threading.current_thread().name = "first"
        try:
            acts[0]()
        finally:
            second_starts.set()
            second_resumes.set()

    def second() -> None:
        threading.current_thread().name = "second"
        assert second_starts.wait(TURN_S)
        try:
            acts[1]()
        finally:
            first_resumes.set()

    with before_each_call(monkeypatch, hook), ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(first), pool.submit(second)]:
            future.result()
    return calls


def meet_at_each(monkeypatch: pytest.MonkeyPatch, scene: Scene, judge: Callable[[Bench, list[Any]], None]) -> int:
    """Play the scene with every pair of turns; `judge` gets the answers. Return the number of pairs."""
    played = 0
    for first_at in count(1):
        for second_at in count(1):
            with a_bench(monkeypatch) as bench:
                events = scene(bench)
                before = len(answers(bench))
                acts = partial(handler.handle, events[0], CONTEXT), partial(handler.handle, events[1], CONTEXT)
                calls = take_turns(monkeypatch, acts, (first_at, second_at))
                both = answers(bench)[before:]
                assert len(both) == sum(event != SWEEP for event in events), "each device gets its one answer"
                bench.check_settled()
                judge(bench, both)
            played += 1
            if calls["second"] < second_at:
                break
        if calls["first"] < first_at:
            break
    return played


def answers(bench: Bench) -> list[Any]:
    """Return all that the Lambda has published."""
    return [json.loads(payload) for _, payload in bench.published]


def pending(bench: Bench) -> str:
    """Return the id of the pending certificate."""
    held = bench.device().pending
    assert held is not None
    return held.certificate_id


def ack(bench: Bench, principal: str, named: str) -> Event:
    """Return the event of an acknowledgement."""
    return bench.event("ack", "SN-1", principal, {"cert_id": named})
