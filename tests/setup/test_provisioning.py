"""The permissions that setup asks for beforehand, against what CloudFormation's own schemas say that it calls."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cfnlint  # type: ignore[import-untyped]  # no stubs
import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]  # no stubs

from cloud.setup import permissions
from cloud.setup.stack import TEMPLATE

TYPES = set(re.findall(r"^    Type: (AWS::\w+::\w+)$", TEMPLATE.read_text(), re.MULTILINE))
MADE_OF_FUNCTION = {"AWS::Lambda::Function", "AWS::Lambda::EventInvokeConfig"}  # by SAM's transform
EVERY = sorted(TYPES - {"AWS::Serverless::Function"} | MADE_OF_FUNCTION)
MANY_OPTIONS = {"AWS::DynamoDB::Table", "AWS::Lambda::Function", "AWS::Logs::LogGroup"}  # few of which are used here
UNUSED = {  # of the other types: what no property in the template, and no change of one, comes to
    "iam:DeleteRolePermissionsBoundary", "iam:PutRolePermissionsBoundary", "iam:UpdateRole",
    "kms:Decrypt", "kms:DisableKey", "kms:DisableKeyRotation", "kms:EnableKey", "kms:UpdateKeyDescription",
    "sns:GetDataProtectionPolicy", "sns:PutDataProtectionPolicy", "sns:SetSubscriptionAttributes",
    "iam:ListRoleTags", "iam:UpdateRoleDescription",
}  # fmt: skip


def schema(name: str) -> dict[str, Any]:
    """Return a resource type's schema, as the CloudFormation registry has it."""
    return dict(PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", name).schema)


def without_untagging(actions: set[str]) -> set[str]:
    """Leave out what takes tags away: the stack's one tag never changes."""
    return {action for action in actions if ":Untag" not in action}


def test_the_types_are_found() -> None:
    assert {"AWS::IoT::Policy", "AWS::Scheduler::Schedule", "AWS::KMS::Key"} <= set(EVERY)
    assert len(EVERY) == 18


@pytest.mark.parametrize("name", EVERY)
def test_what_can_be_tagged_may_be_tagged(name: str) -> None:
    needed = set(schema(name).get("tagging", {}).get("permissions", []))
    assert without_untagging(needed) - UNUSED <= permissions.PROVISIONING


@pytest.mark.parametrize("name", sorted(set(EVERY) - MANY_OPTIONS))
def test_it_may_be_created_read_updated_and_deleted(name: str) -> None:
    handlers = [handler for does, handler in schema(name)["handlers"].items() if does != "list"]
    needed = {action for handler in handlers for action in handler["permissions"]}
    assert needed
    assert without_untagging(needed) - UNUSED <= permissions.PROVISIONING


def test_template_parameters_are_read_and_sams_first_bucket_is_made() -> None:
    assert "AWS::SSM::Parameter::Value" in TEMPLATE.read_text()
    bucket = {"CreateBucket", "PutEncryptionConfiguration", "PutBucketVersioning", "PutBucketPublicAccessBlock"}
    bucket |= {"PutBucketTagging", *(name.removeprefix("s3:") for name in created("AWS::S3::BucketPolicy"))}
    assert {"ssm:GetParameters"} | {f"s3:{name}" for name in bucket} <= permissions.PROVISIONING
    assert {f"s3:{name}" for name in bucket} <= created("AWS::S3::Bucket") | created("AWS::S3::BucketPolicy")


def created(name: str) -> set[str]:
    """Return what creating a resource needs."""
    return set(schema(name)["handlers"]["create"]["permissions"])


def test_every_action_is_one_that_iam_knows() -> None:
    data = Path(cfnlint.__file__).parent / "data/AdditionalSpecs/Policies.json"
    known = {f"{service}:{name}" for service, of in json.loads(data.read_text()).items() for name in of["Actions"]}
    asked = permissions.PROVISIONING.union(*permissions.CALLS.values())
    assert {action for action in asked if action.lower() not in known} == set()
