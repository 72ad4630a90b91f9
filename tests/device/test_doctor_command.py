"""agentctl's part of the doctor: the configuration, the agent's user, and an examination that ends early."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from iot_agent.config import agent_yaml
from iot_agent.doctor import command, findings
from iot_agent.doctor.findings import Level
from iot_agent.host import agent_user, control_socket
from tests.device.faulty_device import FaultyDevice, acting_as
from tests.device.lonely_agent import LonelyAgent
from tests.harness import PATIENCE


def agentctl(patient: FaultyDevice, *options: str) -> subprocess.CompletedProcess[str]:
    configuration = str(patient.directory / "agent.yaml")
    command = [sys.executable, "-m", "iot_agent.agentctl", "doctor", "--config", configuration, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_agentctl_tells_people_and_programs(patient: FaultyDevice) -> None:
    human = agentctl(patient)
    assert human.returncode == 2
    assert "ERROR    daemon                 not running" in human.stdout
    assert "→ Start it with: systemctl start iot-agent" in human.stdout
    assert human.stdout.splitlines()[-1].startswith("errors: 2, warnings: 1, ")
    told = json.loads(agentctl(patient, "--json").stdout)
    assert (told["schema"], told["worst"]) == (1, "error")
    assert {"check", "level", "message", "remedy"} == set(told["findings"][0])


@pytest.mark.needs_root
def test_who_may_not_read_the_configuration_is_told_to_use_sudo(
    open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process, which can give up root: a child's interpreter may be root's alone.
    monkeypatch.setattr(command, "read_configuration", lambda path, **_: agent_yaml.read(path))
    monkeypatch.setattr(command, "BadConfiguration", agent_yaml.AgentYamlError)
    FaultyDevice(open_place)
    configuration = open_place / "agent.yaml"
    configuration.chmod(0o600)
    with acting_as(4321, 4321):
        finding = next(command.diagnose(configuration, open_place / "socket"))
    assert (finding.level, finding.remedy) == (Level.ERROR, "Run: sudo agentctl doctor")
    configuration.write_text("serial: SN-0001\n")
    assert {found.remedy for found in command.diagnose(configuration, open_place / "socket")} != {finding.remedy}


def test_every_problem_of_a_configuration_is_told(patient: FaultyDevice) -> None:
    (patient.directory / "agent.yaml").write_text("serial: a b\ncolour: red\n")
    done = agentctl(patient, "--json")
    assert done.returncode == 2
    told = [finding["message"] for finding in json.loads(done.stdout)["findings"]]
    assert any("agent.yaml:1: serial" in message for message in told)
    assert any("agent.yaml:2: colour: unknown key" in message for message in told)


@pytest.mark.needs_root
def test_the_agent_is_who_owns_the_state(patient: FaultyDevice) -> None:
    assert agent_user.become(patient.state) == {}
    nobody = pwd.getpwnam("nobody")
    os.chown(patient.state, nobody.pw_uid, nobody.pw_gid)
    given_up = agent_user.become(patient.state)
    assert (given_up["user"], given_up["group"]) == (nobody.pw_uid, nobody.pw_gid)
    assert 0 not in given_up["extra_groups"]


def test_an_examination_that_cannot_start_is_told(patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    told = list(command._examine(patient.directory / "agent.yaml", patient.settings()))
    assert "the examination cannot start" in told[0].message


def test_an_examination_that_dies_is_told(patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    (patient.directory / "sitecustomize.py").write_text(
        "import os, sys\nif 'iot_agent.doctor.examine' in sys.orig_argv: os.kill(os.getpid(), 11)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(patient.directory))
    done = agentctl(patient)
    assert done.returncode == 2
    assert "the examination was ended by SIGSEGV before it was done" in done.stdout


def test_the_doctor_looks_with_the_daemons_own_environment(agent: LonelyAgent) -> None:
    socket_path = agent.directory / "run" / "control.sock"
    process = agent.start(TPM2_PKCS11_STORE="/where/the/unit/says", NOTIFY_SOCKET="/nowhere")
    assert control_socket.daemon_pid(socket_path) == process.pid
    seen = command.environment(socket_path)
    assert seen["TPM2_PKCS11_STORE"] == "/where/the/unit/says"
    assert "NOTIFY_SOCKET" not in seen
    agent.stop()
    assert "TPM2_PKCS11_STORE" not in command.environment(socket_path)


def test_with_run_alone_it_examines_the_daemon_there(agent: LonelyAgent) -> None:
    """As after `make demo KEEP=1`: its agent.yaml is not in /etc."""
    agent.start()
    done = agent.agentctl("doctor")
    assert f"ok       configuration          {agent.directory / 'agent.yaml'}: serial SN-0001" in done.stdout
    assert "ok       daemon                 running" in done.stdout


def test_without_agent_yaml_it_says_what_to_copy_and_where(agent: LonelyAgent) -> None:
    configuration = agent.directory / "agent.yaml"
    kept = configuration.read_text()
    configuration.unlink()
    done = agent.agentctl("doctor", "--config", str(configuration))
    assert done.returncode == 2
    assert f"Copy the bundle that was made for this device to {agent.directory}" in done.stdout
    assert "ERROR    daemon" in done.stdout
    assert "iot-agent --check" not in done.stdout
    configuration.write_text(kept)
    assert "ok       configuration" in agent.agentctl("doctor", "--config", str(configuration)).stdout


@pytest.mark.parametrize("line", [b"CKR_GENERAL_ERROR", b"7", b'{"check": "disk"}', b"[" * 5000, b"\xff"])
def test_a_line_of_a_library_between_two_findings_is_told_and_ends_nothing(line: bytes) -> None:
    told = command._finding(line)
    assert told.level is Level.WARNING
    assert line.decode(errors="replace")[:9] in told.message
    assert command._finding(findings.encode(told).encode()) == told
