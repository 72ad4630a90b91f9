"""A stack that CloudFormation has deleted leaves its tables: the next deploy goes on with them, or refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local.local_stack import Stage

pytestmark = pytest.mark.local_cloud

STACK = "adopted"
WHICH = ("--stack", STACK)


@pytest.fixture
def left(stage: Stage) -> Iterator[dict[str, str]]:
    """Deploy, allow a device, and delete the stack with CloudFormation alone; return its outputs."""
    stage.setup("deploy", *WHICH)
    stage.device("SN-KEPT", *WHICH)
    outputs = outputs_of(stage)
    client = stage.session.client("cloudformation", endpoint_url=stage.here.endpoint_url)
    client.delete_stack(StackName=STACK)
    client.get_waiter("stack_delete_complete").wait(StackName=STACK, WaiterConfig={"Delay": 1})
    yield outputs
    stage.setup("destroy", *WHICH, "--yes", "--delete-vendor-key")


def outputs_of(stage: Stage) -> dict[str, str]:
    client = stage.session.client("cloudformation", endpoint_url=stage.here.endpoint_url)
    (found,) = client.describe_stacks(StackName=STACK)["Stacks"]
    return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}


def tables(stage: Stage) -> Any:  # noqa: ANN401 - a client
    return stage.session.client("dynamodb", endpoint_url=stage.here.endpoint_url)


def test_the_next_deploy_goes_on_with_the_records(stage: Stage, left: dict[str, str]) -> None:
    names = [left["TableName"], left["HistoryTableName"]]
    assert f"would adopt the tables {', '.join(names)}" in stage.setup("deploy", *WHICH, "--dry-run")
    said = stage.setup("deploy", *WHICH)
    assert f"adopting the tables that an earlier stack has left: {', '.join(names)}" in said
    assert outputs_of(stage)["TableName"] == left["TableName"]
    assert outputs_of(stage)["HistoryTableName"] == left["HistoryTableName"]
    assert outputs_of(stage)["VendorCaId"] == left["VendorCaId"], "its bundles are still good"
    (kept,) = tables(stage).scan(TableName=left["TableName"])["Items"]
    assert kept["serial"] == {"S": "SN-KEPT"}
    assert "was already on the allow-list" in stage.setup(
        "device", "SN-KEPT", "--out", str(stage.cloud.directory / "SN-KEPT"), *WHICH
    )
    assert "adopting" not in stage.setup("deploy", *WHICH)


def test_of_several_it_chooses_none(stage: Stage, left: dict[str, str]) -> None:
    other = f"{STACK}-DeviceTable-OLDER"
    tables(stage).create_table(
        TableName=other,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "serial", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "serial", "KeyType": "HASH"}],
    )
    said = stage.setup("deploy", *WHICH, succeeds=False)
    assert "nothing was changed" in said
    assert left["TableName"] in said
    assert other in said
    assert "delete the others" in said
    assert "cloud/setup.sh destroy" in said
