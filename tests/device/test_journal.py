"""Where log lines go and what is in them: journald's protocol with fields, priorities elsewhere, secrets nowhere."""

import logging
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot_agent.core import journal_events
from iot_agent.core.record import Certificate, Identity, Pending, Record, State
from iot_agent.host import journal as room
from tests.device.faulty_device import acting_as
from tests.harness import PATIENCE

LOADED = "from iot_agent.host import journal as room; import logging"
CATALOG = Path(__file__).parents[2] / "packaging/iot-agent.catalog"
CANARY = "MHcCAQEEIIr5canary5QkzGmDq"
KEY = f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----\n"


class Journal:
    """What journald would have been sent."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(5)

    def next(self) -> dict[str, str]:
        """Decode one datagram, as systemd.io/JOURNAL_NATIVE_PROTOCOL describes it."""
        data, fields = self._socket.recv(256 * 1024), {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                (length,) = struct.unpack("<Q", data[:8])
                value, data = data[8 : 8 + length], data[8 + length + 1 :]
            fields[name.decode()] = value.decode()
        return fields

    def drain(self) -> int:
        """Take all that is there; give how many entries it was."""
        self._socket.settimeout(0)
        count = 0
        try:
            while self._socket.recv(256 * 1024):
                count += 1
        except BlockingIOError:
            self._socket.settimeout(5)
        return count

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    listening = Journal(tmp_path / "journal")
    yield listening
    listening.close()


@pytest.fixture
def logger(journal: Journal) -> Iterator[logging.Logger]:
    made = logging.getLogger("test_journal")
    made.propagate = False
    handler = room.JournalHandler(journal.path)
    made.addHandler(handler)
    yield made
    made.removeHandler(handler)


def test_an_event_is_one_line_with_fields(logger: logging.Logger, journal: Journal) -> None:
    active = Identity("iot-agent-1", Certificate("aa" * 32, 0, 10))
    pending = Pending("iot-agent-2", "r", generated=True, certificate=Certificate("bb" * 32, 0, 10))
    record = Record("SN-0001", State.ROTATED, active=active, pending=pending, attempt=2)
    logger.warning(
        "issued: %s",
        "bb",
        extra=journal_events.of("issued", **journal_events.facts(record), step="request", error=None),
    )
    fields = journal.next()
    line = int(fields.pop("CODE_LINE"))
    assert line > 1
    assert fields == {
        "MESSAGE": "issued: bb",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "iot-agent",
        "LOGGER": "test_journal",
        "CODE_FILE": "test_journal.py",
        "CODE_FUNC": "test_an_event_is_one_line_with_fields",
        "MESSAGE_ID": journal_events.MESSAGE_IDS["issued"],
        "IOT_AGENT_EVENT": "issued",
        "IOT_AGENT_SERIAL": "SN-0001",
        "IOT_AGENT_STATE": "rotated",
        "IOT_AGENT_ATTEMPT": "2",
        "IOT_AGENT_CERTIFICATE_ID": "aa" * 32,
        "IOT_AGENT_PENDING_CERTIFICATE_ID": "bb" * 32,
        "IOT_AGENT_STEP": "request",
    }


def test_several_lines_stay_one_entry_and_cannot_forge_a_field(logger: logging.Logger, journal: Journal) -> None:
    logger.error("first\nPRIORITY=0\nlast", extra=journal_events.of("step-failed", error="a\nMESSAGE=forged"))
    fields = journal.next()
    assert fields["MESSAGE"] == "first\nPRIORITY=0\nlast"
    assert fields["PRIORITY"] == "3"
    assert fields["IOT_AGENT_ERROR"] == "a\nMESSAGE=forged"


def test_a_journal_that_is_away_costs_nothing(
    logger: logging.Logger, journal: Journal, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = room.JournalHandler(journal.path + ".gone")
    logger.addHandler(handler)
    logger.warning("still said")
    logger.removeHandler(handler)
    assert capfd.readouterr().err == "<4>still said\n"


SECRETS = [
    pytest.param(f"key is {KEY}", (), id="in the message"),
    pytest.param("key is %s", (KEY,), id="in an argument"),
    pytest.param("cut off: %s", (KEY.partition("-----END")[0],), id="cut off"),
    pytest.param("using %s", (f"pkcs11:token=t;object=o?pin-value={CANARY}",), id="a PIN in a URI"),
    pytest.param("settings %s", ({"pin": CANARY},), id="a PIN in settings"),
    pytest.param("keys.pin: %s", (CANARY,), id="a PIN by its key"),
]


@pytest.mark.parametrize(("message", "arguments"), SECRETS)
@pytest.mark.parametrize("formatter", [room.Redacting("%(message)s"), room.Prioritised("%(message)s")])
def test_no_secret_is_in_a_formatted_line(
    formatter: logging.Formatter, message: str, arguments: tuple[object, ...]
) -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, message, arguments, None)
    said = formatter.format(record)
    assert CANARY not in said
    assert "BEGIN EC" not in said
    assert CANARY in logging.Formatter("%(message)s").format(record), "the canary must have been there"


def test_no_secret_is_in_a_traceback_or_a_field(logger: logging.Logger, journal: Journal) -> None:
    try:
        int(KEY)
    except ValueError:
        logger.exception("it failed", extra=journal_events.of("step-failed", remedy=f"use {KEY}"))
    fields = journal.next()
    assert "ValueError: invalid literal for int() with base 10: '[private key]" in fields["MESSAGE"]
    assert fields["IOT_AGENT_REMEDY"] == "use [private key]\n"
    assert CANARY not in str(fields)


def test_no_secret_is_in_the_traceback_that_a_process_ends_with() -> None:
    code = f"from iot_agent.host import journal as room; room.configure('info'); int({KEY!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("<2>ended by a fault of its own\n<2>Traceback (most recent call last):")
    assert "[private key]" in ended.stderr
    assert CANARY not in ended.stderr


def test_what_is_no_secret_stays() -> None:
    said = "spinning: the pin is [redacted]; -----BEGIN CERTIFICATE-----"
    assert room.redact(said) == said


def said_by_a_process(**environment: str) -> str:
    code = f"{LOADED}; room.configure('info'); logging.warning('two\\nlines')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stderr


def test_without_a_terminal_lines_carry_priorities_also_when_the_journal_is_somebody_else_s() -> None:
    assert said_by_a_process() == "<4>two\n<4>lines\n"
    assert said_by_a_process(JOURNAL_STREAM="1:2") == "<4>two\n<4>lines\n"


def test_a_person_at_a_terminal_is_told_the_time() -> None:
    code = f"{LOADED}; room.configure('info'); logging.warning('hello')"
    terminal, theirs = os.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    said = os.read(terminal, 1024).decode()
    os.close(terminal)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ WARNING hello\r\n", said)


# ---- readers that hang ----------------------------------------------------------------------------------------------


class Reader:
    """The other end of what a handler writes to, which reads only when it is told to."""

    def __init__(self, theirs: int, ours: int) -> None:
        self.theirs, self._ours = theirs, ours
        os.set_blocking(ours, False)

    def read(self) -> str:
        said = b""
        try:
            while piece := os.read(self._ours, 65536):
                said += piece
        except BlockingIOError:
            pass
        return said.decode().replace("\r\n", "\n")  # a terminal's line ends

    def close(self) -> None:
        os.close(self.theirs)
        os.close(self._ours)


def pipe() -> Reader:
    ours, theirs = os.pipe()
    return Reader(theirs, ours)


def stream() -> Reader:
    ours, theirs = socket.socketpair()
    return Reader(theirs.detach(), ours.detach())


def terminal() -> Reader:
    ours, theirs = os.openpty()
    return Reader(theirs, ours)


@pytest.fixture(params=[pipe, stream, terminal])
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    made: Reader = request.param()
    yield made
    made.close()


def entry(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "x.py", 1, text, (), None)


def repeat(handler: logging.Handler, text: str, times: int) -> None:
    for _ in range(times):
        handler.emit(entry(text))


@pytest.mark.parametrize(("text", "times"), [("short", 30000), ("x" * 3000, 300), ("x" * 20000, 50)])
def test_a_reader_that_hangs_costs_lines_and_their_number_is_told(reader: Reader, text: str, times: int) -> None:
    handler = room.StderrHandler(room.Prioritised("%(message)s"), reader.theirs)
    repeat(handler, text, times)
    assert os.get_blocking(reader.theirs), "others write there too, and are used to wait"
    lines = reader.read().splitlines()
    assert all(f"<6>{text}".startswith(line) for line in lines), "whole, or torn"
    handler.emit(entry("again"))
    *_, told, again = reader.read().splitlines()
    assert again == "<6>again"
    dropped = re.fullmatch(r"<4>(\d+) messages before this one were dropped: their reader was too slow", told)
    assert dropped
    assert lines.count(f"<6>{text}") in (times - int(dropped[1]), times - int(dropped[1]) + 1), (
        "one may lack only its end"
    )
    handler.close()


@pytest.mark.needs_root
def test_a_pipe_of_somebody_else_is_not_waited_for_either() -> None:
    """Who gave up root may not open it anew, and asks for room before each piece."""
    reader = pipe()
    with acting_as(4321, 4321):
        handler = room.StderrHandler(room.Prioritised("%(message)s"), reader.theirs)
    repeat(handler, "x" * 3000, 300)
    assert reader.read().count("\n") >= 10
    handler.close()
    reader.close()


def test_a_reader_that_has_gone_is_no_reason_to_end() -> None:
    ours, theirs = os.pipe()
    handler = room.StderrHandler(room.Prioritised("%(message)s"), theirs)
    os.close(ours)
    handler.emit(entry("into the void"))
    os.close(theirs)
    handler.close()


def test_a_journal_that_hangs_beside_a_full_pipe_costs_lines_and_their_number_is_told(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, honest = pipe(), room.StderrHandler
    monkeypatch.setattr(room, "StderrHandler", lambda formatter: honest(formatter, reader.theirs))
    handler = room.JournalHandler(journal.path)
    repeat(handler, "x" * 3000, 3000)
    in_journal = journal.drain()
    on_stderr = reader.read().count("<6>" + "x" * 3000 + "\n")
    handler.emit(entry("again"))
    dropped = 3000 - in_journal - on_stderr
    assert journal.next()["MESSAGE"].startswith(f"{dropped} messages before this one were dropped")
    assert journal.next()["MESSAGE"] == "again"
    handler.close()
    reader.close()


WRITES = """
import logging
from iot_agent.host import journal as room
room.configure("info")
{planted}
for _ in range(3000): logging.warning("x" * 100)
"""
PLANTED = "logging.basicConfig(handlers=[logging.StreamHandler()], force=True)"


@pytest.mark.parametrize("planted", ["", PLANTED], ids=["ours", "planted: Python's own handler"])
def test_a_process_whose_stderr_nobody_reads_goes_on(planted: str) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITES.format(planted=planted)], stderr=subprocess.PIPE) as process:
        try:
            process.wait(PATIENCE if not planted else 3)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
            process.kill()
    assert ended == (not planted)


def test_the_level_is_changed_also_without_descriptors() -> None:
    code = (
        f"{LOADED}, resource; room.configure('error'); logging.warning('not yet')\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); room.configure('info'); logging.info('now')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "<6>now\n"


def test_without_a_stderr_nothing_is_written_to_what_has_its_number_now(tmp_path: Path) -> None:
    code = (
        "import os, sys; from iot_agent.host import journal as room; import logging\n"
        "taken = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "assert taken == 2; room.configure('info'); logging.warning('x')"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" "$2" 2>&-', sys.executable, code, str(tmp_path / "file")]
    assert subprocess.run(command, check=False).returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_no_line_tells_a_terminal_what_to_do() -> None:
    said = room.Redacting("%(message)s").format(entry("a\x1b[2Jb\x9b\r\ncö\u202e"))
    assert said == "a?[2Jb? \ncö?"


def catalog() -> dict[str, str]:
    _, *entries = re.split(r"^-- ", CATALOG.read_text(), flags=re.MULTILINE)
    return {entry[:32]: entry[32:] for entry in entries}


def test_the_catalog_explains_each_event_once_and_no_other() -> None:
    assert len(set(journal_events.MESSAGE_IDS.values())) == len(journal_events.MESSAGE_IDS)
    assert catalog().keys() == set(journal_events.MESSAGE_IDS.values())
    assert CATALOG.read_text().count("\n-- ") == len(journal_events.MESSAGE_IDS)


@pytest.mark.parametrize("event", journal_events.MESSAGE_IDS)
def test_an_explanation_says_what_to_do_and_names_only_fields_that_are_there(event: str) -> None:
    text = catalog()[journal_events.MESSAGE_IDS[event]]
    assert re.match(r"\nSubject: [^\n]+\nDefined-By: iot-agent\nDocumentation: man:[^\n]+\n\n\S", text)
    known = {f"IOT_AGENT_{name.upper()}" for name in journal_events.facts(Record("x"))}
    known |= {"IOT_AGENT_STEP", "IOT_AGENT_ERROR", "IOT_AGENT_REMEDY", "IOT_AGENT_PREVIOUS_STATE"}
    assert set(re.findall(r"@([A-Z_]+)@", text)) <= known


def test_every_event_of_a_device_s_history_has_an_id() -> None:
    rooms = (Path(journal_events.__file__).with_name(name) for name in ("lifecycle.py", "reconcile.py"))
    noted = set(re.findall(r'note\((?:[^"]*?), "([a-z-]+)"', "".join(room.read_text() for room in rooms)))
    assert {"introduced", "issued", "promoted", "retired", "rolled-back"} <= noted
    assert noted <= journal_events.MESSAGE_IDS.keys()
