"""What must be so before a command touches anything: all that is missing is named at once, with what to do.

What would cut off the devices in the field is refused.

Permissions are asked of IAM itself (SimulatePrincipalPolicy), for the caller's own user or role. `CALLS` is what setup
calls, held to the truth by a test; `PROVISIONING` is what CloudFormation does with the caller's permissions for the
resources of the template.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from cloud.common.errors import SetupError
from cloud.setup import stack, topics

if TYPE_CHECKING:
    from cloud.common.aws_session import Cloud
    from cloud.setup.stack import Stack


def _actions(text: str) -> frozenset[str]:
    """Read `service:Action Action service:Action …`."""
    service, found = "", set()
    for word in text.split():
        head, colon, tail = word.partition(":")
        service = head if colon else service
        found.add(f"{service}:{tail or head}")
    return frozenset(found)


CALLS: Final = {
    "deploy": _actions("""
        cloudformation:DescribeStackResources DescribeStacks
        dynamodb:Scan
        iot:ListTopicRules
        kms:CreateAlias CreateKey DescribeKey GetPublicKey Sign TagResource
        ssm:GetParameter PutParameter
        tag:GetResources
    """),
    "device": _actions("""
        cloudformation:DescribeStacks
        dynamodb:GetItem PutItem UpdateItem
        iot:DeleteCertificate DescribeCertificate DescribeEndpoint DetachPolicy DetachThingPrincipal
            ListAttachedPolicies ListPrincipalThings UpdateCertificate
        ssm:GetParameter
    """),
    "destroy": _actions("""
        cloudformation:DeleteStack DescribeStacks
        dynamodb:DeleteTable ListTables
        iot:DeleteCACertificate DeleteCertificate DeleteThing DetachPolicy DetachThingPrincipal ListAttachedPolicies
            ListCertificatesByCA ListPrincipalThings ListThingPrincipals UpdateCACertificate UpdateCertificate
        kms:DeleteAlias DescribeKey ScheduleKeyDeletion
        s3:DeleteObjectVersion ListBucketVersions
        ssm:DeleteParameter GetParameter
        tag:GetResources
    """),
}

# Of each resource type what its handlers create, read, update and delete with, as its schema in the CloudFormation
# registry lists it (`handlers`, `tagging`), for the properties that the template uses; `sam deploy` tags them all.
# Besides, what SAM itself calls, and makes its first bucket with; and parameters of type AWS::SSM::Parameter::Value.
PROVISIONING: Final = _actions("""
    cloudformation:CreateChangeSet DescribeChangeSet DescribeStackEvents DescribeStackResources ExecuteChangeSet
        GetTemplateSummary
    cloudwatch:DeleteAlarms DeleteDashboards DescribeAlarms GetDashboard ListTagsForResource PutDashboard PutMetricAlarm
        TagResource
    dynamodb:CreateTable DeleteTable DescribeContinuousBackups DescribeTable ListTagsOfResource TagResource
        UpdateContinuousBackups UpdateTable
    iam:AttachRolePolicy CreateRole DeleteRole DeleteRolePolicy DetachRolePolicy GetRole GetRolePolicy
        ListAttachedRolePolicies ListRolePolicies PassRole PutRolePolicy TagRole UpdateAssumeRolePolicy
    iot:CreatePolicy CreatePolicyVersion CreateProvisioningTemplate CreateProvisioningTemplateVersion CreateTopicRule
        DeleteCACertificate DeletePolicy DeletePolicyVersion DeleteProvisioningTemplate
        DeleteProvisioningTemplateVersion DeleteTopicRule DescribeCACertificate DescribeProvisioningTemplate GetPolicy
        GetTopicRule ListPolicyVersions ListProvisioningTemplateVersions ListTagsForResource RegisterCACertificate
        ReplaceTopicRule SetDefaultPolicyVersion TagResource UpdateCACertificate UpdateProvisioningTemplate
    kms:CreateKey DescribeKey EnableKeyRotation GetKeyPolicy GetKeyRotationStatus ListResourceTags PutKeyPolicy
        ScheduleKeyDeletion TagResource
    lambda:AddPermission CreateFunction DeleteFunction DeleteFunctionEventInvokeConfig GetFunction
        GetFunctionEventInvokeConfig GetPolicy ListTags PutFunctionConcurrency PutFunctionEventInvokeConfig
        RemovePermission TagResource UpdateFunctionCode UpdateFunctionConfiguration UpdateFunctionEventInvokeConfig
    logs:CreateLogGroup DeleteLogGroup DescribeLogGroups ListTagsForResource PutRetentionPolicy TagResource
    s3:CreateBucket GetBucketPolicy GetEncryptionConfiguration GetObject ListBucket PutBucketPolicy
        PutBucketPublicAccessBlock PutBucketTagging PutBucketVersioning PutEncryptionConfiguration PutObject
    scheduler:CreateSchedule DeleteSchedule GetSchedule UpdateSchedule
    sns:CreateTopic DeleteTopic GetSubscriptionAttributes GetTopicAttributes ListSubscriptionsByTopic
        ListTagsForResource SetTopicAttributes Subscribe TagResource Unsubscribe
    sqs:CreateQueue DeleteQueue GetQueueAttributes GetQueueUrl ListQueueTags SetQueueAttributes TagQueue
    ssm:GetParameters
""")

ASSUMED: Final = re.compile(r"arn:(?P<partition>[^:]+):sts::(?P<account>\d+):assumed-role/(?P<role>[^/]+)/.*")
DEFAULT_PREFIX: Final = "cert-rotation"  # the template's
BATCH: Final = 100  # actions in one simulation

SHORTEST_LIFETIME_S: Final = 2 * 3600
"""An agent takes a certificate only if an hour from now (`renewal.minimum_interval`) is within nine tenths of its life,
which begins a little in the past; the rest is for retries."""


def needed(command: str) -> frozenset[str]:
    """Return the IAM actions that a command needs."""
    return CALLS[command] | (PROVISIONING if command in ("deploy", "destroy") else frozenset())


def check(cloud: Cloud, command: str, *, permissions: bool) -> str | None:
    """Raise SetupError with everything that is missing; return a remark if permissions could not be looked at."""
    missing = [f"the program {name}" for name in stack.tools_missing()] if command == "deploy" else []
    denied, remark = _denied(cloud, needed(command)) if permissions else ([], None)
    missing += [f"the permission {action}" for action in denied]
    if not missing:
        return remark
    remedies = []
    if len(missing) > len(denied):
        remedies.append("run cloud/setup.sh, which makes its programs (make: apt-get install make)")
    if denied:
        remedies.append(
            "have the permissions granted to you; if your policies grant them for certain resources only, which this "
            "look at all resources cannot see, go on with --skip-permission-check"
        )
    raise SetupError("nothing was touched; missing: " + ", ".join(missing), "; ".join(remedies))


def check_lifetime(seconds: int | None, *, local: bool) -> None:
    """Refuse certificates that agents would not take; in a local cloud short lives are for trying it out."""
    if seconds is not None and seconds < SHORTEST_LIFETIME_S and not local:
        raise SetupError(
            f"a lifetime of {seconds} s is too short: agents refuse a certificate that would be due at once",
            "give --lifetime 2h or more; shorter ones are for trying it out in a local cloud (--local DIR)",
        )


def check_topic_prefix(cloud: Cloud, deployed: Stack, prefix: str | None) -> None:
    """Refuse another prefix once a device is known: each has it in its agent.yaml, and nobody would answer it."""
    outputs = deployed.outputs()
    if prefix is None or "TopicPrefix" not in outputs or outputs["TopicPrefix"] == prefix:
        return
    client = cloud.session.client("dynamodb", config=cloud.config)
    if client.scan(TableName=outputs["TableName"], Limit=1, ConsistentRead=True)["Items"]:
        raise SetupError(
            f"the devices of stack {deployed.name} use the topic prefix {outputs['TopicPrefix']}: with {prefix} it "
            "would hear none of them any more",
            "leave out --topic-prefix, which keeps it; for new devices deploy another stack: --stack NAME",
        )


def check_topic_is_free(cloud: Cloud, deployed: Stack, prefix: str | None) -> str | None:
    """Refuse a prefix that other topic rules of the region use: each would get the devices' messages and answer them.

    Beside a stack that has the prefix already they are a remark, which is returned: it must stay possible to update it.
    """
    present = deployed.outputs().get("TopicPrefix")
    wanted = prefix or present or DEFAULT_PREFIX
    client = cloud.session.client("iot", config=cloud.config)
    listed = [rule for page in client.get_paginator("list_topic_rules").paginate() for rule in page["rules"]]
    rules = [topics.Rule(one["ruleName"], one.get("topicPattern")) for one in listed if not one.get("ruleDisabled")]
    own = deployed.resources("AWS::IoT::TopicRule")
    others = [rule for rule in topics.users(wanted, rules) if rule.name not in own]
    if not others:
        return None
    told = ", ".join(_told(rule, deployed.owner(rule.name)) for rule in others)
    problem = f"topic prefix {wanted} is used in {cloud.place} already, by {told}"
    if wanted == present:
        return f"{problem}: their owner may answer the devices of stack {deployed.name}; have them removed"
    raise SetupError(
        f"nothing was touched; {problem}: whoever is behind them and this stack would answer each other's devices",
        "give another --topic-prefix, which the devices get with their bundles; or, if they are not needed any more, "
        "remove that stack, or delete or disable those rules",
    )


def _told(rule: topics.Rule, owner: str | None) -> str:
    return f"rule {rule.name} ({f'stack {owner}, ' if owner else ''}{rule.topic_filter})"


def _denied(cloud: Cloud, actions: frozenset[str]) -> tuple[list[str], str | None]:
    arn = cloud.session.client("sts", config=cloud.config).get_caller_identity()["Arn"]
    if arn.endswith(":root"):
        return [], None  # may do everything
    iam = cloud.session.client("iam", config=cloud.config)
    names = sorted(actions)
    denied = []
    try:
        if role := ASSUMED.fullmatch(arn):
            arn = iam.get_role(RoleName=role["role"])["Role"]["Arn"]  # with its path, which the session's ARN lacks
        for start in range(0, len(names), BATCH):
            pages = iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=arn, ActionNames=names[start : start + BATCH]
            )
            results = [result for page in pages for result in page["EvaluationResults"]]
            denied += [one["EvalActionName"] for one in results if one["EvalDecision"] != "allowed"]
    except ClientError as error:
        return [], f"permissions could not be looked at beforehand: {error.response['Error']['Code']}"
    return denied, None
