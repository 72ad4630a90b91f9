"""The control plane is eventually consistent: what was done a moment ago may not be so yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from cloud.rotation.lifecycle import SETTLE_MS
from cloud.rotation.record import State
from tests.cloud.lambda_bench import Bench, before_each_call, made_once, request

if TYPE_CHECKING:
    from collections.abc import Callable


def not_yet(operation: str, error: str, times: int) -> Callable[[int, str], None]:
    """Have an operation fail so many times."""
    left = [times]

    def hook(_number: int, called: str) -> None:
        if called == operation and left[0]:
            left[0] -= 1
            raised: Any = made_once("client", "iot", "lambda").exceptions.from_code(error)
            raise raised({"Error": {"Code": error, "Message": "not yet"}}, operation)

    return hook


def renewed(bench: Bench) -> tuple[str, dict[str, str]]:
    """Bring a device so far that the next event retires its first certificate; return that one and the event."""
    vendor = bench.vendor("SN-1")
    first = bench.create(vendor)["cert_id"]
    bench.ack(first)
    second = bench.create(first, 1)["cert_id"]
    return first, bench.event("ack", "SN-1", second, {"cert_id": second})


@pytest.mark.parametrize("error", ["DeleteConflictException", "CertificateStateException", "InvalidRequestException"])
def test_a_detachment_that_takes_seconds_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    first, event = renewed(bench)
    with before_each_call(monkeypatch, not_yet("DeleteCertificate", error, 3)):
        bench.deliver(event)
    assert bench.status(first) == "gone"
    assert 0 < sum(bench.slept) < 10
    bench.check_settled()


def test_one_that_takes_minutes_is_left_to_the_sweeper(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, event = renewed(bench)
    with (
        before_each_call(monkeypatch, not_yet("DeleteCertificate", "DeleteConflictException", 99)),
        pytest.raises(ClientError),
    ):
        bench.deliver(event)
    assert bench.status(first) == "INACTIVE", "of no use, though it is still there"
    assert bench.policies(first) == set()
    bench.now += SETTLE_MS
    bench.sweep()
    bench.check_settled()


def test_a_thing_that_is_not_there_yet_fails_the_request_and_the_next_one_succeeds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = bench.vendor("SN-1")
    event = bench.event("create", "SN-1", vendor, request(1))
    with (
        before_each_call(monkeypatch, not_yet("AttachThingPrincipal", "ResourceNotFoundException", 1)),
        pytest.raises(ClientError),
    ):
        bench.deliver(event)
    pending = bench.device().pending
    assert pending is not None
    assert bench.deliver(event)[0]["cert_id"] == pending.certificate_id
    bench.check_settled()


def test_the_registered_event_before_its_template_has_finished(bench: Bench) -> None:
    vendor = bench.connect_vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    assert bench.device().state is State.THING_CREATED
    assert bench.status(vendor) == "PENDING_ACTIVATION", "nothing of the template's work is touched"
    bench.provision(vendor, "SN-1")
    bench.ack(bench.create(vendor)["cert_id"])
    bench.check_settled()


def test_the_registered_event_twice(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    once = bench.device()
    bench.deliver(bench.registered_event(vendor))
    assert bench.device() == once
    bench.check_settled()


def test_a_vendor_certificate_that_somebody_deleted_does_not_come_back_to_life(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    bench.ack(bench.create(vendor)["cert_id"])
    bench.iot.delete_certificate(certificateId=vendor)
    assert bench.vendor_again(vendor) == vendor
    assert bench.status(vendor) == "INACTIVE"
    bench.check_settled()
