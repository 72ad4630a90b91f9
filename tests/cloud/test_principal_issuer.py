"""Two stacks with one topic prefix in a region: each hears every device, and answers its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from cloud.rotation import principal_issuer
from cloud.rotation.record import Device
from tests.cloud import pki
from tests.cloud.counting import metric
from tests.cloud.lambda_bench import Bench, before_each_call, register_ca, request

if TYPE_CHECKING:
    from collections.abc import Callable

Patch = pytest.MonkeyPatch
REQUESTS: dict[str, Any] = {
    "create": request(),
    "ack": {"cert_id": "0" * 64, "request_id": "r"},
    "check-in": {"request_id": "r", "report": {}},
}
MALFORMED = b'{"format": "of a later version"}'


def onboarded(bench: Bench) -> str:
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    first = str(bench.create(vendor)["cert_id"])
    bench.ack(first)
    return first


def of_another_stack(bench: Bench, serial: str) -> str:
    """Register a certificate of another stack's CA for a serial, as that stack does; return its id."""
    other = pki.authority("another stack's CA")
    if serial not in bench.all_things():
        bench.iot.create_thing(thingName=serial)
    register_ca("another stack's CA")
    made = bench.iot.register_certificate(
        certificatePem=other.sign_vendor([serial]), caCertificatePem=other.pem, status="ACTIVE"
    )
    bench.iot.attach_policy(policyName="device", target=made["certificateArn"])
    bench.iot.attach_thing_principal(thingName=serial, principal=made["certificateArn"])
    return made["certificateId"]


def everything(bench: Bench) -> object:
    """Return the records, and the state of each certificate, whosesoever."""
    listed = bench.iot.list_certificates()["certificates"]
    told = [(one["certificateId"], one["status"], bench.policies(one["certificateId"])) for one in listed]
    return list(bench.devices.scan()), told, bench.all_things()


@pytest.mark.parametrize("serial", ["SN-1", "SN-9"], ids=["a serial of both", "a serial of theirs"])
@pytest.mark.parametrize("aboard", [True, False])
@pytest.mark.parametrize("kind", REQUESTS)
def test_a_device_of_another_stack_gets_no_answer_and_is_counted(
    bench: Bench, capsys: pytest.CaptureFixture[str], serial: str, kind: str, *, aboard: bool
) -> None:
    if aboard:
        onboarded(bench)
    stranger = of_another_stack(bench, serial)
    before = everything(bench)
    capsys.readouterr()
    for payload in (REQUESTS[kind], MALFORMED):
        assert bench.deliver(bench.event(kind, serial, stranger, payload)) == []
    out = capsys.readouterr().out
    assert (metric(out, "Foreign"), metric(out, "Refused"), metric(out, "Malformed")) == (2, 0, 0)
    assert everything(bench) == before


@pytest.mark.parametrize("operation", ["GetItem", "DescribeCertificate"])
def test_a_failure_here_is_not_told_to_a_device_of_another_stack(
    bench: Bench, monkeypatch: Patch, operation: str
) -> None:
    stranger = of_another_stack(bench, "SN-1")
    with before_each_call(monkeypatch, throttled(operation)), pytest.raises(ClientError):
        bench.deliver(bench.event("create", "SN-1", stranger, request()))
    assert bench.published == []


def throttled(operation: str) -> Callable[[int, str], None]:
    def hook(_number: int, called: str) -> None:
        if called == operation:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, operation)

    return hook


def test_what_the_table_knows_is_answered_without_asking_the_registry(bench: Bench, monkeypatch: Patch) -> None:
    first = onboarded(bench)
    vendor = str(bench.device().vendor_certificate_id)
    pending = bench.create(first, 1)["cert_id"]
    bench.create(first, 2)  # the one before is being retired now
    bench.now += 1
    asked: list[str] = []
    with before_each_call(monkeypatch, lambda _number, operation: asked.append(operation)):
        for principal in (vendor, pending):
            answer = bench.ask("check-in", "SN-1", principal, REQUESTS["check-in"])
            assert answer["error"]["code"] == "wrong-principal"
            asked = asked[: asked.index("Publish")]  # what comes after it finishes retirements
    assert "DescribeCertificate" not in asked


@pytest.mark.parametrize("lost", [True, False], ids=["its record is lost", "its record is older"])
def test_a_device_of_ours_that_the_table_does_not_know_is_answered(bench: Bench, *, lost: bool) -> None:
    first = onboarded(bench)
    older = bench.table.get_item(Key={"serial": "SN-1"})["Item"]
    second = bench.create(first, 2)["cert_id"]
    bench.ack(second)
    if lost:
        bench.table.delete_item(Key={"serial": "SN-1"})
    else:
        bench.table.put_item(Item=older)
    answer = bench.ask("check-in", "SN-1", second, REQUESTS["check-in"])
    assert answer["error"]["code"] == ("not-allowed" if lost else "wrong-principal")


def test_a_fleet_of_another_stack_does_not_use_up_the_registry(bench: Bench, monkeypatch: Patch) -> None:
    stranger = of_another_stack(bench, "SN-9")
    event = bench.event("check-in", "SN-9", stranger, REQUESTS["check-in"])
    asked: list[str] = []
    with before_each_call(monkeypatch, lambda _number, operation: asked.append(operation)):
        for _ in range(100):
            bench.now += principal_issuer.EVERY_MS // 10
            assert bench.deliver(event) == []
    assert asked.count("DescribeCertificate") <= principal_issuer.AT_ONCE + 10


def test_a_clock_that_goes_back_gives_no_look_away_and_takes_none() -> None:
    looks = principal_issuer.Looks()
    assert [looks.take(10_000) for _ in range(principal_issuer.AT_ONCE + 1)] == [True] * principal_issuer.AT_ONCE + [
        False
    ]
    assert not looks.take(0)
    assert looks.take(principal_issuer.EVERY_MS)


# ---- planted bugs ---------------------------------------------------------------------------------------------------


def answers_everybody(patch: Patch) -> None:
    """Refuse whoever is not in the record, as if there were one stack in the world."""
    patch.setattr(principal_issuer, "foreign", lambda *_, **__: None)


def believes_its_own_table_only(patch: Patch) -> None:
    """Take whoever is not in the record for a stranger."""
    patch.setattr(
        principal_issuer,
        "foreign",
        lambda world, _, serial, principal, **__: _stranger(world.devices.get(serial), principal),
    )


def _stranger(device: Device | None, principal: str) -> str | None:
    return None if device is not None and device.knows(principal) else "unknown"


def asks_each_time(patch: Patch) -> None:
    """Ask the registry about everybody."""
    patch.setattr(principal_issuer.Looks, "take", lambda *_: True)


def test_bug_planted_everybody_is_answered(
    bench: Bench, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers_everybody(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_device_of_another_stack_gets_no_answer_and_is_counted(bench, capsys, "SN-1", "ack", aboard=True)


def test_bug_planted_a_table_that_lost_a_record_is_believed(bench: Bench, monkeypatch: Patch) -> None:
    believes_its_own_table_only(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_device_of_ours_that_the_table_does_not_know_is_answered(bench, lost=True)


def test_bug_planted_the_registry_is_asked_each_time(bench: Bench, monkeypatch: Patch) -> None:
    asks_each_time(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_fleet_of_another_stack_does_not_use_up_the_registry(bench, monkeypatch)
