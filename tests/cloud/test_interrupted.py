"""The Lambda stopped at each of its calls, and two of it at once: the same message again always ends in one place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pytest import MonkeyPatch  # noqa: PT013 - only its name, for annotations

from cloud.rotation import lifecycle, steps
from cloud.rotation.record import Certificate, Device
from cloud.rotation.registry import Registry
from tests.cloud.bench import Bench, a_bench, after_each_call, before_each_call, request


@pytest.fixture
def aws(aws_environment: None, monkeypatch: MonkeyPatch) -> MonkeyPatch:  # noqa: ARG001 - needed, not used
    """Give the means to change things, in an environment that reaches no real account."""
    return monkeypatch


class Killed(BaseException):
    """The function was stopped: not an Exception, so nothing in it gets to answer or clean up."""


def story(bench: Bench) -> list[Callable[[], object]]:
    """Tell an onboarding and a renewal as deliveries, each of which Lambda may repeat."""
    vendor = bench.vendor("SN-1")

    def pending() -> str:
        held = bench.device().pending or bench.device().active
        assert held is not None
        return held.certificate_id

    def requester() -> str:
        # Who asks for the second certificate is whoever was active before it: found in the record, also on repetition.
        active = bench.device().active
        assert active is not None
        return active.certificate_id

    def send(kind: str, principal: Callable[[], str], payload: Callable[[], object]) -> Callable[[], object]:
        return lambda: bench.deliver(bench.event(kind, "SN-1", principal(), payload()))

    return [
        lambda: bench.deliver(bench.registered_event(vendor)),
        send("create", lambda: vendor, lambda: request(1)),
        send("ack", pending, lambda: {"cert_id": pending()}),
        send("create", requester, lambda: request(2)),
        send("ack", pending, lambda: {"cert_id": pending()}),
    ]


def live(bench: Bench, monkeypatch: MonkeyPatch, at: int) -> bool:
    """Live the story with the function stopped after its call number `at`, then deliver again; say whether it was."""
    calls = 0
    stopped = False
    for deliver in story(bench):
        offset = calls

        def hook(number: int, _operation: str, offset: int = offset) -> None:
            nonlocal calls
            calls = offset + number
            if calls == at:
                raise Killed

        with after_each_call(monkeypatch, hook):
            try:
                deliver()
            except Killed:
                stopped = True
        bench.check_never_bricked()
        if stopped and calls == at:
            deliver()
            calls += 1  # never stop here again
        bench.check_never_bricked()
    deliver()  # whatever a stopped retirement left is finished by the next message
    bench.check_settled()
    device = bench.device()
    assert device.active is not None
    assert device.pending is None
    assert device.active.public_key == bench.key_of(2)
    return stopped


def test_stopped_after_any_call_and_delivered_again_it_converges(aws: MonkeyPatch) -> None:
    at = 0
    while True:
        at += 1
        with a_bench(aws) as bench:
            if not live(bench, aws, at):
                break
    assert at > 40, "a whole life makes more calls than this"


def interleaved(bench: Bench, monkeypatch: MonkeyPatch, at: int, other_key: int) -> tuple[bool, list[Any]]:
    """Run a whole second create in the middle of a first one, before its call number `at`."""
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    met = False

    def hook(number: int, _operation: str) -> None:
        nonlocal met
        if number == at and not met:
            met = True
            answers.extend(bench.deliver(bench.event("create", "SN-1", vendor, request(other_key))))

    answers: list[Any] = []
    with before_each_call(monkeypatch, hook):
        answers.extend(bench.deliver(bench.event("create", "SN-1", vendor, request(1))))
    return met, answers


@pytest.mark.parametrize("other_key", [1, 2], ids=["same key", "another key"])
def test_two_requests_at_once_leave_one_pending_certificate_and_no_orphan(other_key: int, aws: MonkeyPatch) -> None:
    at = 0
    met = True
    while met:
        at += 1
        with a_bench(aws) as bench:
            met, answers = interleaved(bench, aws, at, other_key)
            pending = bench.device().pending
            assert pending is not None
            assert pending.certificate_id in [answer.get("cert_id") for answer in answers]
            if other_key == 1:
                assert {answer.get("cert_id") for answer in answers} == {pending.certificate_id}
            again = bench.create(str(bench.device().vendor_certificate_id), other_key)
            bench.ack(again["cert_id"])
            bench.check_settled()
    assert at > 5


# ---- planted bugs: each must be caught by what is above ------------------------------------------------------------


def planted_retirement_at_issue(monkeypatch: MonkeyPatch) -> None:
    """Retire the previous certificate when the next is issued, before that is proven."""
    honest = lifecycle.with_pending

    def with_pending(device: Device, certificate: Certificate, now: int) -> Device:
        retiring = lifecycle._to_retire(device, device.present_certificate_id, now)
        return replace(honest(device, certificate, now), retiring=retiring)

    monkeypatch.setattr(lifecycle, "with_pending", with_pending)


def planted_registration_before_the_record(monkeypatch: MonkeyPatch) -> None:
    """Register a certificate before the table knows of it."""
    honest = lifecycle.with_pending
    desk: list[steps.World] = []
    create = steps.create

    def remember(world: steps.World, *arguments: str) -> Any:  # noqa: ANN401 - as the step's own
        desk[:] = [world]
        return create(world, *arguments)

    def with_pending(device: Device, certificate: Certificate, now: int) -> Device:
        world = desk[0]
        named = certificate.certificate_id
        world.registry.establish(certificate.pem, world.issuer.ca_pem, named, device.serial, world.policies)
        return honest(device, certificate, now)

    monkeypatch.setattr(steps, "create", remember)
    monkeypatch.setattr(lifecycle, "with_pending", with_pending)


def planted_deletion_of_the_vendor_certificate(monkeypatch: MonkeyPatch) -> None:
    """Delete a vendor certificate, so that it can register itself again."""
    monkeypatch.setattr(Device, "deletable", lambda _self, _certificate_id: True)


def planted_deafness_to_things_done_already(monkeypatch: MonkeyPatch) -> None:
    """Never retire anything."""
    monkeypatch.setattr(Registry, "disable", lambda _self, _certificate_id: None)


@pytest.mark.parametrize(
    "plant",
    [
        planted_retirement_at_issue,
        planted_registration_before_the_record,
        planted_deletion_of_the_vendor_certificate,
        planted_deafness_to_things_done_already,
    ],
)
def test_a_planted_bug_is_caught(plant: Callable[[MonkeyPatch], None], aws: MonkeyPatch) -> None:
    plant(aws)
    caught = None
    for at in range(1, 60):
        try:
            with a_bench(aws) as bench:
                live(bench, aws, at)
        except Exception as fault:  # noqa: BLE001 - whichever way it shows
            caught = fault
            break
    assert caught is not None
