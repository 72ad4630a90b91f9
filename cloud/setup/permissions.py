"""The IAM actions that each role needs, and a policy that grants them.

Tests compare CALLS with the calls that the commands make, PROVISIONING with the schemas of the resource types, and run
the commands as users who have these policies and nothing else.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final


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
        cloudformation:CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet DescribeStackResources
            DescribeStacks ExecuteChangeSet ListChangeSets
        dynamodb:DescribeTable ListTables Scan
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
        cloudformation:DeleteStack DescribeStackResources DescribeStacks
        dynamodb:DeleteTable DescribeTable ListTables Scan
        iot:DeleteCACertificate DeleteCertificate DeleteThing DescribeCACertificate DescribeCertificate DescribeThing
            DetachPolicy DetachThingPrincipal ListAttachedPolicies ListCACertificates ListCertificates
            ListCertificatesByCA ListPrincipalThings ListTargetsForPolicy ListThingPrincipals ListThings
            UpdateCACertificate UpdateCertificate
        kms:DeleteAlias DescribeKey ScheduleKeyDeletion
        logs:DeleteLogGroup DescribeLogGroups
        s3:DeleteObjectVersion ListBucketVersions
        ssm:DeleteParameter GetParameter
        tag:GetResources
    """),
    "operator": _actions("""
        cloudformation:DescribeStacks
        dynamodb:GetItem PutItem Query Scan UpdateItem
        iot:DeleteCertificate DescribeCertificate DetachPolicy DetachThingPrincipal ListAttachedPolicies
            ListPrincipalThings ListThingPrincipals UpdateCertificate
    """),
    "reader": _actions("""
        cloudformation:DescribeStacks
        dynamodb:GetItem Query Scan
        iot:DescribeCertificate ListAttachedPolicies ListPrincipalThings ListThingPrincipals
    """),
}
"""What each command of setup calls; and `iot-fleet` as a whole (operator), and without its orders (reader)."""

# Of each resource type what its handlers create, read, update and delete with, as its schema in the CloudFormation
# registry lists it (`handlers`, `tagging`), for the properties that the template uses; `sam deploy` tags them all.
# Also what SAM itself calls, what its bucket needs, and parameters of type AWS::SSM::Parameter::Value.
PROVISIONING: Final = _actions("""
    cloudformation:CreateChangeSet DescribeChangeSet DescribeStackEvents DescribeStackResources ExecuteChangeSet
        GetTemplateSummary TagResource
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

ROLES: Final = {
    "deploy": CALLS["deploy"] | CALLS["destroy"] | PROVISIONING,
    "factory": CALLS["device"],
    "operator": CALLS["operator"],
    "reader": CALLS["reader"],
}
"""Who does what: deploy and destroy; `setup.sh device`; `iot-fleet`; the commands of it that change nothing."""

NAMED: Final = {
    "dynamodb": ("dynamodb:*:*:table/{stack}-*",),
    "lambda": ("lambda:*:*:function:{stack}-*",),
    "logs": ("logs:*:*:log-group:/aws/lambda/{stack}-*",),
    "s3": ("s3:::aws-sam-cli-managed-default-*",),
    "sns": ("sns:*:*:{stack}-*",),
    "sqs": ("sqs:*:*:{stack}-*",),
    "ssm": ("ssm:*:*:parameter/iot-agent/{stack}/*",),
}
"""The resources of services that name theirs after the stack. The others give names of their own, or no resource."""

WITHOUT_RESOURCE: Final = frozenset({
    "dynamodb:ListTables", "logs:DescribeLogGroups", "logs:ListTagsForResource", "logs:TagResource",
})  # fmt: skip
"""Of these services, the actions that do not name such a resource (Service Authorization Reference)."""


def needed(command: str) -> frozenset[str]:
    """Return the IAM actions that a command of setup needs."""
    return CALLS[command] | (PROVISIONING if command in ("deploy", "destroy") else frozenset())


def policy(role: str, stack: str) -> dict[str, Any]:
    """Return an IAM policy document that lets `role`, one of ROLES, work on one stack in any account and region."""
    anywhere: list[str] = []
    statements: list[dict[str, Any]] = []
    for service, of_service in groupby(sorted(ROLES[role]), lambda action: action.partition(":")[0]):
        actions = list(of_service)
        if service in NAMED:
            named = [f"arn:*:{one.format(stack=stack)}" for one in NAMED[service]]
            bound = [action for action in actions if action not in WITHOUT_RESOURCE]
            statements.append({"Effect": "Allow", "Action": bound, "Resource": named})
            actions = [action for action in actions if action in WITHOUT_RESOURCE]
        anywhere += actions
    statements.append({"Effect": "Allow", "Action": anywhere, "Resource": "*"})
    return {"Version": "2012-10-17", "Statement": statements}
