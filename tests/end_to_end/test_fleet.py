"""The operator's commands as typed in a shell, and what a real device makes of them."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import Stack
from tests.end_to_end.test_life import check_rest
from tests.harness import Agent, wait_for

COMMAND = Path(__file__).parents[2] / "cloud" / "iot-fleet"


def fleet(stack: Stack, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(COMMAND), *words, "--local", str(stack.cloud.directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def shown(stack: Stack, agent: Agent) -> dict[str, Any]:
    done = fleet(stack, "show", agent.serial, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_an_operator_sees_a_device_and_has_it_renew(stack: Stack, agent: Agent) -> None:
    with (agent.directory / "agent.yaml").open("a") as configuration:
        configuration.write("check_in: {every: 2s}\n")
    agent.start()
    wait_for(lambda: agent.settled(1))
    first = check_rest(stack, agent)
    report = shown(stack, agent)
    assert report["certificate_id"] == first
    assert [line["event"] for line in report["history"]][:4] == ["allowed", "registered", "issued", "proven"]
    assert report["findings"] == []
    told = fleet(stack, "rotate", agent.serial, "--over", "10s", "--reason", "a test")
    assert told.returncode == 0, told.stderr
    wait_for(lambda: agent.settled(2))
    assert "renewing: the cloud advised it" in agent.log()
    assert check_rest(stack, agent) != first
    listed = fleet(stack, "list", "--prefix", agent.serial).stdout
    assert "ROTATION_COMPLETE" in listed
    assert "told to renew" not in listed
    page = agent.directory / "fleet.html"
    assert fleet(stack, "forecast", "--html", str(page)).returncode == 0
    assert "<svg" in page.read_text()


def test_a_revoked_device_stays_out_until_it_is_readmitted(stack: Stack, onboarded: Agent) -> None:
    first = check_rest(stack, onboarded)
    assert fleet(stack, "revoke", onboarded.serial, "--yes").returncode == 0
    assert stack.status_of(first) is None
    assert onboarded.agentctl("rotate").returncode == 0
    wait_for(lambda: (onboarded.status()["last_error"] or {}).get("code") == "refused")
    assert fleet(stack, "readmit", onboarded.serial, "--for", "1h").returncode == 0
    wait_for(lambda: onboarded.settled(2), 60)
    assert check_rest(stack, onboarded) != first
    assert shown(stack, onboarded)["state"] == "ROTATION_COMPLETE"
