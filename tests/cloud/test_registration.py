"""What a repeated request does: it reads what is there, does what is missing, and names the right CA."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from cloud.rotation.issuer import Issuer
from cloud.rotation.record import State
from cloud.rotation.registry import Registry
from tests.cloud import pki
from tests.cloud.lambda_bench import Bench, before_each_call, change_ca, made_once, request
from tests.cloud.scenarios import Killed

if TYPE_CHECKING:
    from collections.abc import Callable

Patch = pytest.MonkeyPatch
CHANGES = {"RegisterCertificate", "AttachPolicy", "AttachThingPrincipal"}
LOOKS = Counter({"GetItem": 3, "DescribeCertificate": 1, "ListAttachedPolicies": 1, "ListPrincipalThings": 1})


def onboarding(bench: Bench) -> str:
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    return vendor


def calls(bench: Bench, patch: Patch, principal: str) -> tuple[dict[str, Any], Counter[str]]:
    """Ask once more for the same key; return the answer, and how often each call was made for it."""
    made: Counter[str] = Counter()
    with before_each_call(patch, lambda _number, operation: made.update([operation])):
        answers = bench.deliver(bench.event("create", "SN-1", principal, request()))
    (answer,) = answers
    return answer, made


def missing_nothing(_bench: Bench, _arn: str) -> None:
    """Leave all as it is."""


def missing_a_policy(bench: Bench, arn: str) -> None:
    bench.iot.detach_policy(policyName="application", target=arn)


def missing_the_thing(bench: Bench, arn: str) -> None:
    bench.iot.detach_thing_principal(thingName="SN-1", principal=arn)


def missing_altogether(bench: Bench, arn: str) -> None:
    missing_the_thing(bench, arn)
    for policy in ("device", "application"):
        bench.iot.detach_policy(policyName=policy, target=arn)
    named = arn.rsplit("/", 1)[1]
    bench.iot.update_certificate(certificateId=named, newStatus="INACTIVE")
    bench.iot.delete_certificate(certificateId=named)


@pytest.mark.parametrize(
    ("lose", "done"),
    [
        (missing_nothing, {}),
        (missing_a_policy, {"AttachPolicy": 1}),
        (missing_the_thing, {"AttachThingPrincipal": 1}),
        (missing_altogether, {"RegisterCertificate": 1, "AttachPolicy": 2, "AttachThingPrincipal": 1}),
    ],
)
def test_a_repeated_request_does_what_is_missing_and_no_more(
    bench: Bench, monkeypatch: Patch, lose: Callable[[Bench, str], None], done: dict[str, int]
) -> None:
    vendor = onboarding(bench)
    first = bench.create(vendor)
    lose(bench, bench.described(first["cert_id"])["certificateArn"])
    again, made = calls(bench, monkeypatch, vendor)
    assert again == first
    assert {name: made[name] for name in made if name in CHANGES} == done
    bench.check_settled()


@pytest.mark.parametrize("proven", [False, True], ids=["pending", "active"])
def test_a_repeated_request_costs_three_looks(bench: Bench, monkeypatch: Patch, *, proven: bool) -> None:
    principal = onboarding(bench)
    first = bench.create(principal)["cert_id"]
    if proven:
        bench.ack(first)
        principal = first
        bench.now += 3600_000
        bench.sweep()
    _, made = calls(bench, monkeypatch, principal)
    assert made == LOOKS + Counter({"Publish": 1})


def registers_again(patch: Patch) -> None:
    """Do everything again, whatever is there."""
    patch.setattr(
        Registry, "complete", lambda self, found, thing, policies: self._attach(found.arn, policies, (thing,))
    )


def looks_for_nothing(patch: Patch) -> None:
    """Take what is attached for granted."""
    patch.setattr(Registry, "complete", lambda *_: None)


@pytest.mark.parametrize(
    ("plant", "lose", "done"),
    [
        (registers_again, missing_nothing, {}),
        (looks_for_nothing, missing_a_policy, {"AttachPolicy": 1}),
    ],
)
def test_the_planted_bug_is_caught(
    bench: Bench,
    monkeypatch: Patch,
    plant: Callable[[Patch], None],
    lose: Callable[[Bench, str], None],
    done: dict[str, int],
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_repeated_request_does_what_is_missing_and_no_more(bench, monkeypatch, lose, done)


# ---- the CA is another one now --------------------------------------------------------------------------------------


def test_after_a_change_of_ca_a_registered_certificate_is_handed_out_with_its_own(
    bench: Bench, monkeypatch: Patch
) -> None:
    vendor = onboarding(bench)
    first = bench.create(vendor)
    change_ca(bench, "manufacturer CA 2")
    again, made = calls(bench, monkeypatch, vendor)
    assert again == first
    assert again["chain"] == pki.authority("manufacturer CA").pem
    assert "RegisterCertificate" not in made
    bench.ack(first["cert_id"])
    second = bench.create(first["cert_id"], 2)
    assert second["chain"] == pki.authority("manufacturer CA 2").pem
    pki.load(second["pem"]).verify_directly_issued_by(pki.authority("manufacturer CA 2").certificate)
    assert bench.status(second["cert_id"]) == "ACTIVE"


def test_with_its_ca_gone_from_the_registry_it_is_handed_out_without(bench: Bench, monkeypatch: Patch) -> None:
    vendor = onboarding(bench)
    first = bench.create(vendor)
    of = bench.described(first["cert_id"])["caCertificateId"]
    change_ca(bench, "manufacturer CA 2")
    bench.iot.update_ca_certificate(certificateId=of, newStatus="INACTIVE")
    bench.iot.delete_ca_certificate(certificateId=of)
    again, _ = calls(bench, monkeypatch, vendor)
    assert again == {name: value for name, value in first.items() if name != "chain"}


def never_registered(bench: Bench, patch: Patch) -> tuple[str, str]:
    """Have a run killed before it registers, then change the CA; return the vendor certificate and the pending one."""
    vendor = onboarding(bench)

    def stop(_number: int, operation: str) -> None:
        if operation == "RegisterCertificate":
            raise Killed

    with before_each_call(patch, stop), pytest.raises(Killed):
        bench.deliver(bench.event("create", "SN-1", vendor, request()))
    pending = bench.device().pending
    assert pending is not None
    change_ca(bench, "manufacturer CA 2")
    return vendor, pending.certificate_id


def test_one_that_was_never_registered_gives_way_to_one_of_the_present_ca(bench: Bench, monkeypatch: Patch) -> None:
    vendor, before = never_registered(bench, monkeypatch)
    answer, made = calls(bench, monkeypatch, vendor)
    assert answer["cert_id"] != before
    assert answer["chain"] == pki.authority("manufacturer CA 2").pem
    assert made["RegisterCertificate"] == 1
    assert bench.status(before) == "gone"
    assert bench.device().state is State.CERT_ISSUED
    bench.ack(answer["cert_id"])
    bench.check_never_bricked()


def test_bug_planted_the_ca_of_the_stack_is_taken_for_the_signer(bench: Bench, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Issuer, "signed", lambda _self, _pem: True)
    vendor, _ = never_registered(bench, monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="and signed by"):
        calls(bench, monkeypatch, vendor)


def attachments(bench: Bench, patch: Patch) -> list[dict[str, str]]:
    """Onboard a device as far as its first certificate; return the requests that attached a thing to it."""
    made: list[dict[str, str]] = []
    vendor = onboarding(bench)
    client = made_once("client", "iot", "lambda")
    attach = client.attach_thing_principal

    def note(**asked: str) -> None:
        made.append(asked)
        attach(**asked)

    with patch.context() as of_lambda:
        of_lambda.setattr(client, "attach_thing_principal", note)
        named = bench.create(vendor)["cert_id"]
    assert bench.things(named) == ["SN-1"]
    return made


def test_a_certificate_is_attached_to_its_thing_exclusively(bench: Bench, monkeypatch: Patch) -> None:
    (asked,) = attachments(bench, monkeypatch)
    assert asked["thingPrincipalType"] == "EXCLUSIVE_THING"


def test_if_aws_refuses_that_the_thing_is_attached_all_the_same(bench: Bench, monkeypatch: Patch) -> None:
    client: Any = made_once("client", "iot", "lambda")
    honest = client.attach_thing_principal

    def refuse(**asked: str) -> None:
        if "thingPrincipalType" in asked:
            error = {"Error": {"Code": "InvalidRequestException", "Message": "it has a thing already"}}
            raise client.exceptions.InvalidRequestException(error, "AttachThingPrincipal")
        honest(**asked)

    monkeypatch.setattr(client, "attach_thing_principal", refuse)
    vendor = onboarding(bench)
    bench.ack(bench.create(vendor)["cert_id"])
    bench.check_settled()


def test_an_older_sdk_does_not_know_the_parameter_and_is_not_given_it(bench: Bench, monkeypatch: Patch) -> None:
    shape: Any = (
        made_once("client", "iot", "lambda").meta.service_model.operation_model("AttachThingPrincipal").input_shape
    )
    monkeypatch.delitem(shape.members, "thingPrincipalType")
    (asked,) = attachments(bench, monkeypatch)
    assert set(asked) == {"thingName", "principal"}
