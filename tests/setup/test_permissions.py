"""The policies for roles: as documented, limited as documented, and with every action that the role's commands call."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cloud.setup import permissions
from cloud.setup.__main__ import main

DOCUMENTS = Path(__file__).parents[2] / "docs"
ROLES = sorted(permissions.ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_the_page_has_the_policy_that_is_printed(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["permissions", role]) == 0
    printed = capsys.readouterr().out
    page = (DOCUMENTS / "permissions.md").read_text()
    section = page.partition(f"### {role}\n")[2].partition("\n### ")[0]
    assert f"```json\n{printed}```" in section, f"docs/permissions.md: put in what `setup.sh permissions {role}` prints"


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_grants_the_roles_actions_once_and_fits_into_a_managed_policy(role: str) -> None:
    document = permissions.policy(role, "iot-agent")
    granted = [action for statement in document["Statement"] for action in statement["Action"]]
    assert sorted(granted) == sorted(permissions.ROLES[role])
    size = len(re.sub(r"\s", "", json.dumps(document)))
    assert size <= 6144  # IAM: "IAM and AWS STS quotas", characters of a managed policy without white space


def test_what_is_named_after_the_stack_is_limited_to_it() -> None:
    for statement in permissions.policy("deploy", "staging")["Statement"]:
        services = {action.partition(":")[0] for action in statement["Action"]}
        if statement["Resource"] == "*":
            assert services.isdisjoint(permissions.NAMED) or set(statement["Action"]) >= permissions.WITHOUT_RESOURCE
        else:
            assert services <= set(permissions.NAMED)
            assert all("staging" in one or services == {"s3"} for one in statement["Resource"])


def test_who_reads_changes_nothing() -> None:
    verbs = {action.partition(":")[2] for action in permissions.ROLES["reader"]}
    assert {verb for verb in verbs if not verb.startswith(("Get", "List", "Describe", "Query", "Scan"))} == set()


@pytest.mark.parametrize(("role", "rows"), [("operator", r".*"), ("reader", r"`list`.*|`show`")])
def test_an_operator_may_call_what_the_commands_of_iot_fleet_call(role: str, rows: str) -> None:
    """docs/operations.md has that table; tests/fleet/test_permissions.py compares it with the calls."""
    page = (DOCUMENTS / "operations.md").read_text()
    told = re.findall(rf"^\| (?:{rows}) \| .*(?:dynamodb|iot):.* \|$", page, re.MULTILINE)
    assert told
    called = {action for row in told for action in re.findall(r"(?:dynamodb|iot):\w+", row)}
    assert called | {"cloudformation:DescribeStacks"} == permissions.ROLES[role]
