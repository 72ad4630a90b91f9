"""A second stack on the topic prefix of the first: setup refuses it, and one that is there all the same is silent."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end import unchecked
from tests.end_to_end.conftest import ROOT, Stack
from tests.harness import Agent, wait_for

OTHER = ["--stack", "rehearsal", "--lifetime", "1h"]


class Rehearsal:
    """The second stack, and what its Lambda says."""

    def __init__(self, stack: Stack) -> None:
        self._logs = stack.client("logs")
        described = stack.client("cloudformation").describe_stacks(StackName="rehearsal")["Stacks"][0]["Outputs"]
        outputs = {one["OutputKey"]: one["OutputValue"] for one in described}
        self.table = stack.client("dynamodb", "resource").Table(outputs["TableName"])

    def counted(self, serial: str) -> Counter[str]:
        """Return how often it counted what about a device."""
        pages = self._logs.get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/rehearsal-rotation")
        told = [event["message"] for page in pages for event in page["events"]]
        lines: list[dict[str, Any]] = [json.loads(line) for line in told if line.startswith("{")]
        return Counter(
            directive["Name"]
            for line in lines
            if line.get("serial") == serial and "_aws" in line
            for directive in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
        )


def test_setup_refuses_a_prefix_that_another_stack_uses(stack: Stack) -> None:
    before = stack.iot.list_topic_rules()["rules"], stack.client("ssm").describe_parameters()["Parameters"]
    command = [str(ROOT / "cloud" / "setup.sh"), "deploy", *OTHER, "--local", str(stack.cloud.directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 1
    assert "topic prefix cert-rotation is used" in done.stderr
    assert "cert-rotation/ack-man-cert/+/rqst" in done.stderr
    assert "give another --topic-prefix" in done.stderr
    assert (stack.iot.list_topic_rules()["rules"], stack.client("ssm").describe_parameters()["Parameters"]) == before


@pytest.fixture(scope="module")
def rehearsal(stack: Stack) -> Iterator[Rehearsal]:
    where = ["--local", str(stack.cloud.directory)]
    command = [sys.executable, unchecked.__file__, "deploy", *OTHER, *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    yield Rehearsal(stack)
    stack.setup("destroy", "--stack", "rehearsal", "--yes", "--delete-vendor-key")


@pytest.mark.parametrize("known", [False, True], ids=["unknown there", "allowed there too"])
def test_a_life_beside_another_stack_is_undisturbed(
    stack: Stack, rehearsal: Rehearsal, agent: Agent, *, known: bool
) -> None:
    if known:
        rehearsal.table.put_item(Item={"serial": agent.serial, "state": "ALLOWED", "version": 0})
    with (agent.directory / "agent.yaml").open("a") as configuration:
        configuration.write("check_in: {every: 1s}\n")
    agent.start()
    wait_for(lambda: agent.settled(1))
    assert agent.agentctl("rotate", "--wait", "20").returncode == 0
    wait_for(lambda: agent.settled(2))
    wait_for(lambda: rehearsal.counted(agent.serial)["Foreign"] >= 5)  # two rotations and a check-in
    assert set(rehearsal.counted(agent.serial)) == {"Foreign"}
    assert agent.status()["last_error"] is None
    first, second = ["introduced", "issued", "promoted"], ["rotation-requested", "issued", "promoted", "retired"]
    assert [one["event"] for one in agent.history()] == [*first, *second]
    assert stack.active(agent.serial) == {agent.status()["identity"]["certificate_id"]}
