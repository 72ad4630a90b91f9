"""The real daemon as a process, with a broker that is not there or says nothing: what a person and systemd see."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device.lonely_agent import LonelyAgent
from tests.harness import PATIENCE, gone, impatient, wait_for


def test_it_starts_says_what_it_does_and_stops_cleanly_in_the_middle_of_a_step(agent: LonelyAgent) -> None:
    agent.start()
    shown = agent.status()
    assert shown["state"] == "unprovisioned"
    assert shown["next_step"]["kind"] == "introduce"
    worker = agent.worker()
    assert agent.stop() == 0
    wait_for(lambda: gone(worker))
    assert "stopped in state unprovisioned" in agent.log()
    assert not (agent.directory / "run" / "control.sock").exists()


def test_a_second_daemon_exits_75_and_says_who_is_there(agent: LonelyAgent) -> None:
    first = agent.start()
    second = subprocess.run(agent.command(), capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert second.returncode == 75
    assert f"pid {first.pid}" in second.stderr
    assert agent.status()["daemon"] == "running"


def test_a_killed_daemon_takes_its_worker_along_and_the_next_one_carries_on(agent: LonelyAgent) -> None:
    daemon = agent.start()
    worker = agent.worker()
    daemon.kill()
    daemon.wait()
    wait_for(lambda: gone(worker))
    agent.start()
    assert agent.status()["state"] == "unprovisioned"


def test_a_hanging_worker_is_stopped_at_its_limit_and_the_daemon_answers_meanwhile(agent: LonelyAgent) -> None:
    agent.configure("limits: {step: 2s}")
    agent.start(**impatient(agent.directory))
    worker = agent.worker()
    answers = 0
    while not gone(worker):
        answers += agent.status()["daemon"] == "running"
    assert answers > 1, "it answered only when the worker was gone"
    error = wait_for(lambda: agent.status()["last_error"])
    assert error["code"] == "worker-timeout"


def test_a_killed_worker_is_reported_and_the_step_tried_again(agent: LonelyAgent) -> None:
    agent.start()
    first = agent.worker()
    os.kill(first, signal.SIGKILL)
    error = wait_for(lambda: agent.status()["last_error"])
    assert error["code"] == "worker-crashed"
    assert "SIGKILL" in error["message"]
    assert wait_for(lambda: agent.worker() != first)


def test_the_attempt_count_survives_a_restart(agent: LonelyAgent) -> None:
    agent.start()
    os.kill(agent.worker(), signal.SIGKILL)
    wait_for(lambda: agent.status()["attempt"] == 1)
    agent.stop()
    agent.start()
    assert agent.status()["attempt"] >= 1


def test_a_reload_takes_over_a_good_configuration_and_refuses_a_bad_one(agent: LonelyAgent) -> None:
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


def test_what_only_a_restart_can_change_is_refused_on_reload(agent: LonelyAgent) -> None:
    process = agent.start()
    agent.configure()
    path = agent.directory / "agent.yaml"
    path.write_text(path.read_text().replace("SN-0001", "SN-0002"))
    process.send_signal(signal.SIGHUP)
    assert "serial can only change with a restart" in wait_for(lambda: agent.status()["configuration"]["error"])


def test_the_group_that_shares_the_identity_changes_only_with_a_restart(agent: LonelyAgent) -> None:
    process = agent.start()
    agent.configure("identity: {group: daemon}")
    process.send_signal(signal.SIGHUP)
    refused = wait_for(lambda: agent.status()["configuration"]["error"])
    assert "identity_group can only change with a restart" in refused


def test_a_check_of_a_wrong_configuration_exits_78_with_file_and_line(agent: LonelyAgent) -> None:
    agent.configure("colour: red")
    checked = subprocess.run([*agent.command(), "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 78
    assert "agent.yaml:6: colour: unknown key" in checked.stderr


@pytest.fixture
def as_systemd_says(agent: LonelyAgent) -> dict[str, str]:
    """Name the directories as the unit's StateDirectory= and RuntimeDirectory= do."""
    return {
        f"{name}_DIRECTORY": str(agent.directory / place) for name, place in [("STATE", "state"), ("RUNTIME", "run")]
    }


@pytest.mark.parametrize("told", [0, signal.SIGHUP], ids=["by itself", "on SIGHUP"])
def test_without_a_configuration_it_waits_says_for_what_and_takes_it_over(
    agent: LonelyAgent, as_systemd_says: dict[str, str], told: int
) -> None:
    path = agent.directory / "agent.yaml"
    good = path.read_text()
    path.unlink()
    process = agent.start(**as_systemd_says)
    shown = agent.status()
    assert (shown["state"], shown["daemon"]) == ("unprovisioned", "waiting for its configuration")
    assert shown["serial"] is None
    assert shown["reason"] == "waiting for a configuration that it can run with"
    assert "agent.yaml: cannot be read: No such file" in shown["configuration"]["error"]
    seen = agent.agentctl("status")
    assert seen.returncode == 78
    assert f"iot-agent --check --config {path}" in seen.stdout
    refused = agent.agentctl("rotate")
    assert refused.returncode == 78
    assert "No such file" in refused.stderr
    assert agent.agentctl("history").stdout == "no events yet\n"
    path.write_text("colour: red\n")
    wait_for(lambda: "colour: unknown key" in agent.status()["configuration"]["error"])
    path.write_text(good)
    process.send_signal(told)
    wait_for(lambda: agent.status()["daemon"] == "running")
    assert agent.status()["serial"] == "SN-0001"
    assert agent.stop() == 0


def test_it_stops_at_once_while_it_waits_and_feeds_the_watchdog(
    agent: LonelyAgent, as_systemd_says: dict[str, str], tmp_path: Path
) -> None:
    (agent.directory / "agent.yaml").write_text("# nothing yet\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        agent.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="600000", **as_systemd_says)
        heard = [manager.recv(4096).decode() for _ in range(4)]
    assert heard[0] == "READY=1"
    assert heard[1].startswith("STATUS=waiting for a configuration: ")
    assert "nothing is set yet: copy the bundle" in heard[1]
    assert heard[2:] == ["WATCHDOG=1", "WATCHDOG=1"]
    assert agent.stop() == 0
    assert not (agent.directory / "run" / "control.sock").exists()


def test_when_nobody_could_be_told_what_it_waits_for_it_ends(agent: LonelyAgent) -> None:
    (agent.directory / "agent.yaml").unlink()
    (agent.directory / "file").touch()
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(agent.directory / "file" / "run")}
    done = subprocess.run(
        agent.command(), capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment
    )
    assert done.returncode == 73
    assert "cannot make" in done.stderr


def test_state_of_another_serial_is_not_touched(agent: LonelyAgent, as_systemd_says: dict[str, str]) -> None:
    agent.start()
    os.kill(agent.worker(), signal.SIGKILL)
    wait_for(lambda: agent.status()["attempt"])
    agent.stop()
    path = agent.directory / "agent.yaml"
    path.write_text(path.read_text().replace("SN-0001", "SN-0002"))
    before = (agent.directory / "state" / "state.json").read_bytes()
    agent.start(**as_systemd_says)
    assert "belongs to serial SN-0001" in agent.status()["configuration"]["error"]
    assert agent.status()["serial"] == "SN-0001"
    assert (agent.directory / "state" / "state.json").read_bytes() == before
    path.write_text(path.read_text().replace("SN-0002", "SN-0001"))
    wait_for(lambda: agent.status()["daemon"] == "running")


@pytest.fixture
def tiny_disk(agent: LonelyAgent) -> Iterator[Path]:
    """Put the state directory on a file system of 128 KiB."""
    state = agent.directory / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(state)], check=True)
    yield state
    subprocess.run(["umount", "--lazy", str(state)], check=True)


@pytest.mark.needs_root
def test_a_full_disk_stops_new_steps_but_not_the_daemon(agent: LonelyAgent, tiny_disk: Path) -> None:
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


@pytest.mark.needs_root
def test_it_starts_also_when_the_disk_is_full_and_when_it_is_read_only(agent: LonelyAgent, tiny_disk: Path) -> None:
    agent.start()
    agent.stop()
    with pytest.raises(OSError, match="No space left"):
        (tiny_disk / "filler").write_bytes(b"x" * 200_000)
    agent.start()
    assert agent.status()["state"] == "unprovisioned"
    agent.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    ended = subprocess.run(agent.command(), capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ended.returncode == 73
    assert "cannot lock" in ended.stderr
    assert "Read-only file system" in ended.stderr


def test_systemd_hears_everything(agent: LonelyAgent, tmp_path: Path) -> None:
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


def test_the_resident_process_has_one_thread_and_no_heavy_library(agent: LonelyAgent) -> None:
    process = agent.start()
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert not [name for name in ("awscrt", "libssl", "libcrypto", "_rust", "yaml") if name in maps]
    assert "Threads:\t1\n" in Path(f"/proc/{process.pid}/status").read_text()


def test_a_service_manager_that_does_not_listen_holds_nothing_up(agent: LonelyAgent, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        agent.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="60000")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
            another.settimeout(0)

            def full() -> bool:
                try:
                    another.sendto(b"", str(tmp_path / "notify"))
                except BlockingIOError:
                    return True
                return False

            wait_for(full)
        assert agent.status()["state"] == "unprovisioned"
        assert agent.stop() == 0
