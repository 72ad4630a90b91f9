"""What a security review asks of the stack's template."""

import json
import re
from typing import Any

import pytest

from cloud.rotation import agenda, devices, registry
from cloud.rotation.lifecycle import SETTLE_MS
from tests.cloud.template import RESOURCES, STACK, TEMPLATE, of_type

NO_RESOURCE = {  # actions that take no resource, or name theirs where not every implementation looks
    "iot:RegisterCertificate",
    "iot:ListAttachedPolicies",
    "iot:ListPrincipalThings",
    "iot:AttachPolicy",
    "iot:DetachPolicy",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
}


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


def resources_of(statement: dict[str, Any]) -> list[str]:
    """Return the resources of a statement of an IoT policy, also those that it has on a condition only."""
    listed = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
    return [(one["If"][1] if "If" in one else one)["Sub"] for one in listed]


def test_a_vendor_certificate_is_no_client_of_the_applications_name_unless_for_the_sample() -> None:
    statements_ = of_type("AWS::IoT::Policy")["BootstrapPolicy"]["PolicyDocument"]["Statement"]
    (connect,) = (one for one in statements_ if one["Action"] == "iot:Connect")
    always, on_condition = connect["Resource"]
    assert always["Sub"].endswith(":client/${!iot:Certificate.Subject.CommonName}-agent")
    condition, resource, otherwise = on_condition["If"]
    assert (condition, otherwise) == ("ServesSampleDevices", {"Ref": "AWS::NoValue"})
    assert resource["Sub"].endswith(":client/${!iot:Certificate.Subject.CommonName}")
    assert STACK["Parameters"]["SampleDevices"]["Default"] == "no"


def test_two_regions_of_an_account_do_not_share_what_is_global() -> None:
    """Dashboards are of the account; roles have generated names; every other resource is of its region."""
    assert of_type("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardName"]["Sub"].count("${AWS::Region}") == 1
    assert not [name for name, role in of_type("AWS::IAM::Role").items() if "RoleName" in role]


def test_device_policies_name_only_the_devices_own_topics_and_clients() -> None:
    policies = of_type("AWS::IoT::Policy")
    assert len(policies) == 2
    for policy in policies.values():
        for statement in policy["PolicyDocument"]["Statement"]:
            for text in resources_of(statement):
                assert "${!iot:Certificate.Subject.CommonName}" in text
                assert "*" not in text


def test_the_things_that_the_stack_makes_bear_its_name() -> None:
    body = json.loads(of_type("AWS::IoT::ProvisioningTemplate")["JitpTemplate"]["TemplateBody"]["Sub"])
    thing = body["Resources"]["thing"]
    assert thing["Properties"]["AttributePayload"] == {registry.ORIGIN: "${AWS::StackName}"}
    assert thing["OverrideSettings"]["AttributePayload"] == "DO_NOTHING", "a thing that exists would become the stack's"


# ---- what an operator is told ---------------------------------------------------------------------------------------

ALARMS = of_type("AWS::CloudWatch::Alarm")
OURS = "IotAgent"


def metrics_of_the_code() -> set[str]:
    """Return every metric that the Lambda counts: capitalised words of the modules that count."""
    counting = ["handler.py", "steps.py", "sweeper.py", "agenda.py"]
    sources = "".join((TEMPLATE.parent / "rotation" / name).read_text() for name in counting)
    return set(re.findall(r'"([A-Z][a-z]+)"', sources))


def dashboard() -> dict[str, Any]:
    body: str = of_type("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardBody"]["Sub"]
    found: dict[str, Any] = json.loads(re.sub(r"\$\{[^}]+\}", "x", body))
    return found


def test_every_alarm_tells_somebody_what_it_means_and_when_it_is_over() -> None:
    for name, alarm in ALARMS.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopic"}], name
        assert len(alarm["AlarmDescription"]) > 60, name
        assert alarm["TreatMissingData"] == ("breaching" if name == "SweeperAlarm" else "notBreaching"), name


def test_what_an_on_call_engineer_must_know_has_an_alarm() -> None:
    watched = {alarm["MetricName"] for alarm in ALARMS.values()}
    needed = {
        "Errors",
        "ApproximateNumberOfMessagesVisible",
        "Throttles",
        "Quarantined",
        "Expiring",
        "Expired",
        "Swept",
        "ProvisionThing.ClientError",
        "ErrorActionFailure",
        "RuleMessageThrottled",
    }
    assert needed <= watched


def test_every_topic_rule_is_watched_for_messages_that_it_loses() -> None:
    rules = of_type("AWS::IoT::TopicRule")
    for lost in ("ErrorActionFailure", "RuleMessageThrottled"):
        watched = [alarm["Dimensions"] for alarm in ALARMS.values() if alarm["MetricName"] == lost]
        assert {dimension["Value"]["Ref"] for (dimension,) in watched} == set(rules)
        assert {dimension["Name"] for (dimension,) in watched} == {"RuleName"}


def test_cloudwatch_may_use_the_key_of_the_alarms_topic_on_no_condition() -> None:
    for statement in of_type("AWS::KMS::Key")["AlarmKey"]["KeyPolicy"]["Statement"]:
        if statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}:
            assert "Condition" not in statement
            assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]
            return
    raise AssertionError("CloudWatch may not use it")


def test_alarms_and_dashboard_name_only_metrics_that_are_counted() -> None:
    counted = metrics_of_the_code()
    shown = [metric for one in dashboard()["widgets"] for metric in one["properties"].get("metrics", [])]
    assert shown
    named = {alarm["MetricName"] for alarm in ALARMS.values() if alarm["Namespace"] == OURS}
    named |= {metric[1] for metric in shown if metric[0] == OURS}
    assert named <= counted
    assert counted - {metric[1] for metric in shown} == set(), "counted, and shown nowhere"


def test_the_dashboard_has_every_alarm_and_no_widget_on_another() -> None:
    body = of_type("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardBody"]["Sub"]
    assert all(f"${{{name}.Arn}}" in body for name in ALARMS)
    taken: set[tuple[int, int]] = set()
    for one in dashboard()["widgets"]:
        x, y, width, height = (one[side] for side in ("x", "y", "width", "height"))
        cells = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert x + width <= 24
        assert not cells & taken, one["properties"].get("title")
        taken |= cells


# ---- how state is kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", of_type("AWS::DynamoDB::Table"))
def test_tables_are_encrypted_can_be_restored_and_outlive_the_stack(name: str) -> None:
    table = RESOURCES[name]
    # DynamoDB always encrypts; only without this is the key one that costs nothing ("DynamoDB encryption at rest").
    assert "SSESpecification" not in table["Properties"]
    assert table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert table["DeletionPolicy"] == "RetainExceptOnCreate"
    assert table["UpdateReplacePolicy"] == "Retain"


def test_the_index_of_the_sweeper_is_the_one_the_code_asks() -> None:
    (index,) = of_type("AWS::DynamoDB::Table")["DeviceTable"]["GlobalSecondaryIndexes"]
    assert index["IndexName"] == devices.INDEX


def test_the_function_cannot_outrun_the_quotas_of_aws_iot() -> None:
    (function,) = of_type("AWS::Serverless::Function").values()
    assert function["ReservedConcurrentExecutions"] <= 10  # certificate changes a second, for the whole account
    assert function["Timeout"] * 1000 <= SETTLE_MS, "a run may outlive the time for which its leavings are watched"
    assert STACK["Parameters"]["LambdaRuntime"]["Default"] == "python3.13"
    assert STACK["Parameters"]["LambdaArchitecture"]["Default"] == "arm64"
    assert STACK["Parameters"]["TracingMode"]["Default"] == "PassThrough"


def test_logs_do_not_stay_for_ever() -> None:
    assert all("RetentionInDays" in group for group in of_type("AWS::Logs::LogGroup").values())
    assert STACK["Parameters"]["LogRetentionDays"]["Default"] == 90


def test_the_schedule_sends_what_the_function_takes_for_a_sweep() -> None:
    (schedule,) = of_type("AWS::Scheduler::Schedule").values()
    assert json.loads(schedule["Target"]["Input"]) == {"event": "sweep"}
    assert schedule["State"] == "ENABLED"
    assert of_type("AWS::IoT::CACertificate")["ManufacturerCa"]["AutoRegistrationStatus"] == "DISABLE"


def test_the_sweeper_knows_how_late_a_message_may_come() -> None:
    invoked = RESOURCES["RotationFunction"]["Properties"]["EventInvokeConfig"]
    assert invoked["MaximumEventAgeInSeconds"] * 1000 == agenda.LATE_MS
