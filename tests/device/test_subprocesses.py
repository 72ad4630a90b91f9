"""The daemon's children, as real processes: launched whole or not at all, and asking the cloud only when they may."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iot_agent.core.codec import Request
from iot_agent.core.record import Failed, Kind, Outcome, Record
from iot_agent.host import subprocesses
from iot_agent.host.subprocesses import BadConfiguration, Child, NoAnswer, TooSlow, Worker, ask, read_configuration
from tests.device.faulty_device import FaultyDevice
from tests.device.test_control_socket import no_descriptors
from tests.harness import PATIENCE

OUT_OF_DESCRIPTORS = """
import os, resource, sys, time
from pathlib import Path
from iot_agent.config import agent_yaml
from iot_agent.host.subprocesses import Worker
from iot_agent.core.codec import Request
from iot_agent.core.record import Kind, Record

request = Request(Kind.CHECK_IN, Record("SN-0001"), time.time(), True, agent_yaml.read(Path(sys.argv[1])))
def open_ones():
    return len(os.listdir("/proc/self/fd"))
before, refused = open_ones(), 0
for spare in range(12):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, 1024))
    try:
        worker = Worker(request)
    except OSError:
        refused += 1
    else:
        worker.kill()
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    assert open_ones() == before, spare
print(refused)
"""


@pytest.fixture
def patient(tmp_path: Path) -> FaultyDevice:
    return FaultyDevice(tmp_path)


def outcome(worker: Worker) -> Outcome:
    while (told := worker.poll()) is None:
        worker.wait()
    return told


@pytest.mark.needs_root
def test_a_worker_that_cannot_be_launched_leaves_no_descriptor_behind(patient: FaultyDevice) -> None:
    command = [sys.executable, "-c", OUT_OF_DESCRIPTORS, str(patient.directory / "agent.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 2 < int(done.stdout) < 12


def test_a_configuration_that_no_process_can_read_now_is_told_to_be_passing(patient: FaultyDevice) -> None:
    read_configuration(patient.directory / "agent.yaml")
    with no_descriptors(), pytest.raises(BadConfiguration, match="no process can be started to read it") as told:
        read_configuration(patient.directory / "agent.yaml")
    assert told.value.passing


def test_what_is_wrong_with_a_file_is_not_passing_and_names_it(patient: FaultyDevice) -> None:
    (patient.directory / "endpoint-ca.pem").unlink()
    with pytest.raises(BadConfiguration, match=r"endpoint\.ca_file: does not exist") as told:
        read_configuration(patient.directory / "agent.yaml")
    assert (told.value.passing, told.value.files) == (False, (patient.directory / "endpoint-ca.pem",))


@pytest.mark.parametrize(
    ("code", "said"), [(0, "ended with status 0"), (-9, "SIGKILL"), (-40, "by signal 40"), (None, "hung")]
)
def test_every_end_can_be_told(code: int | None, said: str) -> None:
    assert said in subprocesses.how_it_ended(code)


def test_a_worker_whose_request_nobody_reads_is_ended_without_a_fault(
    patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    request = Request(Kind.CHECK_IN, Record("x" * 2**20), 0.0, True, patient.settings())  # noqa: FBT003 - a dataclass
    told = outcome(Worker(request))
    assert isinstance(told, Failed)
    assert told.code == "worker-crashed"


def test_a_ca_file_that_is_spoilt_under_way_keeps_the_worker_from_asking(patient: FaultyDevice) -> None:
    """Not even a connection is made: each issued certificate would be refused and its key dropped."""
    (patient.directory / "manufacturer-ca.pem").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as broker:
        patient.configure(broker.getsockname()[1])
        settings = replace(patient.settings(), step_limit=30.0)
        told = outcome(Worker(Request(Kind.REQUEST, patient.record, patient.now, True, settings)))  # noqa: FBT003 - the same
        broker.settimeout(0)
        with pytest.raises(BlockingIOError):
            broker.accept()
    assert isinstance(told, Failed)
    assert told.code == "unfit-certificate"
    assert "no certificate is accepted without the manufacturer's CA" in told.message


ECHO = "import sys; line = sys.stdin.readline()\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a module of these lines, which a child can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(text: str) -> str:
        (tmp_path / "a_child.py").write_text(ECHO + text)
        return "a_child"

    return write


def test_a_child_gets_one_line_and_gives_one(program: Callable[[str], str]) -> None:
    assert ask(program("sys.stdout.write(line.upper())"), b"abc\n", PATIENCE) == b"ABC\n"


@pytest.mark.parametrize(
    ("text", "limit", "said"),
    [
        ("sys.exit(3)", PATIENCE, "ended with status 3 without an answer"),
        ("sys.stdout.write('half')", PATIENCE, "ended with status 0 without an answer"),
        ("import os; os.kill(os.getpid(), 11)", PATIENCE, "was ended by SIGSEGV without an answer"),
        ("sys.stdout.write('x' * 2**20)", PATIENCE, "wrote more than 262144 bytes and was stopped"),
        ("sys.stdin.read()", 0.5, "hung and was stopped after 0 s"),
    ],
)
def test_how_a_child_without_an_answer_ended_is_told(
    program: Callable[[str], str], text: str, limit: float, said: str
) -> None:
    with pytest.raises(NoAnswer) as told:
        ask(program(text), b"\n", limit)
    assert str(told.value) == said
    assert isinstance(told.value, TooSlow) == (limit < PATIENCE)


def test_each_line_is_given_as_soon_as_it_is_there(program: Callable[[str], str]) -> None:
    """The child writes its second line only after its parent has seen the first, and closed the pipe."""
    module = program("print(1, flush=True); sys.stdin.read(); print(2); sys.exit(4)")
    with Child(module, b"\n", PATIENCE) as child:
        lines = child.lines()
        assert next(lines) == b"1"
        child._stdin.close()
        assert next(lines) == b"2"
        with pytest.raises(NoAnswer, match="ended with status 4 before it was done"):
            next(lines)


@pytest.mark.parametrize("own_group", [True, False])
def test_a_child_has_its_own_process_group_unless_it_belongs_to_its_parents(
    program: Callable[[str], str], *, own_group: bool
) -> None:
    group = ask(program("import os; print(os.getpgrp())"), b"\n", PATIENCE, own_group=own_group)
    assert (int(group) == os.getpgrp()) is not own_group


def test_a_child_does_not_hear_of_the_service_manager(
    program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"):
        monkeypatch.setenv(name, "1")
    module = program("import os; print(*({'NOTIFY_SOCKET', 'WATCHDOG_USEC', 'JOURNAL_STREAM'} & {*os.environ}))")
    assert ask(module, b"\n", PATIENCE) == b"JOURNAL_STREAM\n"
