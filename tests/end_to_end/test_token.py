"""A device's life on real parts with its keys on a token: SoftHSM, and a software TPM."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.local.tokens import LABEL, PIN, LocalToken, SoftHsm, SoftTpm, TpmToken
from tests.end_to_end.conftest import Stack
from tests.end_to_end.test_life import LONG, check_rest
from tests.harness import Agent, wait_for


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftTpm]:
    tpm = SoftTpm(tmp_path_factory.mktemp("tpm"))
    tpm.start()
    yield tpm
    tpm.stop()


@pytest.fixture(params=["softhsm", "tpm"])
def token(request: pytest.FixtureRequest, tmp_path: Path) -> LocalToken:
    if request.param == "softhsm":
        return SoftHsm(tmp_path / "token")
    return TpmToken(tmp_path / "token", request.getfixturevalue("tpm").bus)


def objects(token: LocalToken) -> list[str]:
    lines = (line.strip() for line in token.tool("--list-objects").splitlines())
    return sorted(line.split(":", 1)[1].strip() for line in lines if line.startswith("label:"))


def current(agent: Agent) -> Path:
    return agent.directory / "state" / "current"


def configure(agent: Agent, keys: str) -> None:
    """Set the keys section, which stands alone on the last line."""
    path = agent.directory / "agent.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("keys:")]
    path.write_text("\n".join([*lines, keys]))


def on_the_token_alone(agent: Agent, token: LocalToken) -> None:
    label = agent.status()["identity"]["label"]
    wait_for(lambda: objects(token) == [label, label])
    assert not list((agent.directory / "state").rglob("key.pem"))
    assert f"object={label};type=private" in (current(agent) / "key.uri").read_text()


def test_a_device_comes_aboard_and_rotates_with_its_keys_on_a_token(
    stack: Stack, agent: Agent, token: LocalToken
) -> None:
    configure(agent, token.yaml())
    agent.start(**token.environment)
    wait_for(lambda: agent.settled(1), LONG)
    first = check_rest(stack, agent)
    on_the_token_alone(agent, token)
    agent.agentctl("rotate", "--wait", "30")
    wait_for(lambda: agent.settled(2), LONG)
    assert check_rest(stack, agent) != first
    on_the_token_alone(agent, token)
    assert PIN not in agent.log()
    assert agent.process is not None
    maps = Path(f"/proc/{agent.process.pid}/maps").read_text()
    assert not [name for name in ("pkcs11", "softhsm", "tpm2") if name in maps]


def test_a_device_moves_to_a_token_and_back_by_reload(stack: Stack, agent: Agent, token: LocalToken) -> None:
    process = agent.start(**token.environment)
    wait_for(lambda: agent.settled(1))
    assert (current(agent) / "key.pem").exists()
    for rotation, keys in ((2, token.yaml()), (3, "keys: {backend: file}\n")):
        configure(agent, keys)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda keys=keys: agent.status()["key"]["backend"] in keys)  # type: ignore[misc]  # the loop's value
        agent.agentctl("rotate", "--wait", "30")
        wait_for(lambda rotation=rotation: agent.settled(rotation), LONG)  # type: ignore[misc]  # the loop's value
        check_rest(stack, agent)
        if rotation == 2:
            on_the_token_alone(agent, token)
    assert (current(agent) / "key.pem").exists()
    assert objects(token) == []


@pytest.mark.parametrize("token", ["softhsm"], indirect=True)
def test_the_vendor_key_may_be_on_the_token_too_and_stays_there(stack: Stack, agent: Agent, token: LocalToken) -> None:
    key = agent.directory / "bootstrap" / "key.pem"
    put = ("--import", str(key), "--token", LABEL, "--label", "iot-agent-vendor", "--id", "01", "--pin", PIN)
    subprocess.run(
        ("softhsm2-util", *put), env=token.environment | {"PATH": "/usr/bin"}, check=True, capture_output=True
    )
    key.unlink()
    configure(agent, token.yaml())
    path = agent.directory / "agent.yaml"
    path.write_text(path.read_text().replace("key: bootstrap/key.pem", "key: pkcs11:object=iot-agent-vendor"))
    agent.start(**token.environment)
    wait_for(lambda: agent.settled(1), LONG)
    agent.agentctl("rotate", "--wait", "30")
    wait_for(lambda: agent.settled(2), LONG)
    check_rest(stack, agent)
    assert objects(token).count("iot-agent-vendor") == 2


@pytest.mark.parametrize("token", ["softhsm"], indirect=True)
def test_killed_again_and_again_it_still_arrives(stack: Stack, agent: Agent, token: LocalToken) -> None:
    configure(agent, token.yaml())
    for changes in (1, 4, 9, 6):
        agent.start(**token.environment)
        agent.wait_for_changes(changes)
        agent.kill()
    agent.start(**token.environment)
    wait_for(lambda: agent.settled(1), LONG)
    agent.agentctl("rotate", "--wait", "30")
    wait_for(lambda: agent.settled(2), LONG)
    check_rest(stack, agent)
    on_the_token_alone(agent, token)
