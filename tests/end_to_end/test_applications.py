"""The examples of docs/applications, on the real broker with the onboarded identity, before and after a rotation."""

import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from cloud.local.handle import LocalCloud
from tests.device.faulty_device import closed_port
from tests.end_to_end.conftest import ROOT, Stack
from tests.harness import Agent, wait_for

EXAMPLES = ROOT / "docs" / "applications"
POLICY = "telemetry-and-commands"
MOSQUITTO = pwd.getpwnam("mosquitto")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Deploy with the examples' policy, where users other than root can reach devices' directories."""
    with tempfile.TemporaryDirectory(prefix="iot-agent-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with LocalCloud(directory / "cloud") as cloud:
            document = (EXAMPLES / "policy.json").read_text()
            document = document.replace("REGION:ACCOUNT", f"{cloud.description.region}:{cloud.description.account}")
            session = boto3.Session("test", "test", region_name=cloud.description.region)
            iot = session.client("iot", endpoint_url=cloud.description.endpoint_url)
            iot.create_policy(policyName=POLICY, policyDocument=document)
            yield Stack(cloud, directory, "--application-policy", POLICY)


@pytest.fixture(scope="module")
def device(stack: Stack) -> Iterator[Agent]:
    """Give an onboarded device whose identity mosquitto's group may read."""
    agent = onboard(stack)
    yield agent
    agent.kill()


def onboard(stack: Stack) -> Agent:
    agent = stack.new_device()
    agent.directory.chmod(0o755)
    with (agent.directory / "agent.yaml").open("a") as configuration:
        configuration.write("identity: {group: mosquitto}\n")
    agent.start()
    wait_for(lambda: agent.settled(1))
    return agent


def rotate(agent: Agent) -> None:
    rotations = agent.status()["rotations"]
    assert agent.agentctl("rotate").returncode == 0
    wait_for(lambda: agent.settled(rotations + 1))


def identity(agent: Agent) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((agent.directory / "run" / "identity.json").read_text())
    return told


class Application:
    """One of the example programs, running; `said` is every line it has printed."""

    def __init__(self, name: str, agent: Agent) -> None:
        self.output = agent.directory / f"{name}.out"
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), str(agent.directory / "run" / "identity.json")],
            stdin=subprocess.PIPE,
            stdout=self.output.open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    @property
    def said(self) -> list[str]:
        return self.output.read_text().splitlines()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


class Ear:
    """Hears what devices publish, as a certificate of its own that may."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        made = stack.iot.create_keys_and_certificate(setAsActive=True)
        everything = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        stack.iot.create_policy(policyName="ear", policyDocument=document)
        stack.iot.attach_policy(policyName="ear", target=made["certificateArn"])
        certificate, key = directory / "ear.pem", directory / "ear.key"
        certificate.write_text(made["certificatePem"])
        key.write_text(made["keyPair"]["PrivateKey"])
        here, self.heard = stack.cloud.description, list[tuple[str, str]]()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="ear")
        self.client.tls_set(here.mqtt_ca, str(certificate), str(key))
        self.client.on_message = lambda _client, _data, message: self.heard.append(
            (message.topic, message.payload.decode())
        )
        subscribed: list[int] = []
        self.client.on_subscribe = lambda *_: subscribed.append(1)
        self.client.connect(here.mqtt_host, here.mqtt_port)
        self.client.loop_start()
        self.client.subscribe("devices/#", qos=1)
        wait_for(lambda: subscribed)


@pytest.fixture(scope="module")
def ear(stack: Stack) -> Iterator[Ear]:
    ear = Ear(stack, stack.directory)
    yield ear
    ear.client.loop_stop()
    ear.client.disconnect()


def command(stack: Stack, device: Agent, topic: str, text: str) -> None:
    """Send a device a command, as a back end does."""
    here = stack.client("iot-data")
    here.publish(topic=f"devices/{device.serial}/{topic}", qos=1, payload=text.encode())


@pytest.mark.parametrize("name", ["app_paho.py", "app_awsiotsdk.py"])
def test_a_program_changes_over_to_the_new_identity(stack: Stack, device: Agent, ear: Ear, name: str) -> None:
    application = Application(name, device)

    def obeys(text: str) -> bool:
        command(stack, device, "commands", text)
        return text in application.said

    try:
        for turn in ("before", "after"):
            served = identity(device)["certificate_id"]
            assert served == device.status()["identity"]["certificate_id"]
            wait_for(lambda served=served: f"connected with {served}" in application.said)  # type: ignore[misc]  # the loop's
            wait_for(lambda turn=turn: obeys(f"tell {turn}"))  # type: ignore[misc]  # the loop's value
            application.say(f"told {turn}")
            wait_for(lambda turn=turn: (f"devices/{device.serial}/telemetry", f"told {turn}") in ear.heard)  # type: ignore[misc]
            rotate(device)
    finally:
        application.process.kill()
        application.process.wait()
    assert "connection-lost" not in device.log(), "the agent and the application do not throw each other out"


class Mosquitto:
    """The broker with the example's bridge; it gives up root for the user mosquitto by itself."""

    def __init__(self, stack: Stack, device: Agent) -> None:
        self.port, self.device = closed_port(), device
        here = stack.cloud.description
        bridge = (EXAMPLES / "bridge.conf").read_text()
        for example, real in (
            ("example-ats.iot.eu-west-1.amazonaws.com:8883", f"{here.mqtt_host}:{here.mqtt_port}"),
            ("SN-0001", device.serial),
            ("/etc/iot-agent/", f"{device.directory}/"),
            ("/var/lib/iot-agent/", f"{device.directory}/state/"),
        ):
            assert example in bridge
            bridge = bridge.replace(example, real)
        self.file = device.directory / "mosquitto.conf"
        log = device.directory / "mosquitto.log"
        log.touch()
        os.chown(log, MOSQUITTO.pw_uid, MOSQUITTO.pw_gid)
        self.file.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nlog_dest file {log}\nlog_type all\n{bridge}"
        )
        self.log = log
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(self.file)])
        wait_for(self._listens)

    def _listens(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.mark.needs_root
def test_mosquittos_bridge_uses_each_identity(stack: Stack, device: Agent, ear: Ear) -> None:
    mosquitto = Mosquitto(stack, device)
    local = mqtt.Client(CallbackAPIVersion.VERSION2)
    got: list[str] = []

    def subscribe(client: mqtt.Client, *_: object) -> None:
        client.subscribe("commands/#", qos=1)

    local.on_connect = subscribe
    local.on_message = lambda _client, _data, message: got.append(message.payload.decode())
    local.connect("127.0.0.1", mosquitto.port)
    local.loop_start()
    owner = Path(f"/proc/{mosquitto.process.pid}").stat().st_uid
    assert owner == MOSQUITTO.pw_uid, "it reads the key as a member of its group, not as root"

    def arrives(text: str) -> bool:
        local.publish("telemetry/temperature", text, qos=1)
        return (f"devices/{device.serial}/telemetry/temperature", text) in ear.heard

    def obeys(text: str) -> bool:
        command(stack, device, "commands/led", text)
        return text in got

    try:
        for turn in ("before", "after"):
            wait_for(lambda turn=turn: arrives(f"21 {turn}"))  # type: ignore[misc]  # the loop's value
            wait_for(lambda turn=turn: obeys(f"on {turn}"))  # type: ignore[misc]  # the loop's value
            rotate(device)
            mosquitto.stop()  # what the hook restart-mosquitto does
            mosquitto.start()
    finally:
        local.loop_stop()
        mosquitto.stop()
    assert "connection-lost" not in device.log()


@pytest.mark.needs_root
def test_without_the_group_mosquitto_cannot_read_the_key(stack: Stack) -> None:
    device = onboard(stack)
    device.stop()
    path = device.directory / "agent.yaml"
    path.write_text(path.read_text().replace("identity: {group: mosquitto}\n", ""))
    device.start()
    mosquitto = Mosquitto(stack, device)
    try:
        wait_for(lambda: "Unable to load client certificate" in mosquitto.log.read_text())
    finally:
        mosquitto.stop()
        device.kill()


def test_the_example_policy_is_the_one_in_force(device: Agent, ear: Ear) -> None:
    """Another device's topic is not this device's to publish to."""
    application = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device.serial, protocol=mqtt.MQTTv5)
    told = identity(device)
    application.tls_set(told["endpoint_ca"], told["certificate"], told["key"])
    application.connect(told["endpoint"], told["port"])
    application.loop_start()
    try:
        for serial in ("SN-9999", device.serial):
            application.publish(f"devices/{serial}/telemetry", "policy", qos=1)
        wait_for(lambda: (f"devices/{device.serial}/telemetry", "policy") in ear.heard)
    finally:
        application.loop_stop()
    assert ("devices/SN-9999/telemetry", "policy") not in ear.heard
