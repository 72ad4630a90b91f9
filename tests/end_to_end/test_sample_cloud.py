"""Our agent against the cloud of the aws-samples on-boarding sample: two fields suffice, and silence does no harm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.local.handle import LocalCloud
from tests.end_to_end.sample_cloud import SampleCloud
from tests.end_to_end.sample_device import VendorIdentity
from tests.harness import Agent, impatient, wait_for

CONFIGURATION = """
serial: {serial}
endpoint: {{host: {host}, port: {port}, ca_file: {ca}}}
topic_prefix: /cert-rotation
manufacturer_ca: {manufacturer_ca}
bootstrap: {{certificate: {certificate}, key: {key}}}
renewal: {{minimum_interval: 1s}}
retry: {{first: 1s, longest: 2s, prove_attempts: 2}}
paths: {{state: state, run: run}}
"""


class Site:
    """A local cloud with the sample's side of the wire on it."""

    def __init__(self, cloud: LocalCloud, directory: Path) -> None:
        self.here, self.directory = cloud.description, directory
        self.sample = SampleCloud(cloud, directory)

    def new_agent(self, serial: str, more: str) -> Agent:
        """Give an agent with the identity that the sample's vendor gives its devices."""
        identity = VendorIdentity(self.directory / serial, serial)
        identity.directory.mkdir()
        identity.make(self.sample.vendor_ca)
        settings = CONFIGURATION.format(
            serial=serial,
            host=self.here.mqtt_host,
            port=self.here.mqtt_port,
            ca=self.here.mqtt_ca,
            manufacturer_ca=self.sample.manufacturer_ca.certificate,
            certificate=identity.chain,
            key=identity.key,
        )
        limits = "" if "limits" in more else "limits: {step: 6s}\n"
        (identity.directory / "agent.yaml").write_text(settings + limits + more)
        return Agent(identity.directory)

    def asked(self, agent: Agent) -> list[str]:
        """Tell what an agent has asked for, in order."""
        return [verb for verb, serial in map(str.split, self.sample.asked) if serial == agent.serial]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("sample-cloud")
    with LocalCloud(directory / "cloud") as cloud:
        site = Site(cloud, directory)
        site.sample.start()
        yield site
        site.sample.stop()


@pytest.fixture
def agent(site: Site, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """Give an agent not yet started; a test's parameter is what more there is to its configuration."""
    agent = site.new_agent(f"IUQWXALODJESC{len(list(site.directory.glob('IUQ*')))}", getattr(request, "param", ""))
    for name, value in impatient(agent.directory).items():
        monkeypatch.setenv(name, value)
    yield agent
    agent.kill()


@pytest.fixture
def aboard(agent: Agent) -> Agent:
    """Give a running agent that has its certificate."""
    agent.start()
    wait_for(lambda: agent.status()["rotations"] == 1)
    return agent


def served(agent: Agent) -> str:
    return str(agent.status()["identity"]["certificate_id"])


def failed(agent: Agent) -> str:
    return str((agent.status()["last_error"] or {}).get("step"))


def events(agent: Agent) -> list[str]:
    return [event["event"] for event in agent.history()]


def test_the_agent_comes_aboard_with_two_fields(site: Site, aboard: Agent) -> None:
    assert site.sample.certificates(aboard.serial) == {served(aboard): "ACTIVE"}, "the vendor certificate is gone"
    assert site.asked(aboard) == ["create-man-cert", "ack-man-cert"]
    assert events(aboard) == ["introduced", "issued", "promoted"]
    assert "the cloud closed the connection" in aboard.log(), "just-in-time provisioning drops the first connection"


@pytest.mark.parametrize("agent", ['client_id: "{serial}"'], indirect=True)
def test_it_rotates_again(site: Site, aboard: Agent) -> None:
    site.sample.renews.add(aboard.serial)
    first = served(aboard)
    assert aboard.agentctl("rotate", "--wait", "20").returncode == 0
    assert served(aboard) != first
    assert site.sample.certificates(aboard.serial) == {served(aboard): "ACTIVE"}


@pytest.mark.parametrize("agent", ["check_in: {every: 1s}"], indirect=True)
def test_a_check_in_that_nobody_answers_does_no_harm(site: Site, aboard: Agent) -> None:
    site.sample.renews.add(aboard.serial)
    wait_for(lambda: failed(aboard) == "check-in")
    assert aboard.agentctl("rotate", "--wait", "20").returncode == 0
    assert events(aboard)[-3:-1] == ["rotation-requested", "issued"]
    wait_for(lambda: failed(aboard) == "check-in")
    assert site.sample.certificates(aboard.serial) == {served(aboard): "ACTIVE"}
    assert aboard.status()["state"] == "acked"


def test_a_rotation_that_nobody_answers_leaves_the_certificate_in_force(site: Site, aboard: Agent) -> None:
    first = served(aboard)
    assert aboard.agentctl("rotate").returncode == 0
    wait_for(lambda: failed(aboard) == "request")
    assert served(aboard) == first
    assert site.sample.certificates(aboard.serial) == {first: "ACTIVE"}
    site.sample.renews.add(aboard.serial)
    wait_for(lambda: aboard.status()["rotations"] == 2)
    assert site.sample.certificates(aboard.serial) == {served(aboard): "ACTIVE"}


def test_a_lost_answer_is_asked_for_again(site: Site, agent: Agent) -> None:
    site.sample.loses.add(agent.serial)
    agent.start()
    wait_for(lambda: agent.settled(1))
    assert site.asked(agent) == ["create-man-cert", "create-man-cert", "ack-man-cert"]
    assert site.sample.certificates(agent.serial) == {served(agent): "ACTIVE"}


@pytest.mark.parametrize("agent", ["check_in: {every: 1s}\nlimits: {step: 1m}"], indirect=True)
def test_an_acknowledgement_whose_answer_is_lost_for_ever_ends_on_the_certificate_that_is_active(
    site: Site, agent: Agent
) -> None:
    site.sample.loses_acknowledgements.add(agent.serial)
    agent.start()
    wait_for(lambda: agent.status()["state"] == "acked", 90)
    assert site.sample.certificates(agent.serial) == {served(agent): "ACTIVE"}
    assert events(agent) == ["introduced", "issued", "promoted"], "nothing was given up"
    wait_for(lambda: failed(agent) == "check-in", 60)
    assert site.sample.certificates(agent.serial) == {served(agent): "ACTIVE"}, "the vendor certificate was not shown"
