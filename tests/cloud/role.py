"""What the template lets the Lambda do, held against every call it makes in the tests.

A call is checked by its action and, as far as its parameters tell, by the resource of the template that it is about.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.cloud.template import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.client import BaseClient
    from botocore.model import OperationModel

SERVICES: Final = {"iot-data": "iot"}
TABLES: Final = {"devices": "DeviceTable", "history": "HistoryTable"}
INDEXED: Final = "DeviceTable.Arn}/index/agenda"
WRITES: Final = {"Update": "dynamodb:UpdateItem", "Put": "dynamodb:PutItem", "Delete": "dynamodb:DeleteItem"}
BY_AWS: Final = {
    "logs:CreateLogStream": "Lambda itself writes what the function prints",
    "logs:PutLogEvents": "the same",
    "sqs:SendMessage": "Lambda itself sends an event that failed to the failure destination",
    "xray:PutTraceSegments": "Lambda itself, when tracing is on",
    "xray:PutTelemetryRecords": "the same",
}
"""Actions that AWS does in the function's name; its code makes no such call."""


@dataclass(frozen=True)
class Call:
    """An action, and what the template calls the resource it is about ("" where the parameters do not tell)."""

    action: str
    resource: str = ""


@dataclass(frozen=True)
class Role:
    """Statements of a policy: which actions on which resources, as they are written in the template."""

    statements: tuple[dict[str, Any], ...]

    @property
    def actions(self) -> set[str]:
        """All that is allowed on something."""
        return {action for statement in self._allowing() for action in _list(statement["Action"])}

    def allows(self, call: Call) -> bool:
        """Whether a call may be made."""
        return any(
            call.action in _list(statement["Action"]) and call.resource in json.dumps(statement["Resource"])
            for statement in self._allowing()
        )

    def _allowing(self) -> Iterator[dict[str, Any]]:
        return (statement for statement in self.statements if statement["Effect"] == "Allow")


@cache
def rotation_role() -> Role:
    """Return the Lambda's, with either branch of each condition."""
    (policy,) = RESOURCES["RotationRole"]["Properties"]["Policies"]
    found = []
    for statement in policy["PolicyDocument"]["Statement"]:
        branches = statement["If"][1:] if "If" in statement else [statement]
        found += [branch for branch in branches if "Effect" in branch]
    return Role(tuple(found))


MADE: Final[set[Call]] = set()
"""Every call that was made since it was last cleared."""


def watch(client: BaseClient) -> None:
    """Have every call of a client noted in MADE, and the test fail when the role does not allow it."""

    def look(params: dict[str, Any], model: OperationModel, **_rest: object) -> None:
        for call in calls(model.service_model.service_name, model.name, params):
            MADE.add(call)
            if not rotation_role().allows(call):
                pytest.fail(f"the role does not allow {call}")  # not an Exception: the Lambda does not catch it

    client.meta.events.register("before-parameter-build", look)


def calls(service: str, operation: str, parameters: dict[str, Any]) -> Iterator[Call]:
    """Return what IAM looks at when a call is made (Service Authorization Reference, of each service)."""
    prefix = SERVICES.get(service, service)
    if operation == "TransactWriteItems":
        for item in parameters["TransactItems"]:
            ((kind, one),) = item.items()
            yield Call(WRITES[kind], TABLES[one["TableName"]])
    elif service == "dynamodb":
        table = parameters["TableName"]
        yield Call(f"{prefix}:{operation}", INDEXED if "IndexName" in parameters else TABLES[table])
    else:
        yield Call(f"{prefix}:{operation}")


def _list(one_or_many: str | list[str]) -> list[str]:
    return [one_or_many] if isinstance(one_or_many, str) else one_or_many
