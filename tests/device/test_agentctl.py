"""agentctl as a program: what it says to people and to programs, and that no answer controls the terminal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot_agent import agentctl
from iot_agent.core.record import Failure, Kind
from iot_agent.status import text
from tests.device.evil_text import EVIL, hostile_record, hostile_report, obeyed
from tests.device.faulty_device import FaultyDevice
from tests.device.lonely_agent import LonelyAgent
from tests.device.test_control_socket import Loop
from tests.harness import PATIENCE, Agent, gone, wait_for


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a run directory whose socket gives such answers."""
    loop = Loop(tmp_path / "control.sock")
    events = [vars(event) for event in hostile_record().history]
    answers = {
        "status": {"ok": True, "status": hostile_report()},
        "history": {"ok": True, "history": events},
        "rotate": {"ok": False, "error": EVIL, "message": EVIL},
        "cancel": {"ok": False, "error": EVIL, "message": EVIL},
    }
    monkeypatch.setattr(loop._server, "_handler", answers.__getitem__)
    try:
        yield tmp_path
    finally:
        loop.close()


def said_by_agentctl(*arguments: str) -> str:
    command = [sys.executable, "-m", "iot_agent.agentctl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("command", ["status", "history", "rotate", "cancel"])
def test_agentctl_writes_nothing_that_a_terminal_obeys_whatever_the_socket_says(liar: Path, command: str) -> None:
    said = said_by_agentctl("--run", str(liar), command)
    assert "fine?[2J?1m ok?" in said
    assert obeyed(said) == set()


def test_agentctl_writes_nothing_that_a_terminal_obeys_whatever_the_record_holds(tmp_path: Path) -> None:
    patient = FaultyDevice(tmp_path)
    patient.change(failure=Failure(Kind.REQUEST, "refused", EVIL, EVIL, 10**15), history=hostile_record().history)
    said = said_by_agentctl("--run", str(tmp_path), "--state", str(patient.state), "status")
    assert "second 1000000000000000" not in said, "only dates are written so"
    assert "fine?[2J?1m ok?" in said
    assert obeyed(said) == set()


def test_an_agentctl_that_passes_control_characters_on_would_be_noticed(
    liar: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text, "safe", lambda answer: answer)
    monkeypatch.setattr(sys, "argv", ["agentctl", "--run", str(liar), "history"])
    monkeypatch.setattr(text, "history", lambda events: events[0]["detail"].replace("\ud800", ""))
    agentctl.main()
    assert "\x1b" in obeyed(capsys.readouterr().out)


def test_an_answer_without_its_fields_is_reported_as_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(tmp_path / "control.sock")
    monkeypatch.setattr(loop._server, "_handler", lambda _: {"ok": True, "status": []})
    try:
        assert "cannot be used" in said_by_agentctl("--run", str(tmp_path), "status")
        assert "cannot be used" in said_by_agentctl("--run", str(tmp_path), "history")
    finally:
        loop.close()


def test_agentctl_speaks_to_people_and_programs(agent: LonelyAgent) -> None:
    agent.start()
    human = agent.agentctl("status")
    assert human.returncode == 0
    assert human.stdout.startswith("SN-0001  unprovisioned  (introducing this device")
    told = json.loads(agent.agentctl("status", "--json").stdout)
    assert told["schema"] == 1
    assert agent.agentctl("rotate").returncode == 0
    assert agent.agentctl("history").stdout == "no events yet\n"
    waited = agent.agentctl("rotate", "--wait", "0.5")
    assert waited.returncode == 75
    assert "not rotated within" in waited.stderr


def test_a_rotation_that_nobody_answers_is_withdrawn_also_while_its_step_runs(
    patient: FaultyDevice, mute_broker: int
) -> None:
    patient.configure(mute_broker)
    patient.change(check_in_at=int(patient.now) + 3600)
    agent = Agent(patient.directory)
    agent.start()
    try:
        _cancel(agent)
    finally:
        agent.kill()


def _cancel(agent: Agent) -> None:
    idle = agent.agentctl("cancel")
    assert (idle.returncode, idle.stderr) == (75, "agentctl: no rotation is under way\n")
    active = agent.status()["identity"]
    assert agent.agentctl("rotate").returncode == 0
    wait_for(lambda: (agent.status()["next_step"] or {}).get("kind") == "request")
    worker = agent.worker()
    done = agent.agentctl("cancel")
    assert (done.returncode, done.stdout) == (0, "the rotation is withdrawn\n")
    wait_for(lambda: gone(worker))
    shown = agent.status()
    assert (shown["identity"], shown["pending"], shown["state"]) == (active, None, "acked")
    told = [event["event"] for event in json.loads(agent.agentctl("history", "--json").stdout)]
    assert told[:3] == ["rotation-requested", "key-dropped", "rotation-cancelled"]
    assert "rotation-cancelled: by an operator" in agent.log()


def test_agentctl_says_that_the_daemon_is_down_and_what_the_disk_says(agent: LonelyAgent) -> None:
    nothing = agent.agentctl("status")
    assert nothing.returncode == 69
    assert "the daemon is not running" in nothing.stderr
    agent.start()
    os.kill(agent.worker(), signal.SIGKILL)
    wait_for(lambda: agent.status()["attempt"])
    agent.stop()
    down = agent.agentctl("status", "--json")
    assert down.returncode == 69
    assert json.loads(down.stdout)["state"] == "unprovisioned"
    assert agent.agentctl("rotate").returncode == 69
    assert agent.agentctl("unknown").returncode == 64
