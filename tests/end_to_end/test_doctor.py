"""The doctor on a healthy device, on real parts: every check runs, and none has anything to say."""

import json
from typing import Any

from tests.end_to_end.conftest import Stack
from tests.harness import Agent


def doctor(agent: Agent) -> tuple[int, dict[str, dict[str, Any]]]:
    done = agent.agentctl("doctor", "--config", str(agent.directory / "agent.yaml"), "--json")
    report = json.loads(done.stdout)
    assert report["schema"] == 1, done.stderr
    return done.returncode, {finding["check"]: finding for finding in report["findings"]}


def test_a_healthy_device_is_all_green(stack: Stack, onboarded: Agent) -> None:
    before = onboarded.history()
    seen = stack.item(onboarded.serial).get("last_seen")
    status, found = doctor(onboarded)
    assert [finding for finding in found.values() if finding["level"] != "fine"] == []
    assert status == 0
    assert set(found) == {
        "configuration", "daemon", "record", "disk.space", "disk.inodes", "disk.write", "disk.kind", "files",
        "keys.store", "identity.bootstrap", "identity.active", "identity.current", "renewal.headroom",
        "renewal.contact", "network.name", "network.tcp", "network.tls", "cloud.check-in", "clock.floor", "clock.trust",
    }  # fmt: skip
    assert "the cloud agrees with it" in found["clock.trust"]["message"]
    assert stack.item(onboarded.serial)["last_seen"] != seen, "the check-in really arrived"
    assert onboarded.history() == before
