"""cloud/setup.sh from its first word to its last, on the local cloud."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cloud.common import certificates
from cloud.setup.stack import SAM_STACK
from tests.local.local_stack import SETUP, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local.local_stack import Stage

pytestmark = pytest.mark.local_cloud

STACK = "of-a-test"
WHICH = ("--stack", STACK)
SERIAL = "SN-1"


def inventory(stage: Stage) -> dict[str, set[str]]:
    """Return all there is in the cloud, by kind; not SAM's own stack with its bucket, which all SAM stacks share.

    A key in KMS that is on its way out counts as gone: KMS deletes no key at once.
    """
    where = stage.here.endpoint_url
    session = stage.session
    iot = session.client("iot", endpoint_url=where)
    iam = session.client("iam", endpoint_url=where)
    logs = session.client("logs", endpoint_url=where)
    s3 = session.client("s3", endpoint_url=where)
    sqs = session.client("sqs", endpoint_url=where)
    watch = session.client("cloudwatch", endpoint_url=where)
    scheduler = session.client("scheduler", endpoint_url=where)
    kms = session.client("kms", endpoint_url=where)
    stacks = session.client("cloudformation", endpoint_url=where).describe_stacks()["Stacks"]
    parameters = session.client("ssm", endpoint_url=where).describe_parameters()["Parameters"]
    functions = session.client("lambda", endpoint_url=where).list_functions()["Functions"]
    keys = [kms.describe_key(KeyId=one["KeyId"])["KeyMetadata"] for one in kms.list_keys(Limit=1000)["Keys"]]
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    objects = [s3.list_objects_v2(Bucket=bucket).get("Contents", []) for bucket in buckets]
    return {
        "certificates": {one["certificateId"] for one in iot.list_certificates()["certificates"]},
        "things": {one["thingName"] for one in iot.list_things()["things"]},
        "policies": {one["policyName"] for one in iot.list_policies()["policies"]},
        "authorities": {one["certificateId"] for one in iot.list_ca_certificates()["certificates"]},
        "templates": {one["templateName"] for one in iot.list_provisioning_templates()["templates"]},
        "rules": {one["ruleName"] for one in iot.list_topic_rules()["rules"]},
        "tables": set(session.client("dynamodb", endpoint_url=where).list_tables()["TableNames"]),
        "stacks": {one["StackName"] for one in stacks} - {SAM_STACK},
        "parameters": {one["Name"] for one in parameters},
        "functions": {one["FunctionName"] for one in functions},
        "logs": {one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]},
        "queues": set(sqs.list_queues().get("QueueUrls", [])),
        "topics": {one["TopicArn"] for one in session.client("sns", endpoint_url=where).list_topics()["Topics"]},
        "alarms": {one["AlarmName"] for one in watch.describe_alarms()["MetricAlarms"]},
        "dashboards": {one["DashboardName"] for one in watch.list_dashboards()["DashboardEntries"]},
        "schedules": {one["Name"] for one in scheduler.list_schedules()["Schedules"]},
        "roles": {one["RoleName"] for one in iam.list_roles()["Roles"]},
        "keys": {
            key["KeyId"] for key in keys if key["KeyState"] != "PendingDeletion" and key["KeyManager"] == "CUSTOMER"
        },
        "aliases": {one["AliasName"] for one in kms.list_aliases()["Aliases"]},
        "buckets": {bucket for bucket in buckets if not bucket.startswith(SAM_STACK)},
        "objects": {entry["Key"] for page in objects for entry in page},
    }


def interrupt(stage: Stage, after: str, *, once: Callable[[], bool] = lambda: True) -> str:
    """Run deploy, press Ctrl-C when it has said `after` and `once` is true; return all it said."""
    words = [str(SETUP), "deploy", *WHICH, "--local", str(stage.cloud.directory)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as deploy:
        assert deploy.stdout is not None
        said = ""
        while after not in said:
            line = deploy.stdout.readline()
            assert line, said
            said += line
        assert eventually(once, limit_s=120)
        os.killpg(deploy.pid, signal.SIGINT)
        said += str(deploy.stdout.read())
    assert deploy.returncode == 130, said
    return said


def test_a_life_of_a_stack(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = inventory(stage)
    state = stage.cloud.directory / "setup" / STACK

    for moment in ("manufacturer CA", "building the Lambda"):
        said = interrupt(stage, moment)
        assert "run the same command again" in said
        assert "Traceback" not in said
    # Not asked of the cloud, which answers only when it is done.
    interrupt(stage, "deploying the stack", once=lambda: "stack changeset" in (state / "deploy.log").read_text())

    first = stage.setup("deploy", *WHICH, "--lifetime", "1h", "--topic-prefix", "/cert-rotation")
    assert "TableName" in first
    before_dry_run = but_for_artifacts(stage)
    planned = stage.setup("deploy", *WHICH, "--lifetime", "2h", "--dry-run")
    assert "Modify   AWS::Lambda::Function " in planned
    assert "the change set has" in planned
    assert but_for_artifacts(stage) == before_dry_run
    assert "3600" in function_environment(stage)
    stage.setup("deploy", *WHICH, "--tag", "team=devices", "--tag", "stage=test")
    assert tags(stage) == {"iot-agent-stack": STACK, "team": "devices", "stage": "test"}
    again = stage.setup("deploy", *WHICH)  # keeps the lifetime, the prefix and the tags
    assert tags(stage) == {"iot-agent-stack": STACK, "team": "devices", "stage": "test"}
    assert [line for line in again.splitlines() if "CaId" in line] == [
        line for line in first.splitlines() if "CaId" in line
    ]
    assert "TopicPrefix                /cert-rotation" in again

    bundle = stage.device(SERIAL, *WHICH)
    files = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    assert stage.device(SERIAL, *WHICH) == bundle
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == files
    assert "/cert-rotation" in (bundle / "agent.yaml").read_text()

    assert goes_online(stage, bundle)
    alive = inventory(stage)
    unchanged = [kind for kind in alive if alive[kind] == before[kind]]
    assert unchanged == ["aliases", "buckets"], "of each other kind there is something to be removed"

    stage.setup("destroy", *WHICH, succeeds=False)  # nobody is there to say yes
    assert inventory(stage) == alive
    stage.setup("destroy", *WHICH, "--yes")
    assert inventory(stage) == before
    assert (state / "vendor-ca-key.pem").exists()  # to be asked for separately
    assert f"{STACK} was not there" in stage.setup("destroy", *WHICH, "--yes", "--delete-vendor-key")
    assert not (state / "vendor-ca-key.pem").exists()
    assert list(tmp_path.iterdir()) == []


def described(stage: Stage) -> Any:  # noqa: ANN401 - a stack's description
    """Return what CloudFormation says of the stack, with the names of its change sets."""
    client = stage.session.client("cloudformation", endpoint_url=stage.here.endpoint_url)
    sets = client.list_change_sets(StackName=STACK)["Summaries"]
    waiting = {one["ChangeSetName"] for one in sets if one.get("ExecutionStatus") == "AVAILABLE"}
    return client.describe_stacks(StackName=STACK)["Stacks"][0] | {"waiting": waiting}


def tags(stage: Stage) -> dict[str, str]:
    """Return the stack's tags."""
    return {one["Key"]: one["Value"] for one in described(stage)["Tags"]}


def but_for_artifacts(stage: Stage) -> dict[str, object]:
    """Return all there is, and the change sets that wait; not what SAM uploads for a change set."""
    return inventory(stage) | {"objects": set(), "waiting": described(stage)["waiting"]}


def function_environment(stage: Stage) -> str:
    """Return the settings of the Lambda."""
    client = stage.session.client("lambda", endpoint_url=stage.here.endpoint_url)
    (name,) = (one["FunctionName"] for one in client.list_functions()["Functions"] if STACK in one["FunctionName"])
    return str(client.get_function_configuration(FunctionName=name)["Environment"])


def goes_online(stage: Stage, bundle: Path) -> bool:
    """Connect with the vendor identity: dropped at first, then accepted by its certificate's policy."""
    certificate, key = bundle / "bootstrap/certificate.pem", bundle / "bootstrap/key.pem"
    assert stage.connect(certificate, key, f"{SERIAL}-agent") is None
    iot = stage.session.client("iot", endpoint_url=stage.here.endpoint_url)
    certificate_id = certificates.certificate_id(certificate.read_text())

    def is_active() -> bool:
        return iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]["status"] == "ACTIVE"

    assert eventually(is_active)
    assert stage.connect(certificate, key, "another-device") != 0
    return stage.connect(certificate, key, f"{SERIAL}-agent") == 0


def test_without_a_local_cloud_it_says_how_to_start_one(tmp_path: Path) -> None:
    words = [str(SETUP), "deploy", "--local", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no local cloud is running" in done.stderr
    assert "cloud.local up" in done.stderr


@pytest.mark.parametrize("command", [["deploy"], ["device", "SN-1"], ["destroy", "--yes"]])
def test_without_credentials_it_names_them_before_it_does_anything(tmp_path: Path, command: list[str]) -> None:
    nobody = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    done = subprocess.run([str(SETUP), *command], env=nobody, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "credentials" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
