"""Real daemons, real processes, a real cloud: what could strand a device, done to it on purpose."""

import json
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Stack
from tests.end_to_end.test_fleet import fleet
from tests.end_to_end.test_life import check_rest
from tests.harness import Agent, wait_for

LONG = 60.0
TEN_YEARS = 10 * 365 * 86400


def failing(agent: Agent) -> str:
    return str((agent.status()["last_error"] or {}).get("code"))


def identity(agent: Agent) -> Path:
    return (agent.directory / "state" / "current").resolve()


# ---- a clock that is wrong while something fails -------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library that adds the seconds of a file to the wall clock that a process sees."""
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    source = ROOT / "tests/system/clock.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", made, source], check=True)
    return made


class Clock:
    """The wall clock of one agent."""

    def __init__(self, library: Path, agent: Agent) -> None:
        self._file = agent.directory / "clock"
        self.environment = {"LD_PRELOAD": str(library), "LAB_CLOCK": str(self._file)}
        self._file.write_bytes(struct.pack("<q", 0))

    def set(self, seconds: int) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", seconds))


@pytest.mark.parametrize("restarted", [False, True])
def test_a_failure_under_a_clock_ten_years_ahead_is_over_when_the_clock_is_right(
    stack: Stack, agent: Agent, library: Path, *, restarted: bool
) -> None:
    clock = Clock(library, agent)
    agent.start(**clock.environment)
    wait_for(lambda: agent.settled(1))
    clock.set(TEN_YEARS)
    assert agent.agentctl("rotate").returncode == 0
    wait_for(lambda: failing(agent) == "untrusted-server", LONG)
    if restarted:
        agent.stop()
    clock.set(0)
    if restarted:
        agent.start(**clock.environment)
    wait_for(lambda: agent.settled(2), LONG)
    check_rest(stack, agent)


# ---- an active identity that cannot be used ------------------------------------------------------------------------


def flip(directory: Path) -> None:
    path = directory / "certificate.pem"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def empty(directory: Path) -> None:
    (directory / "key.pem").write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, empty, shutil.rmtree])
def test_a_device_whose_active_identity_is_spoilt_comes_back_when_it_is_readmitted(
    stack: Stack, onboarded: Agent, damage: Callable[[Path], None]
) -> None:
    first = check_rest(stack, onboarded)
    onboarded.stop()
    damage(identity(onboarded))
    onboarded.start()
    assert onboarded.agentctl("rotate").returncode == 0
    wait_for(lambda: onboarded.status()["attempt"] >= 3, LONG)
    assert onboarded.status()["health"]["level"] != "good" or onboarded.status()["attempt"] <= 3
    assert fleet(stack, "readmit", onboarded.serial, "--for", "1h").returncode == 0
    wait_for(lambda: onboarded.settled(2), LONG)
    assert check_rest(stack, onboarded) != first


# ---- a record that is older than what the cloud was told -----------------------------------------------------------


def test_a_record_from_before_the_certificate_takes_up_what_the_disk_holds(stack: Stack, onboarded: Agent) -> None:
    """As a power cut leaves it after a kill between a rename and the commit of its directory."""
    state = onboarded.directory / "state"
    older = (state / "state.json").read_bytes()
    assert onboarded.agentctl("rotate", "--wait", "30").returncode == 0
    wait_for(lambda: onboarded.settled(2))
    second = check_rest(stack, onboarded)
    onboarded.kill()
    (state / "state.json").write_bytes(older)
    (state / "state.json.previous").unlink()
    onboarded.start()
    wait_for(lambda: onboarded.status()["identity"]["certificate_id"] == second, LONG)
    wait_for(lambda: onboarded.settled(1))
    assert check_rest(stack, onboarded) == second
    assert "found-on-disk" in [event["event"] for event in onboarded.history()]


# ---- a second stack that listens on the same prefix ----------------------------------------------------------------


@contextmanager
def another_voice(stack: Stack, agent: Agent) -> Iterator[None]:
    """Answer "not allowed" to everything, again and again, as a stack does that does not know the device."""
    client, done = stack.client("iot-data"), threading.Event()
    error = {"code": "not-allowed", "message": "the serial is not on the allow-list", "retry_after_s": None}

    def speak() -> None:
        while not done.wait(0.05):
            for verb in ("create-man-cert", "ack-man-cert"):
                topic = f"cert-rotation/{verb}/{agent.serial}/rspn"
                client.publish(topic=topic, qos=1, payload=json.dumps({"error": error}).encode())

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        yield
    finally:
        done.set()
        speaker.join()


def test_another_stacks_not_allowed_is_not_taken_for_the_answer(stack: Stack, agent: Agent) -> None:
    with another_voice(stack, agent):
        agent.start()
        wait_for(lambda: agent.settled(1), LONG)
        assert agent.agentctl("rotate", "--wait", "30").returncode == 0
        wait_for(lambda: agent.settled(2))
    check_rest(stack, agent)
    assert {event["event"] for event in agent.history()}.isdisjoint({"rolled-back", "key-dropped"})
