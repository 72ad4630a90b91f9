"""Checks before a command changes anything: everything that is missing is reported together, with what to do.

A deploy that would cut off devices in the field is refused.

Permissions are checked with IAM's SimulatePrincipalPolicy, for the caller's user or role.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from cloud.common.arguments import written
from cloud.common.errors import SetupError
from cloud.setup import stack, topics
from cloud.setup.permissions import needed

if TYPE_CHECKING:
    from cloud.common.aws_session import Cloud
    from cloud.setup.stack import Stack


ASSUMED: Final = re.compile(r"arn:(?P<partition>[^:]+):sts::(?P<account>\d+):assumed-role/(?P<role>[^/]+)/.*")
DEFAULT_PREFIX: Final = "cert-rotation"  # the template's
BATCH: Final = 100  # actions in one simulation

SHORTEST_LIFETIME_S: Final = 2 * 3600
"""An agent accepts a certificate only if one hour from now (`renewal.minimum_interval`) is within the first nine tenths
of its life, which begins a little in the past; the last tenth is for retries."""


def check(cloud: Cloud, command: str, *, permissions: bool) -> str | None:
    """Raise SetupError with everything that is missing; return a remark if permissions could not be checked."""
    missing = [f"the program {name}" for name in stack.tools_missing()] if command == "deploy" else []
    denied, remark = _denied(cloud, needed(command)) if permissions else ([], None)
    missing += [f"the permission {action}" for action in denied]
    if not missing:
        return remark
    remedies = []
    if len(missing) > len(denied):
        remedies.append(
            "run cloud/setup.sh, which installs its programs, or: pipx install aws-sam-cli; apt-get install make"
        )
    if denied:
        remedies.append(
            "get these permissions; if your policies grant them only for certain resources, which this check cannot "
            "see, use --skip-permission-check"
        )
    raise SetupError("nothing was changed; missing: " + ", ".join(missing), "; ".join(remedies))


def check_lifetime(seconds: int | None, *, local: bool) -> None:
    """Refuse certificates that agents would not accept; a local cloud allows short lifetimes, for experiments."""
    if seconds is not None and seconds < SHORTEST_LIFETIME_S and not local:
        raise SetupError(
            f"a lifetime of {written(seconds)} is too short: agents refuse a certificate due for renewal at once",
            "give --lifetime 2h or more; shorter lifetimes are only for a local cloud (--local DIR)",
        )


def check_topic_prefix(cloud: Cloud, deployed: Stack, prefix: str | None) -> None:
    """Refuse another prefix once there is a device: its agent.yaml has the prefix, and it would get no answer."""
    outputs = deployed.outputs()
    if prefix is None or "TopicPrefix" not in outputs or outputs["TopicPrefix"] == prefix:
        return
    client = cloud.session.client("dynamodb", config=cloud.config)
    if client.scan(TableName=outputs["TableName"], Limit=1, ConsistentRead=True)["Items"]:
        raise SetupError(
            f"the devices of stack {deployed.name} use the topic prefix {outputs['TopicPrefix']}: with {prefix} it "
            "would not receive their messages any more",
            "leave out --topic-prefix to keep it; for new devices deploy another stack: --stack NAME",
        )


def check_topic_is_free(cloud: Cloud, deployed: Stack, prefix: str | None) -> str | None:
    """Refuse a prefix that other topic rules of the region use: they would receive and answer the devices' messages.

    If this stack already has the prefix, return a remark instead: it must remain possible to update the stack.
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
        return f"{problem}: they may answer the devices of stack {deployed.name}; remove them"
    raise SetupError(
        f"nothing was changed; {problem}: they and this stack would answer each other's devices",
        "give another --topic-prefix, which the devices get with their bundles; or, if those rules are not needed any "
        "more, remove their stack, or delete or disable them",
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
        return [], f"permissions could not be checked first: {error.response['Error']['Code']}"
    return denied, None
