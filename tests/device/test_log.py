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

from iot_agent import events, log
from iot_agent.record import Certificate, Identity, Pending, Record, State

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

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    listening = Journal(tmp_path / "journal")
    yield listening
    listening.close()


@pytest.fixture
def logger(journal: Journal) -> Iterator[logging.Logger]:
    made = logging.getLogger("test_log")
    made.propagate = False
    handler = log.JournalHandler(journal.path)
    made.addHandler(handler)
    yield made
    made.removeHandler(handler)


def test_an_event_is_one_line_with_fields(logger: logging.Logger, journal: Journal) -> None:
    active = Identity("iot-agent-1", Certificate("aa" * 32, 0, 10))
    pending = Pending("iot-agent-2", "r", generated=True, certificate=Certificate("bb" * 32, 0, 10))
    record = Record("SN-0001", State.ROTATED, active=active, pending=pending, attempt=2)
    logger.warning("issued: %s", "bb", extra=events.of("issued", **events.facts(record), step="request", error=None))
    fields = journal.next()
    line = int(fields.pop("CODE_LINE"))
    assert line > 1
    assert fields == {
        "MESSAGE": "issued: bb",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "iot-agent",
        "LOGGER": "test_log",
        "CODE_FILE": "test_log.py",
        "CODE_FUNC": "test_an_event_is_one_line_with_fields",
        "MESSAGE_ID": events.MESSAGE_IDS["issued"],
        "IOT_AGENT_EVENT": "issued",
        "IOT_AGENT_SERIAL": "SN-0001",
        "IOT_AGENT_STATE": "rotated",
        "IOT_AGENT_ATTEMPT": "2",
        "IOT_AGENT_CERTIFICATE_ID": "aa" * 32,
        "IOT_AGENT_PENDING_CERTIFICATE_ID": "bb" * 32,
        "IOT_AGENT_STEP": "request",
    }


def test_several_lines_stay_one_entry_and_cannot_forge_a_field(logger: logging.Logger, journal: Journal) -> None:
    logger.error("first\nPRIORITY=0\nlast", extra=events.of("step-failed", error="a\nMESSAGE=forged"))
    fields = journal.next()
    assert fields["MESSAGE"] == "first\nPRIORITY=0\nlast"
    assert fields["PRIORITY"] == "3"
    assert fields["IOT_AGENT_ERROR"] == "a\nMESSAGE=forged"


def test_a_journal_that_is_away_costs_nothing(
    logger: logging.Logger, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = log.JournalHandler(journal.path + ".gone")
    logger.addHandler(handler)
    logger.warning("still said")
    logger.removeHandler(handler)
    assert capsys.readouterr().err == "<4>still said\n"


SECRETS = [
    pytest.param(f"key is {KEY}", (), id="in the message"),
    pytest.param("key is %s", (KEY,), id="in an argument"),
    pytest.param("cut off: %s", (KEY.partition("-----END")[0],), id="cut off"),
    pytest.param("using %s", (f"pkcs11:token=t;object=o?pin-value={CANARY}",), id="a PIN in a URI"),
    pytest.param("settings %s", ({"pin": CANARY},), id="a PIN in settings"),
    pytest.param("keys.pin: %s", (CANARY,), id="a PIN by its key"),
]


@pytest.mark.parametrize(("message", "arguments"), SECRETS)
@pytest.mark.parametrize("formatter", [log.Redacting("%(message)s"), log.Prioritised("%(message)s")])
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
        logger.exception("it failed", extra=events.of("step-failed", remedy=f"use {KEY}"))
    fields = journal.next()
    assert "ValueError: invalid literal for int() with base 10: '[private key]" in fields["MESSAGE"]
    assert fields["IOT_AGENT_REMEDY"] == "use [private key]\n"
    assert CANARY not in str(fields)


def test_no_secret_is_in_the_traceback_that_a_process_ends_with() -> None:
    code = f"from iot_agent import log; log.configure('info'); int({KEY!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("<2>ended by a fault of its own\n<2>Traceback (most recent call last):")
    assert "[private key]" in ended.stderr
    assert CANARY not in ended.stderr


def test_what_is_no_secret_stays() -> None:
    said = "spinning: the pin is [redacted]; -----BEGIN CERTIFICATE-----"
    assert log.redact(said) == said


def said_by_a_process(**environment: str) -> str:
    code = "from iot_agent import log; import logging; log.configure('info'); logging.warning('two\\nlines')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stderr


def test_without_a_terminal_lines_carry_priorities_also_when_the_journal_is_somebody_else_s() -> None:
    assert said_by_a_process() == "<4>two\n<4>lines\n"
    assert said_by_a_process(JOURNAL_STREAM="1:2") == "<4>two\n<4>lines\n"


def test_a_person_at_a_terminal_is_told_the_time() -> None:
    code = "from iot_agent import log; import logging; log.configure('info'); logging.warning('hello')"
    terminal, theirs = os.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    said = os.read(terminal, 1024).decode()
    os.close(terminal)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ WARNING hello\r\n", said)


def catalog() -> dict[str, str]:
    _, *entries = re.split(r"^-- ", CATALOG.read_text(), flags=re.MULTILINE)
    return {entry[:32]: entry[32:] for entry in entries}


def test_the_catalog_explains_each_event_once_and_no_other() -> None:
    assert len(set(events.MESSAGE_IDS.values())) == len(events.MESSAGE_IDS)
    assert catalog().keys() == set(events.MESSAGE_IDS.values())
    assert CATALOG.read_text().count("\n-- ") == len(events.MESSAGE_IDS)


@pytest.mark.parametrize("event", events.MESSAGE_IDS)
def test_an_explanation_says_what_to_do_and_names_only_fields_that_are_there(event: str) -> None:
    text = catalog()[events.MESSAGE_IDS[event]]
    assert re.match(r"\nSubject: [^\n]+\nDefined-By: iot-agent\nDocumentation: man:[^\n]+\n\n\S", text)
    known = {f"IOT_AGENT_{name.upper()}" for name in events.facts(Record("x"))}
    known |= {"IOT_AGENT_STEP", "IOT_AGENT_ERROR", "IOT_AGENT_REMEDY", "IOT_AGENT_PREVIOUS_STATE"}
    assert set(re.findall(r"@([A-Z_]+)@", text)) <= known


def test_every_event_of_a_device_s_history_has_an_id() -> None:
    rooms = (Path(events.__file__).with_name(name) for name in ("lifecycle.py", "reconcile.py"))
    noted = set(re.findall(r'note\((?:[^"]*?), "([a-z-]+)"', "".join(room.read_text() for room in rooms)))
    assert {"introduced", "issued", "promoted", "retired", "rolled-back"} <= noted
    assert noted <= events.MESSAGE_IDS.keys()
