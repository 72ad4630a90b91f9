"""A device's life on real parts, undisturbed and disturbed."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from iot_agent.core import protocol
from iot_agent.core.errors import AgentError
from iot_agent.core.ports import Credentials
from iot_agent.core.protocol import ACK, CREATE, CreateResponse, ErrorResponse, Topics
from iot_agent.keys import certificates
from iot_agent.keys.pin import PinSources
from iot_agent.worker.mqtt import Endpoint, MqttCloud, MqttSession
from tests.end_to_end.conftest import Stack
from tests.harness import Agent, wait_for

LONG = 60.0


class Client:
    """A client of the test's own, with an identity of a device."""

    def __init__(self, stack: Stack, agent: Agent, identity: str) -> None:
        here = stack.cloud.description
        directory = agent.directory / identity
        self.credentials = Credentials(directory / "certificate.pem", directory / "key.pem")
        name = f"{agent.serial}-agent" if identity == "bootstrap" else agent.serial  # as the policies allow
        endpoint = Endpoint(here.mqtt_host, here.mqtt_port, agent.directory / "endpoint-ca.pem", name)
        self.cloud, self.topics = (
            MqttCloud(endpoint, PinSources(agent.directory)),
            Topics("cert-rotation", agent.serial),
        )

    def accepted(self) -> bool:
        """Say whether the broker takes this identity."""
        try:
            with self.cloud.session(self.credentials):
                return True
        except AgentError:
            return False

    def create(self, session: MqttSession, csr: str, request_id: str) -> CreateResponse | ErrorResponse:
        session.subscribe([self.topics.response(CREATE)])
        payload = protocol.encode(protocol.CreateRequest(csr, request_id))

        def accept(reply: bytes) -> CreateResponse | ErrorResponse | None:
            read = protocol.parse_create_response(reply)
            return read if read.request_id == request_id else None

        reply = session.exchange(self.topics.request(CREATE), payload, self.topics.response(CREATE), accept)
        return cast("CreateResponse | ErrorResponse", reply)

    def acknowledge(self, session: MqttSession, certificate_id: str) -> protocol.AckResponse | ErrorResponse:
        session.subscribe([self.topics.response(ACK)])
        payload = protocol.encode(protocol.AckRequest(certificate_id, "ack-1"))
        topic, answer = self.topics.request(ACK), self.topics.response(ACK)
        reply = session.exchange(topic, payload, answer, protocol.parse_ack_response)
        return cast("protocol.AckResponse | ErrorResponse", reply)


def csr_for(name: str) -> str:
    return certificates.build_csr(certificates.load_key(certificates.generate_key("ec-p256")), name)


def check_rest(stack: Stack, agent: Agent) -> str:
    """At rest, exactly one certificate is ACTIVE, and it is the one on disk. Gives its id."""
    wait_for(lambda: len(stack.active(agent.serial)) == 1)
    on_disk = agent.status()["identity"]["certificate_id"]
    assert stack.active(agent.serial) == {on_disk}
    state = agent.directory / "state"
    wait_for(lambda: [path.name for path in (state / "identities").iterdir()] == [(state / "current").readlink().name])
    assert stack.item(agent.serial)["active"]["certificate_id"] == on_disk
    return str(on_disk)


def test_a_device_comes_aboard_and_rotates(stack: Stack, agent: Agent) -> None:
    agent.start()
    wait_for(lambda: agent.settled(1))
    first = check_rest(stack, agent)
    assert "the cloud closed the connection" in agent.log(), "just-in-time provisioning drops the first connection"
    vendor = stack.item(agent.serial)["vendor_certificate_id"]
    wait_for(lambda: stack.status_of(vendor) == "INACTIVE")
    assert not Client(stack, agent, "bootstrap").accepted()
    assert stack.status_of(vendor) == "INACTIVE", "it must not come back to life by connecting"
    agent.agentctl("rotate", "--wait", "20")
    wait_for(lambda: agent.settled(2))
    assert check_rest(stack, agent) != first
    wait_for(lambda: stack.status_of(first) is None)
    events = [event["event"] for event in agent.history()]
    assert events == ["introduced", "issued", "promoted", "rotation-requested", "issued", "promoted", "retired"]


def test_the_same_request_twice_gets_the_same_certificate(stack: Stack, agent: Agent) -> None:
    vendor = Client(stack, agent, "bootstrap")
    csr = csr_for(agent.serial)
    with vendor.cloud.session(vendor.credentials) as session:
        first = vendor.create(session, csr, "r-1")
        again = vendor.create(session, csr, "r-1")
    with vendor.cloud.session(vendor.credentials) as session:
        later = vendor.create(session, csr, "r-2")
    assert isinstance(first, CreateResponse)
    assert isinstance(later, CreateResponse)
    assert first == CreateResponse(first.pem, first.cert_id, "r-1", first.chain, first.time)
    assert isinstance(again, CreateResponse)
    assert first.cert_id == again.cert_id == later.cert_id
    assert stack.item(agent.serial)["pending"]["certificate_id"] == first.cert_id


def deny(action: str, resource: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["Statement"].append({"Effect": "Deny", "Action": action, "Resource": f"arn:aws:iot:*:*:{resource}"})

    return change


def test_a_lost_response_is_asked_for_again_and_is_the_same(stack: Stack, agent: Agent) -> None:
    with stack.changed_policy("BootstrapPolicyName", deny("iot:Receive", "topic/cert-rotation/create-man-cert/*")):
        agent.start()
        wait_for(lambda: (agent.status()["last_error"] or {}).get("code") == "no-reply", LONG)
        lost = stack.item(agent.serial)["pending"]["certificate_id"]
        assert agent.status()["state"] == "jitp"
    wait_for(lambda: agent.settled(1), LONG)
    assert check_rest(stack, agent) == lost


def test_a_serial_that_is_not_on_the_allow_list_is_quarantined(stack: Stack, agent: Agent) -> None:
    stack.table.delete_item(Key={"serial": agent.serial})
    agent.start()
    wait_for(lambda: stack.item(agent.serial).get("state") == "QUARANTINED")
    quarantined = stack.item(agent.serial)["quarantined"][-1]
    wait_for(lambda: stack.status_of(quarantined) == "INACTIVE")
    wait_for(lambda: not Client(stack, agent, "bootstrap").accepted())
    wait_for(lambda: (agent.status()["last_error"] or {}).get("code") in ("refused", "cloud-refused", "not-permitted"))
    assert agent.status()["rotations"] == 0
    with pytest.raises(stack.iot.exceptions.ResourceNotFoundException):
        stack.iot.describe_thing(thingName=agent.serial)


def test_an_acknowledgement_over_another_certificate_is_refused(stack: Stack, onboarded: Agent) -> None:
    served = check_rest(stack, onboarded)
    onboarded.stop()
    owner = Client(stack, onboarded, "state/current")
    with owner.cloud.session(owner.credentials) as session:
        issued = owner.create(session, csr_for(onboarded.serial), "r-1")
        assert isinstance(issued, CreateResponse)
        refused = owner.acknowledge(session, issued.cert_id)
    assert isinstance(refused, ErrorResponse)
    assert refused.code == "wrong-principal"
    item = stack.item(onboarded.serial)
    assert (item["active"]["certificate_id"], item["pending"]["certificate_id"]) == (served, issued.cert_id)
    assert owner.accepted()


def test_a_request_for_another_serial_is_refused(stack: Stack, agent: Agent) -> None:
    vendor = Client(stack, agent, "bootstrap")
    with vendor.cloud.session(vendor.credentials) as session:
        refused = vendor.create(session, csr_for("SN-9999"), "r-1")
    assert isinstance(refused, ErrorResponse)
    assert refused.code == "bad-csr"
    assert "pending" not in stack.item(agent.serial)
    vendor.topics = Topics("cert-rotation", "SN-9999")
    with vendor.cloud.session(vendor.credentials) as session, pytest.raises(AgentError) as denied:
        session.exchange(vendor.topics.request(CREATE), b"{}", vendor.topics.response(CREATE), lambda _: None)
    assert denied.value.code in ("not-permitted", "connection-lost")


def test_a_new_certificate_that_may_not_publish_is_rolled_back_and_then_recovers(
    stack: Stack, onboarded: Agent
) -> None:
    served = check_rest(stack, onboarded)
    with stack.changed_policy("DevicePolicyName", deny("iot:Publish", "topic/cert-rotation/ack-man-cert/*")):
        assert onboarded.agentctl("rotate").returncode == 0
        wait_for(lambda: "rolled-back" in [event["event"] for event in onboarded.history()], LONG)
        assert onboarded.status()["identity"]["certificate_id"] == served
        assert Client(stack, onboarded, "state/current").accepted()
    wait_for(lambda: onboarded.settled(2), LONG)
    assert check_rest(stack, onboarded) != served


def disturb(agent: Agent, dice: random.Random, times: int) -> None:
    """Kill the worker, or the daemon, after some more of what they do."""
    for _ in range(times):
        agent.wait_for_changes(dice.randrange(12))
        if dice.random() < 0.5:
            agent.kill()
            agent.start()
            continue
        children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children") if agent.process else None
        for worker in (children.read_text().split() if children else [])[:1]:
            try:
                os.kill(int(worker), signal.SIGKILL)
            except ProcessLookupError:
                continue  # it was quicker


@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again_it_still_arrives(stack: Stack, agent: Agent, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - a test's dice
    agent.start()
    disturb(agent, dice, 4)
    wait_for(lambda: agent.settled(1), LONG)
    check_rest(stack, agent)
    for rotation in (2, 3):
        assert agent.agentctl("rotate").returncode == 0
        disturb(agent, dice, 3)
        wait_for(lambda rotation=rotation: agent.settled(rotation), LONG)  # type: ignore[misc]  # binds the loop's value
        check_rest(stack, agent)
