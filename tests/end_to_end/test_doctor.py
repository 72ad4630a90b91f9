"""The doctor on a healthy device, on real parts: every check runs, and none has anything to say."""

import json
import threading
from typing import Any

from tests.end_to_end.conftest import Stack
from tests.harness import Agent, wait_for


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


def test_the_doctor_and_rotations_do_not_disturb_each_other(onboarded: Agent) -> None:
    """Both open sessions under one client id, as fast as they can, and none is closed by the other."""
    seen: list[dict[str, Any]] = []
    done = threading.Event()

    def examine() -> None:
        while not done.is_set():
            seen.append(doctor(onboarded)[1]["cloud.check-in"])

    thread = threading.Thread(target=examine)
    thread.start()
    try:
        for rotation in (2, 3, 4):
            assert onboarded.agentctl("rotate").returncode == 0
            wait_for(lambda rotation=rotation: onboarded.settled(rotation))  # type: ignore[misc]  # the loop's value
    finally:
        done.set()
        thread.join()
    assert [finding for finding in seen if finding["level"] != "fine"] == []
    assert len(seen) > 1
    assert "connection-lost" not in onboarded.log()
    assert "refused" not in onboarded.log().partition("promoted")[2]


def test_a_policy_that_forbids_the_check_in_is_found(stack: Stack, onboarded: Agent) -> None:
    def forbid(document: dict[str, Any]) -> None:
        topic = "arn:aws:iot:*:*:topic/cert-rotation/check-in/*"
        document["Statement"].append({"Effect": "Deny", "Action": "iot:Publish", "Resource": topic})

    with stack.changed_policy("DevicePolicyName", forbid):
        status, found = doctor(onboarded)
    assert status == 2
    assert found["cloud.check-in"]["level"] == "error"
    assert found["cloud.check-in"]["remedy"]


def test_a_certificate_that_the_cloud_has_taken_back_is_found(stack: Stack, onboarded: Agent) -> None:
    served = onboarded.status()["identity"]["certificate_id"]
    stack.iot.update_certificate(certificateId=served, newStatus="INACTIVE")
    _, found = doctor(onboarded)
    assert "closed the connection" in found["cloud.check-in"]["message"]
    assert found["identity.active"]["level"] == "fine", "nothing on the device is wrong"
    stack.iot.update_certificate(certificateId=served, newStatus="ACTIVE")
