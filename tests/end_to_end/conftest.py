"""The whole line on real parts: the local cloud with the real stack, deployed by cloud/setup.sh, and real agents."""

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from cloud.local.handle import LocalCloud
from tests.harness import Agent, wait_for

ROOT = Path(__file__).parents[2]
HURRY = """
renewal: {minimum_interval: 1s}
retry: {first: 1s, longest: 4s, prove_attempts: 2}
paths: {state: state, run: run}
"""


class Stack:
    """A deployed stack, and eyes on it that are not the agent's."""

    def __init__(self, cloud: LocalCloud, directory: Path, *options: str) -> None:
        self.cloud, self.directory = cloud, directory
        self.setup("deploy", "--lifetime", "1h", *options)
        self.iot = self.client("iot")
        outputs = self.client("cloudformation").describe_stacks(StackName="iot-agent")["Stacks"][0]["Outputs"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in outputs}
        self.table = self.client("dynamodb", "resource").Table(self.outputs["TableName"])
        self._numbers = itertools.count(1)

    def client(self, service: str, kind: str = "client") -> Any:  # noqa: ANN401 - one of boto3's many
        session = boto3.Session("test", "test", region_name=self.cloud.description.region)
        return getattr(session, kind)(service, endpoint_url=self.cloud.description.endpoint_url)

    def setup(self, *arguments: str) -> None:
        command = [str(ROOT / "cloud" / "setup.sh"), *arguments, "--local", str(self.cloud.directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr

    def new_device(self) -> Agent:
        """Make a device at the factory: bundle, vendor identity, a place on the allow-list."""
        serial = f"SN-{next(self._numbers):04d}"
        directory = self.directory / serial
        self.setup("device", serial, "--out", str(directory))
        with (directory / "agent.yaml").open("a") as configuration:
            configuration.write(HURRY)
        return Agent(directory)

    def item(self, serial: str) -> dict[str, Any]:
        found: dict[str, Any] = self.table.get_item(Key={"serial": serial}, ConsistentRead=True).get("Item", {})
        return found

    def status_of(self, certificate_id: str) -> str | None:
        """Give the registry's word on a certificate; None if it is gone."""
        try:
            found = self.iot.describe_certificate(certificateId=certificate_id)
        except self.iot.exceptions.ResourceNotFoundException:
            return None
        return str(found["certificateDescription"]["status"])

    def active(self, serial: str) -> set[str]:
        """Name the ACTIVE certificates of a thing."""
        principals = self.iot.list_thing_principals(thingName=serial)["principals"]
        ids = {arn.rsplit("/", 1)[1] for arn in principals}
        return {name for name in ids if self.status_of(name) == "ACTIVE"}

    @contextmanager
    def changed_policy(self, output: str, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """Have another version of a policy in force for a while; `output` is the stack's name for it."""
        name = self.outputs[output]
        before = self.iot.get_policy(policyName=name)
        document = json.loads(before["policyDocument"])
        change(document)
        body = json.dumps(document)
        version = self.iot.create_policy_version(policyName=name, policyDocument=body, setAsDefault=True)
        try:
            yield
        finally:
            self.iot.set_default_policy_version(policyName=name, policyVersionId=before["defaultVersionId"])
            self.iot.delete_policy_version(policyName=name, policyVersionId=version["policyVersionId"])


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("end-to-end")
    with LocalCloud(directory / "cloud") as cloud:
        yield Stack(cloud, directory)


@pytest.fixture
def agent(stack: Stack) -> Iterator[Agent]:
    """Give a device fresh from the factory, not yet started."""
    agent = stack.new_device()
    yield agent
    agent.kill()


@pytest.fixture
def onboarded(agent: Agent) -> Agent:
    """Give a device that has its first own certificate, its daemon running."""
    agent.start()
    wait_for(lambda: agent.settled(1))
    return agent
