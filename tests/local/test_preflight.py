"""Before anything is touched: what is missing is named, and the list of permissions is what setup really calls."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cloud.setup import permissions
from tests.cloud.template import RESOURCES
from tests.local.local_stack import eventually
from tests.local.recorder import __file__ as recorder
from tests.local.test_setup import inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.local.local_stack import Stage

UNCHARGED = {"sts:GetCallerIdentity", "iam:GetRole", "iam:SimulatePrincipalPolicy"}  # the check's own
ADOPTS = {"CreateChangeSet", "DeleteStack", "ExecuteChangeSet"}
ELSEWHERE = {
    # The endpoint is asked for on AWS only. The rest is for a serial out of quarantine: what iot-fleet's `allow` calls
    # (tests/fleet/test_permissions.py).
    "device": {action for action in permissions.CALLS["device"] if action.startswith("iot:")},
    # Only when CloudFormation has left a CA behind (test_destroy).
    "destroy": {"iot:DeleteCACertificate", "iot:DescribeCACertificate"},
    # The adoption of tables (test_kept_tables).
    "deploy": {"dynamodb:DescribeTable", *(f"cloudformation:{name}" for name in ADOPTS)},
}
NOT_CALLS = {"kms:TagResource"}  # part of CreateKey with tags


def actions(calls: str) -> set[str]:
    """Return the IAM actions of what the recorder has written down."""
    special = {
        "dynamodb TransactWriteItems": ["dynamodb:UpdateItem", "dynamodb:PutItem"],
        "resourcegroupstaggingapi GetResources": ["tag:GetResources"],
        "s3 ListObjectVersions": ["s3:ListBucketVersions"],
        "s3 DeleteObjectVersion": ["s3:DeleteObjectVersion"],
    }
    found: set[str] = set()
    for call in calls.splitlines():
        found.update(special.get(call, [call.replace(" ", ":")]))
    return found


@pytest.mark.parametrize("key", ["ssm", "kms"])
def test_the_list_is_what_setup_calls(stage: Stage, tmp_path: Path, key: str, calls: dict[str, set[str]]) -> None:
    which = ["--stack", f"recorded-{key}", "--local", str(stage.cloud.directory)]
    device = ["device", "SN-R", "--out", str(tmp_path / "SN-R")]
    for words in (
        ["deploy", "--ca-key", key],
        ["deploy", "--topic-prefix", "another"],
        ["deploy", "--dry-run", "--lifetime", "1h"],
        device,
        ["destroy", "--yes", "--delete-vendor-key"],
        ["destroy", "--yes"],  # and now that nothing is there
    ):
        log = tmp_path / words[0]
        command = [sys.executable, recorder, str(log), *words, *which]
        if "--delete-vendor-key" in words:
            connect_once(stage, which[1], tmp_path / "SN-R")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        calls.setdefault(words[0], set()).update(actions(log.read_text()))
    for command_, called in calls.items():
        listed = permissions.CALLS[command_]
        assert called - UNCHARGED <= listed, "called, but not in the list"
    if len(calls) == 3 and key == "kms":
        for command_, called in calls.items():
            unused = permissions.CALLS[command_] - called - ELSEWHERE.get(command_, set()) - NOT_CALLS
            assert not unused, f"in the list of {command_}, but never called"


@pytest.fixture(scope="module")
def calls() -> dict[str, set[str]]:
    """Hold what each command has called, over both kinds of key."""
    return {}


def connect_once(stage: Stage, stack: str, bundle: Path) -> None:
    """Have the device's certificate registered, with thing and policy, so that destroy has something to remove."""
    client = stage.session.client("dynamodb", endpoint_url=stage.here.endpoint_url)
    table = next(name for name in client.list_tables()["TableNames"] if name.startswith(f"{stack}-DeviceTable"))

    def recorded() -> bool:
        found = client.get_item(TableName=table, Key={"serial": {"S": "SN-R"}}).get("Item", {})
        return found["state"]["S"] == "THING_CREATED"

    identity = bundle / "bootstrap/certificate.pem", bundle / "bootstrap/key.pem"
    for _ in range(50):
        if stage.connect(*identity, "SN-R-agent") == 0:
            assert eventually(recorded), "the Lambda has not heard of it"
            return
    raise AssertionError("the device was not let in")


@pytest.fixture
def powerless(stage: Stage) -> Iterator[dict[str, str]]:
    """Return the environment of a user who may read parameters and ask about permissions, and nothing else."""
    iam = stage.session.client("iam", endpoint_url=stage.here.endpoint_url)
    iam.create_user(UserName="powerless")
    allowed = '"ssm:GetParameter", "iam:SimulatePrincipalPolicy", "cloudformation:*", "iam:*", "iot:*", "s3:*"'
    document = (
        f'{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": [{allowed}], "Resource": "*"}}]}}'
    )
    iam.put_user_policy(UserName="powerless", PolicyName="little", PolicyDocument=document)
    key = iam.create_access_key(UserName="powerless")["AccessKey"]
    yield {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    iam.delete_access_key(UserName="powerless", AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName="powerless", PolicyName="little")
    iam.delete_user(UserName="powerless")


def test_missing_permissions_are_named_and_nothing_is_made(
    stage: Stage, powerless: dict[str, str], tmp_path: Path
) -> None:
    before = inventory(stage)
    described = (stage.cloud.directory / "cloud.json").read_text()
    (tmp_path / "cloud.json").write_text(
        described.replace('"access_key_id": "test"', f'"access_key_id": "{powerless["id"]}"').replace(
            '"secret_access_key": "test"', f'"secret_access_key": "{powerless["secret"]}"'
        )
    )
    command = [sys.executable, "-m", "cloud.setup", "deploy", "--local", str(tmp_path), "--stack", "never"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 1
    for action in ("ssm:PutParameter", "kms:CreateKey", "dynamodb:CreateTable", "scheduler:CreateSchedule"):
        assert action in done.stderr
    assert "ssm:GetParameter," not in done.stderr
    assert "what to do: get these permissions" in done.stderr
    assert inventory(stage) == before
    assert not (tmp_path / "setup").exists()


def test_a_dry_run_makes_nothing(stage: Stage) -> None:
    before = inventory(stage)
    said = stage.setup("deploy", "--dry-run", "--stack", "never")
    assert "would deploy never to the local cloud" in said
    listed = {(words[1], words[2]) for line in said.splitlines() if (words := line.split())[0] == "Add"}
    assert listed == {(body["Type"], name) for name, body in RESOURCES.items()}
    assert inventory(stage) == before
