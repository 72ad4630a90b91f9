"""destroy leaves nothing: every resource is listed before deploy and after destroy, also after Ctrl-C at every call."""

from __future__ import annotations

import dataclasses
import re
import time
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.client import BaseClient

from cloud.common import certificates
from cloud.common.aws_session import connect
from cloud.common.errors import INTERRUPTED
from cloud.rotation.devices import Devices
from cloud.rotation.record import NEW, Certificate, Device, Retiring, State
from cloud.rotation.registry import ORIGIN
from cloud.setup import authorities, ca_key
from cloud.setup.__main__ import main
from cloud.setup.ssm_parameters import Names, Parameters
from cloud.setup.teardown import Teardown
from tests.local.test_setup import inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloud.common.aws_session import Cloud
    from tests.local.local_stack import Stage

pytestmark = pytest.mark.local_cloud

STACK = "to-destroy"
NAMES = Names(STACK)
CODE = ("LambdaRuntime", "LambdaArchitecture")
SETTLED = time.time_ns() // 1_000_000


@dataclasses.dataclass(frozen=True)
class Account:
    """A local cloud in which the stack can be made again in half a second: CloudFormation without SAM."""

    stage: Stage
    here: Cloud
    template: str
    parameters: dict[str, str]
    artifacts: dict[str, bytes]
    bucket: str

    def client(self, service: str) -> Any:  # noqa: ANN401 - of any service
        """Return a client."""
        return self.here.session.client(service)  # type: ignore[call-overload]  # the name is not a literal

    def make(self) -> None:
        """Do what deploy does, and have devices in every state; the key is in KMS."""
        for key, body in self.artifacts.items():
            self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)
        parameters = Parameters(self.client("ssm"))
        kept = ca_key.in_kms(self.here, NAMES, "ECC_NIST_P256")
        manufacturer, _ = authorities.manufacturer_ca(parameters, STACK, kept)
        keys = authorities.VendorKeys(self.stage.cloud.directory / "setup" / STACK)
        vendor, _ = authorities.vendor_ca(parameters, STACK, keys)
        cloudformation = self.client("cloudformation")
        given = self.parameters | kept.parameters()
        cloudformation.create_stack(
            StackName=STACK,
            TemplateBody=self.template,
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        cloudformation.get_waiter("stack_create_complete").wait(StackName=STACK)
        self._people(vendor, manufacturer, authorities.vendor_signer(parameters, STACK, keys), kept.find())

    def outputs(self) -> dict[str, str]:
        """Return the stack's outputs."""
        (found,) = self.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}

    def _people(
        self, vendor: str, manufacturer: str, vendor_signer: certificates.Signer, key: certificates.PrivateKey | None
    ) -> None:
        """Make a device in service, a revoked one, one whose record is lost, and one that is retiring."""
        assert key is not None
        signers = {"bootstrap": vendor_signer, "device": certificates.Signer(manufacturer, key)}
        outputs = self.outputs()
        resource = self.here.session.resource("dynamodb")
        records = Devices(resource.Table(outputs["TableName"]), resource.Table(outputs["HistoryTableName"]))

        def register(serial: str, kind: str, status: str = "ACTIVE", thing: str | None = None) -> str:
            leaf = certificates.device_certificate(
                certificates.new_key(), serial, signers[kind], timedelta(days=1), certificates.now()
            )
            ca = vendor if kind == "bootstrap" else manufacturer
            iot = self.client("iot")
            made = iot.register_certificate(certificatePem=leaf, caCertificatePem=ca, status=status)
            if thing:
                iot.attach_policy(policyName=f"{STACK}-{kind}", target=made["certificateArn"])
                iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
            return str(made["certificateId"])

        def issued(certificate_id: str) -> Certificate:
            return Certificate(certificate_id, "f" * 64, "pem", SETTLED, SETTLED)

        for serial in ("SN-1", "SN-revoked", "SN-lost", "SN-retiring"):
            attributes = {"attributes": {ORIGIN: STACK}}
            self.client("iot").create_thing(thingName=serial, attributePayload=attributes)
        worker, former = register("SN-1", "device", thing="SN-1"), register("SN-1", "bootstrap", "INACTIVE")
        serving = Device("SN-1", State.ROTATION_COMPLETE, NEW, vendor_certificate_id=former, active=issued(worker))
        retiring = register("SN-retiring", "device", thing="SN-retiring")
        leaving = Device("SN-retiring", State.ROTATION_COMPLETE, NEW, retiring=(Retiring(retiring, SETTLED),))
        register("SN-lost", "bootstrap", thing="SN-lost")
        for device in (serving, leaving, Device("SN-revoked", State.REVOKED, NEW)):
            records.save(device, SETTLED)

    def destroy(self) -> int:
        """Run the command in this process; return its exit status."""
        return main(["destroy", "--stack", STACK, "--yes", "--local", str(self.stage.cloud.directory)])


@pytest.fixture(scope="module")
def account(stage: Stage) -> Account:
    """Deploy once as a user does, note what SAM made of it, and destroy it again."""
    stage.setup("deploy", "--stack", STACK, "--ca-key", "kms")
    here = connect(None, stage.cloud.directory)
    session: boto3.Session = here.session
    template = session.client("cloudformation").get_template(StackName=STACK, TemplateStage="Original")["TemplateBody"]
    (found,) = session.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    values = {one["ParameterKey"]: one["ParameterValue"] for one in found["Parameters"]}
    parameters = {
        "VendorCaCertificate": NAMES.vendor_certificate,
        "ManufacturerCaCertificate": NAMES.manufacturer_certificate,
    } | {name: values[name] for name in CODE}
    s3 = session.client("s3")
    (bucket,) = (one["Name"] for one in s3.list_buckets()["Buckets"])
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=STACK)["Contents"]]
    artifacts = {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
    stage.setup("destroy", "--stack", STACK, "--yes")
    # Nothing is to happen by itself while the account is looked at.
    quiet = str(template).replace("rate(5 minutes)", "rate(1 days)")
    # In a request a template may have 51,200 bytes (CloudFormation quotas); SAM gives it by way of its bucket.
    quiet = re.sub(r"^( +)AlarmDescription: .*\n(?:\1 +.*\n)*", "", quiet, flags=re.MULTILINE)
    return Account(stage, here, quiet, parameters, artifacts, bucket)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have botocore's waiters ask the local cloud again at once, and each client made once."""
    monkeypatch.setattr("botocore.waiter.time.sleep", lambda _seconds, sleep=time.sleep: sleep(0.02))
    client, resource = boto3.Session.client, boto3.Session.resource  # each takes botocore 50 ms to make
    made: dict[tuple[object, str], Any] = {}

    def once(make: Callable[..., Any]) -> Callable[..., Any]:
        def of_session(session: boto3.Session, service: str, **options: Any) -> Any:  # noqa: ANN401 - as boto3's own
            if (make, service) not in made:
                made[make, service] = make(session, service, **options)
            return made[make, service]

        return of_session

    monkeypatch.setattr(boto3.Session, "client", once(client))
    monkeypatch.setattr(boto3.Session, "resource", once(resource))


@contextmanager
def before_each_call(monkeypatch: pytest.MonkeyPatch, hook: Callable[[int, str], object]) -> Iterator[None]:
    """Call `hook` with number (from 1) and operation before each AWS call inside; what it raises stops the call."""
    original: Any = BaseClient._make_api_call  # type: ignore[attr-defined]  # no stub knows this private method
    count = 0

    def hooked(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - any answer
        nonlocal count
        count += 1
        hook(count, operation)
        return original(client, operation, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", hooked)
        yield


@pytest.fixture
def empty(account: Account) -> dict[str, set[str]]:
    """Return what is in the cloud before the stack is there; with what others own, under names of our devices too."""
    iot = account.client("iot")
    if "SN-of-another" not in {one["thingName"] for one in iot.list_things()["things"]}:
        iot.create_thing(thingName="SN-of-another")
        iot.create_thing(thingName="SN-of-stack-2", attributePayload={"attributes": {ORIGIN: f"{STACK}-2"}})
        iot.create_keys_and_certificate(setAsActive=True)
    return inventory(account.stage)


def moments(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Destroy the stack, and yield operations and their numbers: before which calls Ctrl-C is to be pressed.

    A call that only reads finds what the next call that writes finds; so of those, the first of each operation.
    """
    called: Counter[str] = Counter()
    with before_each_call(monkeypatch, lambda _number, operation: called.update([operation])):
        assert account.destroy() == 0
    for operation, times in called.items():
        reads = operation.startswith(("Describe", "Get", "List", "Scan"))
        yield from ((operation, number) for number in range(1, 2 if reads else times + 1))


def test_ctrl_c_at_any_call_and_the_same_command_again_leave_nothing(
    account: Account, empty: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account.make()
    there = inventory(account.stage)
    assert [kind for kind in there if there[kind] == empty[kind]] == ["buckets"], "each kind is to be removed"
    stops = list(moments(account, monkeypatch))
    assert inventory(account.stage) == empty
    deleting = {"DeleteCertificate", "DeleteThing", "DeleteStack", "DeleteTable", "DeleteObject", "DeleteParameter"}
    assert deleting | {"UpdateCACertificate", "ScheduleKeyDeletion", "DeleteAlias"} <= {name for name, _ in stops}
    for stop in stops:
        account.make()
        called: Counter[str] = Counter()

        def press(_number: int, operation: str, called: Counter[str] = called, stop: tuple[str, int] = stop) -> None:
            called.update([operation])
            if (operation, called[operation]) == stop:
                raise KeyboardInterrupt

        with before_each_call(monkeypatch, press):
            assert account.destroy() == INTERRUPTED, stop
        assert "interrupted; run the same command again" in capsys.readouterr().err
        assert account.destroy() == 0, (stop, capsys.readouterr().err)
        assert inventory(account.stage) == empty, stop
    assert account.destroy() == 0
    assert "was not there" in capsys.readouterr().out


def test_bug_planted_things_are_found_only_through_certificates(
    account: Account, empty: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    account.make()
    iot = account.client("iot")

    def attached(_work: Teardown) -> list[str]:
        listed = [one["thingName"] for one in iot.list_things()["things"]]
        return [name for name in listed if iot.list_thing_principals(thingName=name)["principals"]]

    with monkeypatch.context() as patch:
        patch.setattr(Teardown, "_things", attached)
        account.destroy()
    left = inventory(account.stage)["things"] - empty["things"]
    assert "SN-revoked" in left, "so the test above fails"
    for thing in left:
        iot.delete_thing(thingName=thing)


def but_the_log(account: Account) -> dict[str, set[str]]:
    """Return the inventory without the Lambda's log: a run that a device has started may outlive the stack."""
    return inventory(account.stage) | {"logs": set()}


def connects(account: Account, identity: tuple[Path, Path]) -> Callable[[int, str], None]:
    """Have a device connect with its vendor certificate whenever the stack is about to be deleted."""

    def hook(_number: int, operation: str) -> None:
        if operation == "DeleteStack":
            account.stage.connect(*identity, "SN-5-agent")

    return hook


@pytest.mark.parametrize("planted", [False, True])
def test_a_device_that_connects_meanwhile_is_not_registered_again(
    account: Account, empty: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, planted: bool
) -> None:
    """AWS: "When a CA certificate is INACTIVE, it can't register new device certificates" (DG: deactivate-ca-cert)."""
    account.make()
    keys = authorities.VendorKeys(account.stage.cloud.directory / "setup" / STACK)
    signer = authorities.vendor_signer(Parameters(account.client("ssm")), STACK, keys)
    key = certificates.new_key()
    leaf = certificates.device_certificate(key, "SN-5", signer, timedelta(days=1), certificates.now())
    identity = tmp_path / "certificate.pem", tmp_path / "key.pem"
    identity[0].write_text(leaf + signer.certificate)
    identity[1].write_text(key)
    seen: set[str] = set()
    device = connects(account, identity)

    def hook(number: int, operation: str) -> None:
        device(number, operation)
        if operation == "DeleteStack":
            listed = account.client("iot").list_certificates
            with monkeypatch.context() as plain:
                plain.undo()
                seen.update(one["certificateId"] for one in listed()["certificates"])

    with monkeypatch.context() as patch, before_each_call(monkeypatch, hook):
        if planted:
            patch.setattr(Teardown, "_deactivate", lambda *_: None)
        account.destroy()
    assert (certificates.certificate_id(leaf) in seen) == planted
    if planted:
        account.destroy()
    assert but_the_log(account) == empty | {"logs": set()}


def test_what_a_person_attached_to_our_policies_and_things_is_kept_and_named(
    account: Account, empty: dict[str, set[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    account.make()
    iot = account.client("iot")
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_policy(policyName=f"{STACK}-bootstrap", target=made["certificateArn"])
    iot.attach_thing_principal(thingName="SN-1", principal=made["certificateArn"])
    assert account.destroy() == 1
    said = capsys.readouterr().err
    assert "thing SN-1: a certificate that is not of this stack is attached to it" in said
    iot.detach_thing_principal(thingName="SN-1", principal=made["certificateArn"])
    assert account.destroy() == 0
    assert inventory(account.stage)["certificates"] - empty["certificates"] == {made["certificateId"]}
    iot.update_certificate(certificateId=made["certificateId"], newStatus="INACTIVE")
    iot.delete_certificate(certificateId=made["certificateId"])
    assert but_the_log(account) == empty | {"logs": set()}


def test_a_ca_that_a_deleted_stack_has_left_is_recognised_by_its_certificate(
    account: Account, empty: dict[str, set[str]]
) -> None:
    keys = authorities.VendorKeys(account.stage.cloud.directory / "setup" / STACK)
    pem, _ = authorities.vendor_ca(Parameters(account.client("ssm")), STACK, keys)
    other = certificates.load(certificates.new_key(), "another CA")
    iot = account.client("iot")
    ours, theirs = (
        iot.register_ca_certificate(caCertificate=one, certificateMode="SNI_ONLY", setAsActive=True)["certificateId"]
        for one in (pem, certificates.ca_certificate(other, "another", certificates.now()))
    )
    assert account.destroy() == 0
    left = {one["certificateId"] for one in iot.list_ca_certificates()["certificates"]}
    assert ours not in left
    assert theirs in left
    iot.update_ca_certificate(certificateId=theirs, newStatus="INACTIVE")
    iot.delete_ca_certificate(certificateId=theirs)
    assert but_the_log(account) == empty | {"logs": set()}
