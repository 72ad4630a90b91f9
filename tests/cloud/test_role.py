"""The Lambda's role allows every call that it makes, and nothing that it does not make.

Every call of every test in this directory is held to the role as it is made (role.watch); here it is shown that such a
call would fail its test, and whole lives are lived to see that no action is allowed for nothing.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.common import operations
from cloud.rotation import handler, kms
from cloud.rotation.lifecycle import SETTLE_MS
from tests.cloud import pki, role
from tests.cloud.lambda_bench import Bench, a_bench, change_ca, made_once
from tests.cloud.scenarios import CONTEXT, story


def lives(bench: Bench) -> None:
    """Live all that the Lambda does: onboarding, renewal, quarantine, removal, schedule, another CA, a key in KMS."""
    for event in story(bench):
        handler.handle(event, CONTEXT)
    present = str(bench.device().present_certificate_id)
    bench.create(present, 3)
    change_ca(bench, "manufacturer CA 2")
    bench.create(present, 3)
    unknown = bench.vendor("SN-unknown")
    bench.deliver(bench.registered_event(unknown))
    operations.remove(bench.office(), "SN-unknown")
    bench.now += SETTLE_MS
    bench.sweep()
    client = made_once("client", "kms", "lambda")
    public = pki.signing_key("p256").public_key()
    key: Any = kms.private_key(client, boto3.client("kms").create_key()["KeyMetadata"]["Arn"], public)
    # moto's keys are of another kind: the call is what counts here. The local cloud's signatures are real.
    with suppress(kms.KmsError, ClientError):
        key.sign(b"data", ec.ECDSA(hashes.SHA256()))


def used(aws: pytest.MonkeyPatch) -> set[str]:
    role.MADE.clear()
    with a_bench(aws) as bench:
        lives(bench)
    return {call.action for call in role.MADE}


def test_every_allowed_action_is_used_and_every_used_one_allowed(aws: pytest.MonkeyPatch) -> None:
    by_the_code = role.rotation_role().actions - set(role.BY_AWS)
    assert used(aws) == by_the_code


def without(action: str) -> role.Role:
    statements = copy.deepcopy(role.rotation_role().statements)
    for statement in statements:
        listed = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        statement["Action"] = [one for one in listed if one != action]
    return role.Role(statements)


@pytest.mark.parametrize("action", sorted(role.rotation_role().actions - set(role.BY_AWS)))
def test_a_role_without_an_action_fails_the_test_that_uses_it(action: str, aws: pytest.MonkeyPatch) -> None:
    lacking = without(action)
    aws.setattr(role, "rotation_role", lambda: lacking)
    with pytest.raises(pytest.fail.Exception, match=action), a_bench(aws) as bench:
        lives(bench)


def test_an_action_on_another_table_is_not_allowed() -> None:
    held = role.rotation_role()
    assert held.allows(role.Call("dynamodb:PutItem", "HistoryTable"))
    assert not held.allows(role.Call("dynamodb:PutItem", "DeviceTable"))
    assert not held.allows(role.Call("dynamodb:Query", "HistoryTable"))


def test_what_is_never_called_is_not_allowed() -> None:
    for action in ("dynamodb:Scan", "iot:DeletePolicy", "iot:CreateThing", "ssm:PutParameter"):
        assert not role.rotation_role().allows(role.Call(action)), action
