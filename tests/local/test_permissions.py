"""The policies that `setup.sh permissions` prints suffice: users with them and nothing else do all of their work."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from cloud.setup import permissions
from tests.local.local_stack import ROOT, SETUP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.local.local_stack import Stage

pytestmark = pytest.mark.local_cloud

STACK = "of-roles"


@pytest.fixture
def users(stage: Stage, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Make a user for each role; return the directory whose cloud.json has the user's credentials."""
    iam = stage.session.client("iam", endpoint_url=stage.here.endpoint_url)
    described = json.loads((stage.cloud.directory / "cloud.json").read_text())
    found: dict[str, Path] = {}
    keys: dict[str, str] = {}
    for role in permissions.ROLES:
        printed = subprocess.run(
            [SETUP, "permissions", role, "--stack", STACK], capture_output=True, text=True, check=True
        ).stdout
        iam.create_user(UserName=role)
        iam.put_user_policy(UserName=role, PolicyName="printed", PolicyDocument=printed)
        key = iam.create_access_key(UserName=role)["AccessKey"]
        keys[role] = key["AccessKeyId"]
        credentials = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
        found[role] = tmp_path / role
        found[role].mkdir()
        (found[role] / "cloud.json").write_text(json.dumps(described | {"credentials": credentials}))
    yield found
    for role, key_id in keys.items():
        iam.delete_access_key(UserName=role, AccessKeyId=key_id)
        iam.delete_user_policy(UserName=role, PolicyName="printed")
        iam.delete_user(UserName=role)


def test_each_role_can_do_its_work_and_a_reader_no_more(stage: Stage, users: dict[str, Path], tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))

    def run(role: str, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [ROOT / "cloud" / program, *words, "--stack", STACK, "--local", users[role]]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    run("deploy", "setup.sh", "deploy", "--ca-key", "kms", *state)  # makes SAM's bucket, if it is the first
    s3 = stage.session.client("s3", endpoint_url=stage.here.endpoint_url)
    for bucket in s3.list_buckets()["Buckets"]:  # which refuses HTTP, and the local cloud speaks nothing else
        s3.delete_bucket_policy(Bucket=bucket["Name"])
    for role, program, *words in (
        ("deploy", "setup.sh", "deploy", *state),
        ("deploy", "setup.sh", "deploy", "--lifetime", "1h", *state),
        ("factory", "setup.sh", "device", "SN-1", "--out", str(tmp_path / "SN-1"), *state),
        ("operator", "iot-fleet", "allow", "SN-2"),
        ("operator", "iot-fleet", "list"),
        ("operator", "iot-fleet", "revoke", "SN-2", "--yes"),
        ("operator", "iot-fleet", "readmit", "SN-2"),
        ("reader", "iot-fleet", "list"),
        ("reader", "iot-fleet", "forecast"),
        ("reader", "iot-fleet", "show", "SN-1"),
    ):
        done = run(role, program, *words)
        assert done.returncode == 0, (role, words, done.stdout + done.stderr)
    refused = run("reader", "iot-fleet", "allow", "SN-3")
    assert refused.returncode == 1
    assert "AccessDenied" in refused.stderr
    done = run("deploy", "setup.sh", "destroy", "--yes", "--delete-vendor-key", *state)
    assert done.returncode == 0, done.stdout + done.stderr
