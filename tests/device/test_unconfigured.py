"""The real daemon with what it cannot run with: it waits, says for what, harms no other, and goes on by itself."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.device.faulty_device import FaultyDevice
from tests.device.lonely_agent import LonelyAgent
from tests.harness import PATIENCE, Agent, wait_for


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LonelyAgent]:
    agent = LonelyAgent(tmp_path, 1)
    yield agent
    agent.kill()


@pytest.fixture
def patient(open_place: Path) -> FaultyDevice:
    return FaultyDevice(open_place)


def systemd_says(directory: Path) -> dict[str, str]:
    return {"STATE_DIRECTORY": str(directory / "state"), "RUNTIME_DIRECTORY": str(directory / "run")}


@pytest.mark.parametrize("name", ["bootstrap.pem", "bootstrap.key", "ca.pem"])
@pytest.mark.parametrize("missing", [True, False], ids=["missing", "empty"])
def test_it_waits_for_the_files_of_its_bundle_and_takes_them_over(agent: LonelyAgent, name: str, missing: bool) -> None:  # noqa: FBT001 - a row
    path = agent.directory / name
    whole = path.read_text()
    path.unlink()
    if not missing:
        path.write_text("")
    agent.start(**systemd_says(agent.directory))
    shown = agent.status()
    assert shown["daemon"] == "waiting for its configuration"
    assert shown["health"]["level"] == "attention"
    assert f"{path}: " in shown["configuration"]["error"]
    assert "sudo systemd-tmpfiles --create iot-agent.conf" in shown["configuration"]["remedy"]
    assert agent.agentctl("status").returncode == 78
    path.write_text(whole)
    wait_for(lambda: agent.status()["daemon"] == "running")
    assert agent.log().count("waiting for a configuration") == 1


def test_with_an_identity_it_serves_whatever_the_bundle_is_but_puts_no_unfit_ca_in_force(patient: FaultyDevice) -> None:
    for name in ("bootstrap.pem", "bootstrap.key", "endpoint-ca.pem"):
        (patient.directory / name).unlink()
    (patient.directory / "manufacturer-ca.pem").write_text("")
    agent = Agent(patient.directory)
    process = agent.start()
    try:
        assert agent.status()["daemon"] == "running"
        process.send_signal(signal.SIGHUP)
        refused = wait_for(lambda: agent.status()["configuration"]["error"])
        assert [line.split(": ")[1] for line in refused.splitlines()] == ["endpoint.ca_file", "manufacturer_ca"]
        checked = subprocess.run([*agent.command(), "--check"], capture_output=True, text=True, check=False)
        assert checked.returncode == 78
        assert "manufacturer_ca: contains no certificate in PEM" in checked.stderr
    finally:
        agent.kill()


@pytest.mark.parametrize("same_state", [True, False], ids=["its state", "another state"])
@pytest.mark.parametrize("bad", [True, False], ids=["bad configuration", "good configuration"])
def test_a_second_daemon_takes_nothing_from_the_first(agent: LonelyAgent, *, same_state: bool, bad: bool) -> None:
    first = agent.start()
    other = agent.directory / "other.yaml"
    good = (agent.directory / "agent.yaml").read_text()
    other.write_text("colour: red\n" if bad else good if same_state else good.replace("state: state", "state: more"))
    places = systemd_says(agent.directory)
    if not same_state:
        places["STATE_DIRECTORY"] = str(agent.directory / "more")
    second = subprocess.run(
        [sys.executable, "-m", "iot_agent.main", "--config", str(other)],
        capture_output=True, text=True, check=False, timeout=PATIENCE, env={**os.environ, **places},
    )  # fmt: skip
    assert second.returncode == 75
    assert f"another daemon (pid {first.pid})" in second.stderr
    assert agent.status()["daemon"] == "running"


def test_a_machine_that_can_start_no_process_costs_a_reload_and_a_start_only_time(
    agent: LonelyAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python itself is gone for a while, as when it is being upgraded."""
    python = agent.directory / "python"
    python.symlink_to(sys.executable)
    command = [str(python), *agent.command()[1:]]
    monkeypatch.setattr(agent, "command", lambda: command)
    environment = {**systemd_says(agent.directory), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = agent.start(**environment)
    python.rename(python.with_name("away"))
    process.send_signal(signal.SIGHUP)
    refused = wait_for(lambda: agent.status()["configuration"]["error"])
    assert "no process can be started to read it" in refused
    python.with_name("away").rename(python)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: agent.status()["configuration"]["error"] is None)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGRTMIN], ids=["killed", "by a signal without a name"])
def test_a_reader_that_is_killed_is_tried_again_although_no_file_has_changed(agent: LonelyAgent, how: int) -> None:
    (agent.directory / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if 'iot_agent.config' in sys.orig_argv and os.path.exists({str(agent.directory / 'ill')!r}):\n"
        f"    os.kill(os.getpid(), {int(how)})\n"
    )
    (agent.directory / "ill").touch()
    agent.start(PYTHONPATH=str(agent.directory), **systemd_says(agent.directory))
    assert "its reader was ended by" in agent.status()["configuration"]["error"]
    (agent.directory / "ill").unlink()
    wait_for(lambda: agent.status()["daemon"] == "running")


def test_a_daemon_whose_stderr_nobody_reads_serves_and_tells_later_what_was_lost(agent: LonelyAgent) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while os.write(theirs, b"x\n" * 2048):
            pass
    os.set_blocking(theirs, True)
    agent.process = subprocess.Popen(agent.command(), stderr=theirs, text=True)
    os.close(theirs)
    wait_for(lambda: agent.status()["attempt"])
    os.set_blocking(ours, False)
    said = b""

    def told() -> bool:
        nonlocal said
        said += os.read(ours, 65536)
        return b"messages before this one were dropped" in said

    wait_for(told)
    assert agent.stop() == 0
    os.close(ours)
