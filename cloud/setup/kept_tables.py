"""Adopts the tables that a deleted stack has left behind, so that a new deploy goes on with the fleet's records.

CloudFormation keeps the tables when it deletes the stack. A new stack would make new, empty ones, and every device
would be refused. So the stack is first made by an import of those tables, and then updated to the whole template
(CloudFormation: "Create a stack from existing resources"; AWS::DynamoDB::Table supports it).

The imported template describes the tables as they are, without their names: with a name there, the update to the
template, which has none, would replace them.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import WaiterError

from cloud.common.errors import SetupError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import WaiterConfigTypeDef
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef

    from cloud.common.aws_session import Cloud
    from cloud.setup.stack import Stack

KEYS: Final = {"DeviceTable": ["serial"], "HistoryTable": ["serial", "line"]}
"""The tables, by their names in the template, and their keys."""


def named_after(dynamodb: DynamoDBClient, stack: str) -> dict[str, list[str]]:
    """Return the tables that CloudFormation has named after the stack, by their names in the template."""
    pages = dynamodb.get_paginator("list_tables").paginate()
    every = [name for page in pages for name in page["TableNames"]]
    return {
        logical: [name for name in every if re.fullmatch(rf"{re.escape(stack)}-{logical}-[A-Za-z0-9]+", name)]
        for logical in KEYS
    }


def find(cloud: Cloud, stack: Stack) -> dict[str, str]:
    """Return the tables to adopt, by their names in the template; none if the stack is there. Raises SetupError."""
    if stack.is_made():
        return {}
    found = named_after(cloud.session.client("dynamodb", config=cloud.config), stack.name)
    if any(len(names) > 1 for names in found.values()):
        told = ", ".join(name for names in found.values() for name in names)
        raise SetupError(
            f"nothing was changed; earlier stacks named {stack.name} have left several tables: {told}",
            "to go on with the records of one, delete the others: aws dynamodb delete-table --table-name NAME; "
            f"to start with empty tables: cloud/setup.sh destroy --stack {stack.name}",
        )
    return {logical: names[0] for logical, names in found.items() if names}


def adopt(cloud: Cloud, stack: Stack, tables: dict[str, str]) -> None:
    """Make the stack, of these tables and nothing else. Raises SetupError if one is not a table of this template."""
    dynamodb = cloud.session.client("dynamodb", config=cloud.config)
    described = {logical: dynamodb.describe_table(TableName=name)["Table"] for logical, name in tables.items()}
    for logical, table in described.items():
        keys = [one["AttributeName"] for one in table["KeySchema"]]
        if keys != KEYS[logical]:
            raise SetupError(
                f"table {tables[logical]} has the keys {keys}, not {KEYS[logical]}: it is not of this template",
                "deploy with another --stack",
            )
    resources = {
        logical: {
            "Type": "AWS::DynamoDB::Table",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": _properties(table),
        }
        for logical, table in described.items()
    }
    client = cloud.session.client("cloudformation", config=cloud.config)
    change_set = f"adopt-{uuid.uuid4().hex[:8]}"
    client.create_change_set(
        StackName=stack.name,
        ChangeSetName=change_set,
        ChangeSetType="IMPORT",
        TemplateBody=json.dumps({"Resources": resources}),
        ResourcesToImport=[
            {
                "ResourceType": "AWS::DynamoDB::Table",
                "LogicalResourceId": logical,
                "ResourceIdentifier": {"TableName": name},
            }
            for logical, name in tables.items()
        ],
    )
    often: WaiterConfigTypeDef = {"Delay": 1}
    made, done = client.get_waiter("change_set_create_complete"), client.get_waiter("stack_import_complete")
    try:
        made.wait(StackName=stack.name, ChangeSetName=change_set, WaiterConfig=often)
        client.execute_change_set(StackName=stack.name, ChangeSetName=change_set)
        done.wait(StackName=stack.name, WaiterConfig=often)
    except WaiterError as error:
        raise SetupError(
            f"CloudFormation did not adopt {', '.join(tables.values())}: {error}",
            f"read why: aws cloudformation describe-stack-events --stack-name {stack.name}; the tables are unchanged",
        ) from error


def _properties(table: TableDescriptionTypeDef) -> dict[str, Any]:
    """Return a table as the template of a stack describes it."""
    indexes = [
        {"IndexName": index["IndexName"], "KeySchema": index["KeySchema"], "Projection": index["Projection"]}
        for index in table.get("GlobalSecondaryIndexes", [])
    ]
    properties: dict[str, Any] = {
        "AttributeDefinitions": table["AttributeDefinitions"],
        "KeySchema": table["KeySchema"],
        "BillingMode": table.get("BillingModeSummary", {}).get("BillingMode", "PAY_PER_REQUEST"),
    }
    if indexes:
        properties["GlobalSecondaryIndexes"] = indexes
    if table.get("SSEDescription", {}).get("SSEType") == "KMS":
        properties["SSESpecification"] = {"SSEEnabled": True}
    return properties
