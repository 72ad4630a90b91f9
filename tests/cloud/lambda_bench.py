"""A whole cloud on moto, the Lambda's own entry in front of it, and what must always be true of it.

moto stands in for AWS IoT, DynamoDB and SSM. It does not run provisioning templates, so `provision` does what the
stack's template would.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.client import BaseClient
from cryptography.exceptions import InvalidSignature
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iot.models import FakeCertificate
from moto.iotdata.models import iotdata_backends

from cloud.common import operations
from cloud.common.operations import OperatorContext
from cloud.rotation import csr, devices, handler
from cloud.rotation.lifecycle import Save
from cloud.rotation.registry import ORIGIN, Registry
from tests.cloud import pki, role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource, Table
    from mypy_boto3_iot import IoTClient

    from cloud.rotation.record import Device

PREFIX = "cert-rotation"
request_handler = handler.request_handler  # as it is when no bench has put its own clock and waits into it
OPERATIONS = {"create": "create-man-cert", "ack": "ack-man-cert", "check-in": "check-in"}


class Bench:
    """The cloud of one stack. `now` is what the Lambda's clock says (ms); `slept` what it has waited (s).

    `proven` are the certificates that a message has come over: nothing else can show that they work. What `patch`
    changes is undone when the cloud goes.
    """

    patch: pytest.MonkeyPatch

    def __init__(self, iot: IoTClient, table: Table, records: devices.Devices, vendor_ca_id: str, now: int) -> None:
        self.iot = iot
        self.table = table
        self.devices = records
        self.vendor_ca_id = vendor_ca_id
        self.now = now
        self.slept: list[float] = []
        self.proven: set[str] = set()
        self.pems: list[str] = []
        self.on_sleep: Callable[[], object] = lambda: None

    # --- the world around the Lambda ---

    def connect_vendor(self, *common_names: str) -> str:
        """Do what AWS IoT does at the first connection of a vendor certificate; return the certificate's id."""
        return self._connect(pki.authority("vendor CA").sign_vendor(list(common_names)))

    def _connect(self, pem: str) -> str:
        ca = pki.authority("vendor CA")
        self.pems.append(pem)
        answer = self.iot.register_certificate(certificatePem=pem, caCertificatePem=ca.pem, status="PENDING_ACTIVATION")
        return answer["certificateId"]

    def provision(self, certificate_id: str, thing: str) -> None:
        """Do what the provisioning template does: a thing that exists already keeps its attributes."""
        arn = self.described(certificate_id)["certificateArn"]
        if thing not in self.all_things():
            self.iot.create_thing(thingName=thing, attributePayload={"attributes": {ORIGIN: "test"}})
        self.iot.attach_policy(policyName="bootstrap", target=arn)
        self.iot.attach_thing_principal(thingName=thing, principal=arn)
        self.iot.update_certificate(certificateId=certificate_id, newStatus="ACTIVE")

    def vendor(self, serial: str) -> str:
        """Bring a device as far as its first accepted connection; return its vendor certificate's id."""
        certificate_id = self.connect_vendor(serial)
        self.provision(certificate_id, serial)
        return certificate_id

    def vendor_again(self, certificate_id: str, serial: str = "SN-1") -> str:
        """Have a vendor certificate that was deleted connect once more, as the same certificate."""
        pem = next(pem for pem in self.pems if pki.certificate_id(pem) == certificate_id)
        assert self._connect(pem) == certificate_id
        self.provision(certificate_id, serial)
        self.deliver(self.registered_event(certificate_id))
        return certificate_id

    def sleep(self, seconds: float) -> None:
        """Note that the Lambda waits, and let the world go on meanwhile."""
        self.slept.append(seconds)
        self.on_sleep()

    # --- messages ---

    def event(self, kind: str, serial: str, principal: str, payload: object) -> dict[str, str]:
        """Return what the topic rule hands to the Lambda."""
        self.proven.add(principal)
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return {
            "data": base64.b64encode(data).decode(),
            "topic": f"{PREFIX}/{OPERATIONS[kind]}/{serial}/rqst",
            "principal": principal,
            "client_id": f"{serial}-agent",
            "event": kind,
        }

    def registered_event(self, certificate_id: str) -> dict[str, str]:
        """Return what the rule on AWS's own event hands to the Lambda."""
        told = {
            "certificateId": certificate_id,
            "caCertificateId": self.vendor_ca_id,
            "timestamp": self.now,
            "certificateStatus": "PENDING_ACTIVATION",
            "awsAccountId": DEFAULT_ACCOUNT_ID,
            "certificateRegistrationTimestamp": None,
        }
        topic = f"$aws/events/certificates/registered/{self.vendor_ca_id}"
        data = base64.b64encode(json.dumps(told).encode()).decode()
        return {"data": data, "topic": topic, "client_id": "n/a", "event": "registered"}

    def deliver(self, event: dict[str, str]) -> list[dict[str, Any]]:
        """Run the Lambda on an event; return the payloads it published, in order."""
        before = len(self.published)
        handler.handle(event, Context(60_000))
        return [json.loads(payload) for _, payload in self.published[before:]]

    def sweep(self, remaining_ms: int = 60_000) -> None:
        """Run the Lambda as its schedule does."""
        handler.handle({"event": "sweep"}, Context(remaining_ms))

    def office(self) -> OperatorContext:
        """Return what an operator's orders touch."""
        registry = Registry(self.iot, boto3.client("iot-data"), self.sleep)
        return OperatorContext(self.devices, registry, lambda: self.now, "arn:aws:iam::123456789012:user/operator")

    def allow(self, serial: str) -> None:
        """Put a serial on the allow-list."""
        assert isinstance(operations.allow(self.office(), serial), Save)

    def ask(self, kind: str, serial: str, principal: str, payload: object) -> dict[str, Any]:
        """Deliver a request; return its one answer, which must go to the topic of that request."""
        before = len(self.published)
        answers = self.deliver(self.event(kind, serial, principal, payload))
        assert len(answers) == 1, answers
        assert self.published[before][0] == f"{PREFIX}/{OPERATIONS[kind]}/{serial}/rspn"
        return answers[0]

    def create(self, principal: str, number: int = 0, serial: str = "SN-1") -> dict[str, Any]:
        """Ask for a certificate for the test key of that number."""
        return self.ask("create", serial, principal, request(number, serial))

    def ack(self, certificate_id: str, serial: str = "SN-1") -> dict[str, Any]:
        """Acknowledge a certificate over itself."""
        return self.ask("ack", serial, certificate_id, {"cert_id": certificate_id, "request_id": "r-ack"})

    @property
    def published(self) -> list[tuple[str, bytes]]:
        """Everything the Lambda has published."""
        return list(iotdata_backends[DEFAULT_ACCOUNT_ID]["eu-west-1"].published_payloads)

    # --- what is there ---

    def device(self, serial: str = "SN-1") -> Device:
        """Return the record."""
        found = self.devices.get(serial)
        assert found is not None
        return found

    def key_of(self, number: int) -> str:
        """Return the public key's fingerprint of the test key of that number."""
        return csr.check(request(number)["csr"], "SN-1").fingerprint

    def described(self, certificate_id: str) -> dict[str, Any]:
        """Return the registry's description of a certificate."""
        return dict(self.iot.describe_certificate(certificateId=certificate_id)["certificateDescription"])

    def status(self, certificate_id: str) -> str:
        """Return the certificate's status, "gone" if it is not registered."""
        try:
            return str(self.described(certificate_id)["status"])
        except self.iot.exceptions.ResourceNotFoundException:
            return "gone"

    def policies(self, certificate_id: str) -> set[str]:
        """Return the names of the policies attached to a certificate."""
        arn = self.described(certificate_id)["certificateArn"]
        return {policy["policyName"] for policy in self.iot.list_attached_policies(target=arn)["policies"]}

    def things(self, certificate_id: str) -> list[str]:
        """Return the things of a certificate."""
        arn = self.described(certificate_id)["certificateArn"]
        return list(self.iot.list_principal_things(principal=arn)["things"])

    def all_things(self) -> set[str]:
        """Return the names of all things."""
        return {thing["thingName"] for thing in self.iot.list_things()["things"]}

    def issued(self) -> dict[str, str]:
        """Return the status of every registered certificate of the manufacturer CA, by id."""
        ours = pki.authority("manufacturer CA").certificate.subject
        found = {}
        for listed in self.iot.list_certificates()["certificates"]:
            pem = str(self.described(listed["certificateId"])["certificatePem"])
            if pki.load(pem).issuer == ours:
                found[listed["certificateId"]] = str(listed["status"])
        return found

    # --- what must be true ---

    def check_never_bricked(self, serial: str = "SN-1") -> None:
        """At every instant the certificate the device can fall back on is accepted, and may do its work."""
        device = self.device(serial)
        present = device.present_certificate_id
        if present is None:
            return
        assert self.status(present) == "ACTIVE", "the present certificate does not work"
        expected = {"device", "application"} if device.active else {"bootstrap"}
        assert self.policies(present) == expected, "the present certificate may not do its work"
        assert device.active is None or present in self.proven, "active, but nothing ever came over it"

    def check_settled(self, serial: str = "SN-1") -> None:
        """Once every message is answered, the registry holds what the record says and nothing else."""
        self.check_never_bricked(serial)
        device = self.device(serial)
        held = [certificate for certificate in (device.active, device.pending) if certificate]
        assert self.issued() == {certificate.certificate_id: "ACTIVE" for certificate in held}, "orphans, or missing"
        assert max(Counter(certificate.public_key for certificate in held).values(), default=1) == 1, "two of one key"
        for certificate in held:
            assert self.policies(certificate.certificate_id) == {"device", "application"}
            assert self.things(certificate.certificate_id) == [serial]
        if device.vendor_certificate_id and device.active:
            vendor = device.vendor_certificate_id
            assert self.status(vendor) == "INACTIVE", "the vendor certificate must stay, and stay INACTIVE"
            assert self.policies(vendor) == set()
            assert self.things(vendor) == []


def request(number: int = 0, serial: str = "SN-1") -> dict[str, str]:
    """Return a create request for the test key of that number."""
    return {"csr": pki.csr([serial], number=number), "request_id": f"r-{number}"}


@dataclass(frozen=True)
class Context:
    """What Lambda tells of a run."""

    remaining_ms: int

    def get_remaining_time_in_millis(self) -> int:
        """Return it."""
        return self.remaining_ms


def create_tables(resource: DynamoDBServiceResource) -> tuple[Table, Table]:
    """Make the two tables as the template does."""
    table = resource.create_table(
        TableName="devices",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "serial", "KeyType": "HASH"}],
        AttributeDefinitions=[
            {"AttributeName": "serial", "AttributeType": "S"},
            {"AttributeName": "agenda", "AttributeType": "S"},
            {"AttributeName": "look_at", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": devices.INDEX,
                "KeySchema": [
                    {"AttributeName": "agenda", "KeyType": "HASH"},
                    {"AttributeName": "look_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )
    history = resource.create_table(
        TableName="history",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "serial", "KeyType": "HASH"}, {"AttributeName": "line", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "serial", "AttributeType": "S"},
            {"AttributeName": "line", "AttributeType": "S"},
        ],
    )
    return table, history


@cache
def made_once(kind: str, service: str, owner: str = "world") -> Any:  # noqa: ANN401 - one of boto3's many
    """Return a client or resource, the same for every cloud: to make them takes most of the time of a cloud.

    Those of the owner "lambda" are held to the Lambda's role.
    """
    made = getattr(boto3.Session(), kind)(service)
    if service == "iot":
        made.meta.events.register("before-parameter-build.iot.RegisterCertificate", name_the_signer)
    if owner == "lambda":
        role.watch(made if kind == "client" else made.meta.client)
    return made


def name_the_ca(patch: pytest.MonkeyPatch) -> None:
    """Have moto say in a description which CA a certificate is of, as AWS does."""
    honest = FakeCertificate.to_description_dict

    def described(self: FakeCertificate) -> dict[str, Any]:
        return {**honest(self), "caCertificateId": self.ca_certificate_id}

    patch.setattr(FakeCertificate, "to_description_dict", described)


def name_the_signer(params: dict[str, Any], **_rest: object) -> None:
    """Fail a test whose registration names another CA than the one that signed: AWS refuses that, moto does not."""
    certificate, ca = pki.load(params["certificatePem"]), pki.load(params["caCertificatePem"])
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, InvalidSignature):
        pytest.fail(f"registered with {ca.subject}, and signed by {certificate.issuer}")  # not an Exception


@contextmanager
def a_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Set a cloud up, with SN-1 on the allow-list."""
    with mock_aws(config={"iot": {"use_valid_cert": True}}), monkeypatch.context() as patch:
        name_the_ca(patch)
        patch.setattr(boto3, "client", lambda service, **_: made_once("client", service))
        patch.setattr(boto3, "resource", lambda service, **_: made_once("resource", service))
        iot, resource = boto3.client("iot"), boto3.resource("dynamodb")
        table, history = create_tables(resource)
        for policy in ("bootstrap", "device", "application"):
            iot.create_policy(policyName=policy, policyDocument='{"Version":"2012-10-17","Statement":[]}')
        ids = [register_ca(title) for title in ("vendor CA", "manufacturer CA")]
        boto3.client("ssm").put_parameter(
            Name="/test/key", Value=pki.authority("manufacturer CA").key_pem, Type="SecureString"
        )
        environment = {
            "STACK_NAME": "test",
            "TABLE_NAME": table.name,
            "HISTORY_TABLE_NAME": history.name,
            "TOPIC_PREFIX": PREFIX,
            "DEVICE_POLICY_NAME": "device",
            "APPLICATION_POLICY_NAME": "application",
            "VENDOR_CA_ID": ids[0],
            "MANUFACTURER_CA_ID": ids[1],
            "MANUFACTURER_CA_CERTIFICATE": pki.authority("manufacturer CA").pem,
            "MANUFACTURER_KEY_PARAMETER": "/test/key",
            "MANUFACTURER_KEY_ARN": "",
            "CERTIFICATE_LIFETIME_SECONDS": str(90 * 24 * 3600),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        made = Bench(iot, table, devices.Devices(table, history), ids[0], time.time_ns() // 1_000_000)
        made.patch = patch
        wire(made)
        made.allow("SN-1")
        yield made


def register_ca(title: str) -> str:
    """Register a CA of that name; return its id."""
    pem = pki.authority(title).pem
    iot: IoTClient = made_once("client", "iot")
    return iot.register_ca_certificate(caCertificate=pem, certificateMode="SNI_ONLY", setAsActive=True)["certificateId"]


def change_ca(bench: Bench, title: str) -> None:
    """Deploy the stack with another manufacturer CA; the one before stays registered."""
    bench.patch.setenv("MANUFACTURER_CA_ID", register_ca(title))
    bench.patch.setenv("MANUFACTURER_CA_CERTIFICATE", pki.authority(title).pem)
    key = pki.authority(title).key_pem
    boto3.client("ssm").put_parameter(Name="/test/key", Value=key, Type="SecureString", Overwrite=True)
    wire(bench)


def wire(bench: Bench) -> None:
    """Start the Lambda afresh, with what its environment says now."""
    with bench.patch.context() as of_lambda:
        of_lambda.setattr(boto3, "client", lambda service, **_: made_once("client", service, "lambda"))
        of_lambda.setattr(boto3, "resource", lambda service, **_: made_once("resource", service, "lambda"))
        request_handler.cache_clear()
        wired = request_handler()
        clients = boto3.client("iot"), boto3.client("iot-data")
    registry = Registry(*clients, bench.sleep)
    desk = replace(wired, world=replace(wired.world, registry=registry, clock=lambda: bench.now))
    bench.patch.setattr(handler, "request_handler", lambda: desk)


@contextmanager
def before_each_call(monkeypatch: pytest.MonkeyPatch, hook: Callable[[int, str], object]) -> Iterator[None]:
    """Call `hook` with number (from 1) and operation before each AWS call inside; what it raises stops the call."""
    original: Any = BaseClient._make_api_call  # type: ignore[attr-defined] # no stub knows this private method
    count = 0

    def counted(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - any answer
        nonlocal count
        count += 1
        hook(count, operation)
        return original(client, operation, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", counted)
        yield


@contextmanager
def after_each_call(monkeypatch: pytest.MonkeyPatch, hook: Callable[[int, str], object]) -> Iterator[None]:
    """Call `hook` likewise after each call: what it raises loses the answer, not the call."""
    original: Any = BaseClient._make_api_call  # type: ignore[attr-defined] # no stub knows this private method
    count = 0

    def counted(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - any answer
        nonlocal count
        count += 1
        mine = count
        answer = original(client, operation, parameters)
        hook(mine, operation)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", counted)
        yield
