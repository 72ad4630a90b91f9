"""The Lambda from its entry to what it leaves behind, with the events the stack's rules send."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from cloud.common import operations
from cloud.rotation import steps
from cloud.rotation.lifecycle import SETTLE_MS, Keep, Save
from cloud.rotation.record import State
from cloud.rotation.registry import ORIGIN, Registry
from tests.cloud import pki
from tests.cloud.lambda_bench import Bench, before_each_call, request

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_MS = int(timedelta(days=1).total_seconds() * 1000)


def code(answer: dict[str, Any]) -> str:
    return str(answer["error"]["code"])


def metrics(captured: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in captured.splitlines()]
    return [line for line in lines if "_aws" in line]


def onboarded(bench: Bench, serial: str = "SN-1") -> tuple[str, str]:
    """Return the ids of the vendor certificate and of the first certificate, active."""
    vendor = bench.vendor(serial)
    bench.deliver(bench.registered_event(vendor))
    first = str(bench.create(vendor, serial=serial)["cert_id"])
    bench.ack(first, serial)
    return vendor, first


def test_a_device_comes_aboard_rotates_and_rotates_again(bench: Bench) -> None:
    vendor = bench.connect_vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    assert bench.device().state is State.THING_CREATED
    bench.provision(vendor, "SN-1")
    answer = bench.create(vendor, 1)
    assert answer["request_id"] == "r-1"
    assert answer["time"] == bench.now
    assert answer["chain"] == pki.authority("manufacturer CA").pem
    assert pki.certificate_id(answer["pem"]) == answer["cert_id"]
    assert bench.device().state is State.CERT_ISSUED
    bench.check_settled()
    first = answer["cert_id"]
    assert bench.ack(first) == {"cert_id": first, "request_id": "r-ack", "time": bench.now}
    assert bench.device().state is State.ROTATION_COMPLETE
    bench.check_settled()
    second = bench.create(first, 2)["cert_id"]
    assert bench.device().state is State.CERT_ISSUED
    bench.check_settled()
    bench.ack(second)
    assert bench.device().state is State.ROTATION_COMPLETE
    assert bench.status(first) == "gone"
    bench.check_settled()


def test_the_same_key_gets_the_same_certificate_pending_and_active(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    first = bench.create(vendor)
    bench.now += 1000
    again = bench.create(vendor)
    assert (again["pem"], again["cert_id"]) == (first["pem"], first["cert_id"])
    bench.ack(first["cert_id"])
    assert bench.create(first["cert_id"])["pem"] == first["pem"]
    assert bench.device().state is State.ROTATION_COMPLETE
    bench.check_settled()


def test_another_key_supersedes_the_unproven_certificate_and_only_that(bench: Bench) -> None:
    _, active = onboarded(bench)
    unproven = bench.create(active, 1)["cert_id"]
    proven = bench.create(active, 2)["cert_id"]
    assert bench.status(unproven) == "gone"
    assert bench.status(active) == "ACTIVE"
    bench.check_settled()
    assert code(bench.ack(unproven)) == "wrong-principal"
    bench.ack(proven)
    bench.check_settled()


@pytest.mark.parametrize("age", [61, 89, 91], ids=["in its last third", "about to expire", "expired"])
def test_an_old_pending_certificate_is_not_handed_out_again(bench: Bench, age: int) -> None:
    vendor = bench.vendor("SN-1")
    old = bench.create(vendor)["cert_id"]
    bench.now += age * DAY_MS
    new = bench.create(vendor)["cert_id"]
    assert new != old
    assert bench.status(old) == "gone"
    bench.check_settled()


def test_an_old_active_certificate_is_not_handed_out_again_even_for_its_own_key(bench: Bench) -> None:
    _, active = onboarded(bench)
    bench.now += 61 * DAY_MS
    new = bench.create(active)["cert_id"]
    assert new != active
    bench.check_never_bricked()
    bench.ack(new)
    bench.check_settled()


def test_an_acknowledgement_over_any_other_certificate_is_refused(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    pending = bench.create(vendor)["cert_id"]
    for principal, named in [(vendor, pending), (vendor, vendor), (pending, vendor)]:
        assert code(bench.ask("ack", "SN-1", principal, {"cert_id": named})) == "wrong-principal"
    assert bench.device().state is State.CERT_ISSUED
    bench.check_settled()


def test_an_acknowledgement_that_comes_twice_is_answered_twice(bench: Bench) -> None:
    _, first = onboarded(bench)
    version = bench.device().version
    assert bench.ack(first)["cert_id"] == first
    assert bench.device().version == version


@pytest.mark.parametrize("principal", ["", "AROA123:session", "x" * 64, "None"])
def test_what_did_not_come_over_a_certificate_is_refused(bench: Bench, principal: str) -> None:
    for kind, payload in [
        ("create", request()),
        ("ack", {"cert_id": "0" * 64}),
        ("check-in", {"request_id": "r", "report": {}}),
    ]:
        assert code(bench.ask(kind, "SN-1", principal, payload)) == "wrong-principal"


def test_a_vendor_certificate_cannot_take_another_serial(bench: Bench) -> None:
    bench.allow("SN-2")
    bench.allow("SN-3")
    mine, _ = bench.vendor("SN-1"), bench.vendor("SN-2")
    bench.deliver(bench.registered_event(mine))
    assert code(bench.create(mine, serial="SN-2")) == "wrong-principal"
    assert code(bench.create(mine, serial="SN-3")) == "wrong-principal"
    assert code(bench.create(mine, serial="SN-4")) == "not-allowed"
    assert bench.status(mine) == "ACTIVE", "a known device's certificate is never quarantined for what it asked"
    assert bench.issued() == {}
    assert bench.devices.get("SN-4") is None


def test_a_certificate_in_service_cannot_take_another_serial(bench: Bench) -> None:
    bench.allow("SN-2")
    _, mine = onboarded(bench)
    for serial in ("SN-2", "SN-9"):
        assert "error" in bench.create(mine, serial=serial)
    assert bench.status(mine) == "ACTIVE"


def test_the_vendor_certificate_asks_only_the_first_time(bench: Bench) -> None:
    vendor, active = onboarded(bench)
    assert code(bench.create(vendor, 5)) == "wrong-principal"
    pending = bench.create(active, 6)["cert_id"]
    assert code(bench.create(pending, 7)) == "wrong-principal"
    bench.check_settled()


def test_a_request_for_another_serial_is_refused(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    answer = bench.ask("create", "SN-1", vendor, {"csr": pki.csr(["SN-2"]), "request_id": "r-1"})
    assert code(answer) == "bad-csr"
    assert answer["request_id"] == "r-1"
    assert bench.issued() == {}


def test_a_lost_or_late_registered_event_does_not_matter(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    first = bench.create(vendor)["cert_id"]
    assert bench.device().vendor_certificate_id == vendor
    version = bench.device().version
    bench.deliver(bench.registered_event(vendor))
    assert bench.device().version == version
    bench.ack(first)
    bench.deliver(bench.registered_event(vendor))
    assert bench.device().state is State.ROTATION_COMPLETE
    bench.check_settled()


def test_a_registered_event_for_a_certificate_that_is_gone_is_nothing(bench: Bench) -> None:
    assert bench.deliver(bench.registered_event("0" * 64)) == []


def test_an_event_about_another_cas_certificate_is_nothing(bench: Bench) -> None:
    _, active = onboarded(bench)
    bench.deliver(bench.registered_event(active))
    bench.check_settled()


def test_an_unknown_serial_is_quarantined(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    stranger = bench.vendor("SN-9")
    bench.deliver(bench.registered_event(stranger))
    assert bench.status(stranger) == "INACTIVE"
    assert bench.policies(stranger) == set()
    assert "SN-9" not in bench.all_things()
    record = bench.device("SN-9")
    assert (record.state, record.quarantined) == (State.QUARANTINED, (stranger,))
    counted = metrics(capsys.readouterr().out)
    assert [line["Quarantined"] for line in counted] == [1]
    assert counted[0]["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"] == "Quarantined"
    bench.deliver(bench.registered_event(stranger))
    assert metrics(capsys.readouterr().out) == [], "one certificate is one alarm"


@pytest.mark.parametrize("attributes", [{}, {ORIGIN: "another-stack"}])
def test_a_thing_that_this_stack_did_not_make_survives_a_quarantine(bench: Bench, attributes: dict[str, str]) -> None:
    """The provisioning template attaches a stranger's certificate to a thing that exists already, under its name."""
    bench.iot.create_thing(thingName="SN-9", attributePayload={"attributes": attributes})
    stranger = bench.vendor("SN-9")
    assert bench.things(stranger) == ["SN-9"]
    bench.deliver(bench.registered_event(stranger))
    assert bench.status(stranger) == "INACTIVE"
    assert bench.things(stranger) == []
    assert bench.iot.describe_thing(thingName="SN-9")["attributes"] == attributes


def test_bug_planted_the_things_origin_is_not_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def delete_thing(registry: Registry, thing: str, _arn: str, _stack: str) -> bool:
        registry._iot.delete_thing(thingName=thing)
        return True

    monkeypatch.setattr(Registry, "delete_thing", delete_thing)
    bench.iot.create_thing(thingName="SN-9")
    bench.deliver(bench.registered_event(bench.vendor("SN-9")))
    assert "SN-9" not in bench.all_things(), "so the test above fails"


def test_an_unknown_serial_that_gets_to_ask_is_told_and_quarantined(bench: Bench) -> None:
    stranger = bench.vendor("SN-9")
    assert code(bench.create(stranger, serial="SN-9")) == "not-allowed"
    assert bench.status(stranger) == "INACTIVE"
    assert "SN-9" not in bench.all_things()
    assert code(bench.ack(stranger, "SN-9")) == "not-allowed"


def test_a_quarantined_serial_can_be_allowed_and_comes_aboard(bench: Bench) -> None:
    stranger = bench.vendor("SN-9")
    bench.deliver(bench.registered_event(stranger))
    office = bench.office()
    assert isinstance(operations.allow(office, "SN-9"), Save)
    assert isinstance(operations.allow(office, "SN-9"), Keep)
    assert bench.status(stranger) == "gone"
    onboarded(bench, "SN-9")
    bench.check_settled("SN-9")


def test_a_second_vendor_certificate_for_a_known_serial_is_quarantined_without_harm(bench: Bench) -> None:
    _, active = onboarded(bench)
    impostor = bench.connect_vendor("SN-1")
    arn = bench.described(impostor)["certificateArn"]
    bench.iot.attach_policy(policyName="bootstrap", target=arn)
    bench.iot.attach_thing_principal(thingName="SN-1", principal=arn)
    bench.iot.update_certificate(certificateId=impostor, newStatus="ACTIVE")
    before = bench.device()
    bench.deliver(bench.registered_event(impostor))
    assert bench.status(impostor) == "INACTIVE"
    assert bench.policies(impostor) == set()
    assert bench.things(impostor) == []
    assert "SN-1" in bench.all_things()
    after = bench.device()
    assert after == replace(before, version=after.version, quarantined=(impostor,))
    assert bench.status(active) == "ACTIVE"
    bench.check_settled()


@pytest.mark.parametrize("names", [[], ["SN-1", "SN-1"], ["SN 1"], ["../SN-1"]])
def test_a_vendor_certificate_without_one_valid_name_is_quarantined(bench: Bench, names: list[str]) -> None:
    nameless = bench.connect_vendor(*names)
    bench.iot.update_certificate(certificateId=nameless, newStatus="ACTIVE")
    bench.deliver(bench.registered_event(nameless))
    assert bench.status(nameless) == "INACTIVE"
    assert bench.device().state is State.ALLOWED


def test_quarantine_waits_for_the_provisioning_template(bench: Bench) -> None:
    stranger = bench.connect_vendor("SN-9")

    def finishes_in_the_second_pause() -> None:
        if len(bench.slept) == 2:
            bench.provision(stranger, "SN-9")

    bench.on_sleep = finishes_in_the_second_pause
    bench.deliver(bench.registered_event(stranger))
    assert bench.status(stranger) == "INACTIVE"
    assert bench.policies(stranger) == set()
    assert "SN-9" not in bench.all_things()


def test_quarantine_runs_once_more_when_the_template_has_not_finished(bench: Bench) -> None:
    stranger = bench.connect_vendor("SN-9")
    event = bench.registered_event(stranger)
    with pytest.raises(steps.StillPendingError):
        bench.deliver(event)
    assert sum(bench.slept) <= 10
    assert bench.status(stranger) == "INACTIVE"
    bench.provision(stranger, "SN-9")  # the template finishes after all, and undoes the quarantine
    bench.deliver(event)
    assert bench.status(stranger) == "INACTIVE"
    assert bench.policies(stranger) == set()
    assert "SN-9" not in bench.all_things()


def test_a_revoked_device_gets_nothing(bench: Bench) -> None:
    vendor, active = onboarded(bench)
    bench.table.update_item(
        Key={"serial": "SN-1"},
        UpdateExpression="SET #s = :s",
        ExpressionAttributeNames={"#s": "state"},
        ExpressionAttributeValues={":s": "REVOKED"},
    )
    assert code(bench.create(active, 1)) == "not-allowed"
    assert code(bench.ack(active)) == "not-allowed"
    assert code(bench.ask("check-in", "SN-1", active, {"request_id": "r", "report": {}})) == "not-allowed"
    impostor = bench.connect_vendor("SN-1")
    bench.iot.update_certificate(certificateId=impostor, newStatus="ACTIVE")
    bench.deliver(bench.registered_event(impostor))
    assert bench.status(impostor) == "INACTIVE"
    assert bench.status(vendor) == "INACTIVE"


def test_a_check_in_is_stored_and_answered(bench: Bench) -> None:
    _, active = onboarded(bench)
    report = {"state": "acked", "clock": 1.5, "last_error": None}
    answer = bench.ask("check-in", "SN-1", active, {"request_id": "r-3", "report": report})
    assert answer == {"request_id": "r-3", "time": bench.now}
    device = bench.device()
    assert json.loads(device.report or "") == report
    assert device.last_seen == bench.now


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ({"start": 1, "end": 2, "reason": "new CA"}, {"start": 1, "end": 2, "reason": "new CA"}),
        ({"start": 2, "end": 1, "reason": "x"}, None),
        ({"start": 1}, None),
        ("soon", None),
    ],
)
def test_a_check_in_tells_the_operators_advice_and_keeps_it(bench: Bench, stored: object, told: object) -> None:
    _, active = onboarded(bench)
    bench.table.update_item(
        Key={"serial": "SN-1"},
        UpdateExpression="SET renew = :r",
        ExpressionAttributeValues={":r": stored},  # type: ignore[dict-item] # anything an operator may write
    )
    for _ in range(2):
        answer = bench.ask("check-in", "SN-1", active, {"request_id": "r-3", "report": {}})
        assert answer.get("renew") == told


def test_a_check_in_over_another_certificate_is_refused(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    pending = bench.create(vendor)["cert_id"]
    for principal in (vendor, pending):
        answer = bench.ask("check-in", "SN-1", principal, {"request_id": "r", "report": {}})
        assert code(answer) == "wrong-principal"


def test_what_cannot_be_parsed_is_answered_and_counted(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    vendor, _ = onboarded(bench)
    for kind in ("create", "ack", "check-in"):
        assert code(bench.ask(kind, "SN-1", vendor, b"\xff")) == "bad-request"
    assert sum(line.get("Malformed", 0) for line in metrics(capsys.readouterr().out)) == 3


def test_an_empty_payload_is_answered(bench: Bench) -> None:
    event = bench.event("ack", "SN-1", bench.vendor("SN-1"), b"")
    del event["data"]
    assert code(bench.deliver(event)[0]) == "bad-request"


def test_a_topic_without_a_serial_is_counted(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    event = bench.event("create", "SN-1", "0" * 64, {})
    assert bench.deliver(event | {"topic": "cert-rotation/create-man-cert//rqst"}) == []
    assert [line["Malformed"] for line in metrics(capsys.readouterr().out)] == [1]


def test_a_rule_that_sends_the_wrong_event_is_our_own_fault(bench: Bench) -> None:
    with pytest.raises(ValueError, match="sent create as ack"):
        bench.deliver(bench.event("create", "SN-1", "0" * 64, request()) | {"event": "ack"})


def test_nothing_secret_is_logged(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    onboarded(bench)
    assert "-----BEGIN" not in capsys.readouterr().out


def failing(operation: str, error: str) -> Callable[[int, str], None]:
    def hook(_number: int, called: str) -> None:
        if called == operation:
            raise ClientError({"Error": {"Code": error, "Message": "no"}}, operation)

    return hook


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("GetParameter", "AccessDeniedException"),
        ("RegisterCertificate", "ThrottlingException"),
        ("AttachPolicy", "UnauthorizedException"),
        ("AttachThingPrincipal", "ServiceUnavailableException"),
        ("TransactWriteItems", "ProvisionedThroughputExceededException"),
        ("GetItem", "InternalServerError"),
    ],
)
def test_when_aws_fails_the_device_is_told_when_to_come_back_and_lambda_sees_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, operation: str, error: str
) -> None:
    vendor = bench.vendor("SN-1")
    event = bench.event("create", "SN-1", vendor, request(3))
    before = len(bench.published)
    with before_each_call(monkeypatch, failing(operation, error)), pytest.raises(ClientError):
        bench.deliver(event)
    answers = [json.loads(payload) for _, payload in bench.published[before:]]
    assert [code(answer) for answer in answers] == ["try-later"]
    assert answers[0]["error"]["retry_after_s"] > 0
    assert answers[0]["request_id"] == "r-3"
    assert "cert_id" in bench.deliver(event)[0]
    bench.check_settled()


def test_a_record_that_others_keep_writing_is_a_conflict(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = bench.vendor("SN-1")

    def overtaken(_number: int, called: str) -> None:
        if called == "TransactWriteItems":
            bench.table.update_item(
                Key={"serial": "SN-1"},
                UpdateExpression="ADD #version :one",
                ExpressionAttributeNames={"#version": "version"},
                ExpressionAttributeValues={":one": 1},
            )

    with before_each_call(monkeypatch, overtaken):
        answer = bench.create(vendor)
    assert code(answer) == "conflict"
    assert answer["error"]["retry_after_s"] > 0
    assert bench.issued() == {}


def test_a_retirement_that_failed_is_finished_by_the_next_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = onboarded(bench)
    second = bench.create(first, 1)["cert_id"]
    event = bench.event("ack", "SN-1", second, {"cert_id": second})
    with before_each_call(monkeypatch, failing("DeleteCertificate", "ThrottlingException")), pytest.raises(ClientError):
        bench.deliver(event)
    assert bench.device().state is State.ROTATION_COMPLETE
    assert bench.status(first) == "INACTIVE"
    bench.ask("check-in", "SN-1", second, {"request_id": "r", "report": {}})
    assert bench.status(first) == "gone"
    bench.check_settled()


def test_the_list_of_the_retired_is_empty_when_it_has_settled(bench: Bench) -> None:
    vendor, active = onboarded(bench)
    assert [retiring.certificate_id for retiring in bench.device().retiring] == [vendor]
    bench.now += SETTLE_MS
    bench.ask("check-in", "SN-1", active, {"request_id": "r", "report": {}})
    assert bench.device().retiring == ()
    bench.check_settled()


def test_a_certificate_an_operator_deactivated_stays_so(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    pending = bench.create(vendor)["cert_id"]
    bench.iot.update_certificate(certificateId=pending, newStatus="INACTIVE")
    assert bench.create(vendor)["cert_id"] == pending
    assert bench.status(pending) == "INACTIVE"
