"""The real daemon as a process, with a broker that is not there or says nothing: what a person and systemd see."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from iot_agent import control
from tests.simulator.authority import Authority

PATIENCE = 20.0
T = TypeVar("T")


class Agent:
    """One agent with its own directories and configuration."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        ca = Authority("Vendor CA", time.time())
        certificate, key = ca.issue("SN-0001", time.time())
        (directory / "ca.pem").write_text(ca.pem)
        (directory / "bootstrap.pem").write_text(certificate)
        (directory / "bootstrap.key").write_text(key)
        self.configure()
        self.process: subprocess.Popen[str] | None = None

    def configure(self, extra: str = "limits: {step: 60s}") -> None:
        (self.directory / "agent.yaml").write_text(
            f"serial: SN-0001\nendpoint: {{host: localhost, port: {self.port}, ca_file: ca.pem}}\n"
            "bootstrap: {certificate: bootstrap.pem, key: bootstrap.key}\n"
            f"paths: {{state: state, run: run}}\nretry: {{first: 1s}}\n{extra}\n"
        )

    def command(self) -> list[str]:
        return [sys.executable, "-m", "iot_agent.main", "--config", str(self.directory / "agent.yaml")]

    def start(self, **environment: str) -> subprocess.Popen[str]:
        log = (self.directory / "log").open("a")
        self.process = subprocess.Popen(
            self.command(), stderr=log, text=True, env={**os.environ, **environment}, start_new_session=True
        )
        wait_for(lambda: (self.directory / "run" / "control.sock").exists() and self.status())
        return self.process

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = control.ask(self.directory / "run" / "control.sock", "status")["status"]
        return shown

    def agentctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        where = ["--run", str(self.directory / "run"), "--state", str(self.directory / "state")]
        command = [sys.executable, "-m", "iot_agent.agentctl", *where, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def worker(self) -> int:
        """Process id of the running worker."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(wait_for(lambda: children.read_text().split())[0])


def wait_for(look: Callable[[], T], patience: float = PATIENCE) -> T:
    """Look until there is something to see."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if seen := look():
                return seen
        time.sleep(0.05)
    raise AssertionError("it never came about")


def gone(pid: int) -> bool:
    """Say whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except FileNotFoundError:
        return True


@pytest.fixture
def mute_broker() -> Iterator[int]:
    """Listen and never say a word: a connection that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def agent(tmp_path: Path, mute_broker: int) -> Iterator[Agent]:
    agent = Agent(tmp_path, mute_broker)
    yield agent
    if agent.process is not None:
        agent.process.kill()
        agent.process.wait()


def test_it_starts_says_what_it_does_and_stops_cleanly_in_the_middle_of_a_step(agent: Agent) -> None:
    agent.start()
    shown = agent.status()
    assert shown["state"] == "unprovisioned"
    assert shown["next_step"]["kind"] == "introduce"
    worker = agent.worker()
    assert agent.stop() == 0
    wait_for(lambda: gone(worker))
    assert "stopped in state unprovisioned" in agent.log()
    assert not (agent.directory / "run" / "control.sock").exists()


def test_a_second_daemon_exits_75_and_says_who_is_there(agent: Agent) -> None:
    first = agent.start()
    second = subprocess.run(agent.command(), capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert second.returncode == 75
    assert f"pid {first.pid}" in second.stderr
    assert agent.status()["daemon"] == "running"


def test_a_killed_daemon_takes_its_worker_along_and_the_next_one_carries_on(agent: Agent) -> None:
    daemon = agent.start()
    worker = agent.worker()
    daemon.kill()
    daemon.wait()
    wait_for(lambda: gone(worker))
    agent.start()
    assert agent.status()["state"] == "unprovisioned"


def test_a_hanging_worker_is_stopped_at_its_limit_and_the_daemon_answers_meanwhile(agent: Agent) -> None:
    agent.configure("limits: {step: 2s}")
    agent.start()
    worker = agent.worker()
    slowest = 0.0
    for _ in range(20):
        asked = time.monotonic()
        agent.status()
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.05)
    assert slowest < 1.0
    error = wait_for(lambda: agent.status()["last_error"])
    assert error["code"] == "worker-timeout"
    assert gone(worker)


def test_a_killed_worker_is_reported_and_the_step_tried_again(agent: Agent) -> None:
    agent.start()
    first = agent.worker()
    os.kill(first, signal.SIGKILL)
    error = wait_for(lambda: agent.status()["last_error"])
    assert error["code"] == "worker-crashed"
    assert "SIGKILL" in error["message"]
    assert wait_for(lambda: agent.worker() != first)


def test_the_attempt_count_survives_a_restart(agent: Agent) -> None:
    agent.start()
    os.kill(agent.worker(), signal.SIGKILL)
    wait_for(lambda: agent.status()["attempt"] == 1)
    agent.stop()
    agent.start()
    assert agent.status()["attempt"] >= 1


def test_a_reload_takes_over_a_good_configuration_and_refuses_a_bad_one(agent: Agent) -> None:
    process = agent.start()
    agent.configure("keys: {algorithm: rsa-2048}")
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: agent.status()["key"]["algorithm"] == "rsa-2048")
    agent.configure("keys: {algorithm: rot13}")
    process.send_signal(signal.SIGHUP)
    error = wait_for(lambda: agent.status()["configuration"]["error"])
    assert "keys.algorithm: 'rot13' is not one of" in error
    assert agent.status()["key"]["algorithm"] == "rsa-2048"
    agent.configure("keys: {algorithm: ec-p384}")
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: agent.status()["configuration"]["error"] is None)
    assert agent.status()["key"]["algorithm"] == "ec-p384"


def test_what_only_a_restart_can_change_is_refused_on_reload(agent: Agent) -> None:
    process = agent.start()
    agent.configure()
    path = agent.directory / "agent.yaml"
    path.write_text(path.read_text().replace("SN-0001", "SN-0002"))
    process.send_signal(signal.SIGHUP)
    assert "serial can only change with a restart" in wait_for(lambda: agent.status()["configuration"]["error"])


def test_a_wrong_configuration_at_start_exits_78_with_file_and_line(agent: Agent) -> None:
    agent.configure("colour: red")
    done = subprocess.run(agent.command(), capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 78
    assert "agent.yaml:6: colour: unknown key" in done.stderr


def test_state_of_another_serial_is_refused(agent: Agent) -> None:
    agent.start()
    os.kill(agent.worker(), signal.SIGKILL)
    wait_for(lambda: agent.status()["attempt"])
    agent.stop()
    path = agent.directory / "agent.yaml"
    path.write_text(path.read_text().replace("SN-0001", "SN-0002"))
    done = subprocess.run(agent.command(), capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 78
    assert "belongs to serial SN-0001" in done.stderr


@pytest.fixture
def tiny_disk(agent: Agent) -> Iterator[Path]:
    """Put the state directory on a file system of 128 KiB."""
    state = agent.directory / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(state)], check=True)
    yield state
    subprocess.run(["umount", "--lazy", str(state)], check=True)


def test_a_full_disk_stops_new_steps_but_not_the_daemon(agent: Agent, tiny_disk: Path) -> None:
    agent.start()
    with pytest.raises(OSError, match="No space left"):
        (tiny_disk / "filler").write_bytes(b"x" * 200_000)
    os.kill(agent.worker(), signal.SIGKILL)
    assert "nothing new is begun" in wait_for(lambda: agent.status()["trouble"])
    assert agent.process is not None
    assert agent.process.poll() is None
    (tiny_disk / "filler").unlink()
    assert agent.agentctl("rotate").returncode == 0
    wait_for(lambda: agent.status()["trouble"] is None)


def test_systemd_hears_everything(agent: Agent, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(PATIENCE)
        process = agent.start(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="600000")
        heard: list[str] = []

        def hear(what: str) -> bool:
            while not any(what in message for message in heard):
                heard.append(manager.recv(4096).decode())
            heard.clear()
            return True

        assert hear("READY=1")
        assert hear("STATUS=unprovisioned: introducing this device")
        assert hear("WATCHDOG=1")
        assert hear("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        assert hear("RELOADING=1\nMONOTONIC_USEC=")
        assert hear("READY=1")
        process.terminate()
        assert hear("STOPPING=1")


def test_agentctl_speaks_to_people_and_programs(agent: Agent) -> None:
    agent.start()
    human = agent.agentctl("status")
    assert human.returncode == 0
    assert human.stdout.startswith("SN-0001  unprovisioned  (introducing this device")
    told = json.loads(agent.agentctl("status", "--json").stdout)
    assert told["schema"] == 1
    assert agent.agentctl("rotate").returncode == 0
    assert agent.agentctl("history").stdout == "nothing yet\n"
    waited = agent.agentctl("rotate", "--wait", "0.5")
    assert waited.returncode == 75
    assert "not rotated within" in waited.stderr


def test_agentctl_says_that_the_daemon_is_down_and_what_the_disk_says(agent: Agent) -> None:
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
    assert agent.agentctl("dance").returncode == 64


def test_the_resident_process_has_one_thread_and_no_heavy_library(agent: Agent) -> None:
    process = agent.start()
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert not [name for name in ("awscrt", "libssl", "libcrypto", "_rust", "yaml") if name in maps]
    assert "Threads:\t1\n" in Path(f"/proc/{process.pid}/status").read_text()
