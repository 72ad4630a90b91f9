"""What a security review asks of the stack's template."""

import json
from typing import Any

import pytest

from tests.cloud.template import RESOURCES, STACK

NO_RESOURCE = {  # actions that take no resource, or name theirs where not every implementation looks
    "iot:RegisterCertificate",
    "iot:ListAttachedPolicies",
    "iot:ListPrincipalThings",
    "iot:AttachPolicy",
    "iot:DetachPolicy",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
}


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == kind}


RULES, PERMISSIONS = of_type("AWS::IoT::TopicRule"), of_type("AWS::Lambda::Permission")


def test_parameters_and_outputs_are_those_that_setup_knows() -> None:
    assert set(STACK["Parameters"]) >= {
        "TopicPrefix",
        "CertificateLifetimeSeconds",
        "VendorCaCertificate",
        "ManufacturerCaCertificate",
        "ManufacturerKeyParameter",
        "ApplicationPolicyName",
    }
    assert set(STACK["Outputs"]) >= {
        "TableName",
        "DevicePolicyName",
        "BootstrapPolicyName",
        "TopicPrefix",
        "VendorCaId",
    }


def test_there_is_a_rule_for_each_event() -> None:
    assert len(RULES) == 4


@pytest.mark.parametrize("name", RULES)
def test_every_rule_keeps_what_it_could_not_hand_over_and_names_the_principal(name: str) -> None:
    payload = RULES[name]["TopicRulePayload"]
    assert "Sqs" in payload["ErrorAction"]
    assert "encode(*, 'base64') AS data" in payload["Sql"]["Sub"]
    assert name.startswith("Registered") or "principal() AS principal" in payload["Sql"]["Sub"]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_and_only_it_may_invoke_the_function(name: str) -> None:
    granted = [body for body in PERMISSIONS.values() if name in json.dumps(body["SourceArn"])]
    assert len(granted) == 1
    assert granted[0]["Principal"] == "iot.amazonaws.com"
    assert granted[0]["SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_what_the_function_failed_at_is_kept() -> None:
    assert "OnFailure" in json.dumps(of_type("AWS::Serverless::Function") | of_type("AWS::Lambda::EventInvokeConfig"))


def statements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for role in of_type("AWS::IAM::Role").values():
        for policy in role.get("Policies", []):
            found += policy["PolicyDocument"]["Statement"]
    branches = [branch for one in found for branch in one.get("If", [None, one])[1:]]
    return [one for one in branches if "Effect" in one]


def test_roles_name_actions_and_resources() -> None:
    for statement in statements():
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action]
        if statement["Resource"] == "*":
            assert set(actions) <= NO_RESOURCE


def test_device_policies_name_only_the_devices_own_topics_and_clients() -> None:
    policies = of_type("AWS::IoT::Policy")
    assert len(policies) == 2
    for policy in policies.values():
        for statement in policy["PolicyDocument"]["Statement"]:
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            for resource in resources:
                text = resource["Sub"]
                assert "${!iot:Certificate.Subject.CommonName}" in text
                assert "*" not in text
