"""Log lines: to journald with fields, in its own protocol; elsewhere to stderr, with `<N>` priorities or with times.

journald's protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) is one datagram of fields. stderr leads to journald if it is
the stream whose device and inode systemd gives in JOURNAL_STREAM, as in sd-journal. `redact` removes private keys, PINs
and control characters from each line.

No reader can delay this process: a line that the journal, a pipe, a socket or a terminal does not take at once is
dropped and counted, and the next line that can be written is preceded by the count.
"""

import logging
import os
import re
import select
import socket
import stat
import struct
import sys
from collections.abc import Callable
from types import TracebackType

from iot_agent.core.errors import printable

JOURNAL_SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
SECRETS = (
    (re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL), "[private key]"),
    (re.compile(r"(pin-value=)[^;&?\s'\"]+", re.IGNORECASE), r"\1[redacted]"),
    (re.compile(r"(\bpin['\"]?\s*[:=]\s*['\"]?)[^\s'\",;)}]+", re.IGNORECASE), r"\1[redacted]"),
)
LONGEST_MESSAGE = 32 * 1024  # characters of one message: less than a Unix datagram holds, and more than any of ours has


def redact(text: str) -> str:
    """Remove what must never be in a log: private keys in PEM, PINs in PKCS#11 URIs and settings, control characters.

    Line breaks stay.
    """
    text = "\n".join(
        map(printable, text.split("\n"))
    )  # first: a space of another kind must not hide a key's first line
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return text[:LONGEST_MESSAGE]


class Redacting(logging.Formatter):
    """Formats message, arguments and traceback, then redacts all of it: a secret may be in any of the three."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        return redact(super().format(record))


class Prioritised(Redacting):
    """`<6>text`: every line of a message carries its priority (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        prefix = f"<{_priority(record)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class CountingHandler(logging.Handler):
    """Never waits: a line that `send` cannot send is dropped and counted."""

    def __init__(self) -> None:
        super().__init__()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, preceded by the number of dropped ones if there are any."""
        try:
            if self._dropped:
                said = f"{self._dropped} messages before this one were dropped: their reader was too slow"
                told = logging.makeLogRecord({"name": __name__, "levelno": logging.WARNING, "msg": said})
                self._dropped = 0 if self.send(told) else self._dropped
            self._dropped += not self.send(record)
        except Exception:  # noqa: BLE001 - as logging's own handlers: a line that cannot be made must not stop the agent
            self.handleError(record)

    def send(self, record: logging.LogRecord) -> bool:
        """Send one record at once; False if that cannot be done."""
        raise NotImplementedError


class StderrHandler(CountingHandler):
    """Writes to descriptor 2."""

    def __init__(self, formatter: logging.Formatter, descriptor: int = 2) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._descriptor, self._write = _without_waiting(descriptor)
        self._torn = False  # the last line lacks its end

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()

    def send(self, record: logging.LogRecord) -> bool:
        """Write a record; False if it could not be written to its end."""
        rest = ("\n" * self._torn + self.format(record) + "\n").encode(errors="replace")
        try:
            while rest:
                written = self._write(rest[: select.PIPE_BUF])
                self._torn, rest = True, rest[written:]
        except OSError:
            return False
        self._torn = False
        return True


class JournalHandler(CountingHandler):
    """Sends each record to journald with its fields (`events.of`); what cannot be sent goes to stderr."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self.setFormatter(Redacting("%(message)s"))
        self._fallback = StderrHandler(Prioritised("%(message)s"))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._fallback.close()
        super().close()

    def send(self, record: logging.LogRecord) -> bool:
        """Send one record, to stderr if the journal does not take it."""
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_priority(record)),
            "SYSLOG_IDENTIFIER": "iot-agent",
            "LOGGER": record.name,
            "CODE_FILE": record.module + ".py",
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
            **{name: redact(value) for name, value in getattr(record, "journal", {}).items()},
        }
        try:
            self._socket.sendto(datagram(fields), self._path)
        except OSError:
            return self._fallback.send(record)
        return True


def _without_waiting(descriptor: int) -> tuple[int, Callable[[bytes], int]]:
    """Give another descriptor for the open file of `descriptor`, and a function that writes to it without waiting.

    O_NONBLOCK belongs to the open file, which other processes share (open(2)), so a pipe or terminal is opened again.
    If that is not allowed, each piece is written only if poll(2) says that there is room.
    """
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        try:
            ours = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            ours = os.dup(descriptor)
        return ours, lambda data: _write_if_there_is_room(ours, data)
    ours = os.dup(descriptor)
    if stat.S_ISSOCK(kind):
        return ours, lambda data: _send(ours, data)
    return ours, lambda data: os.write(ours, data)  # a file: only as slow as its disk


def _write_if_there_is_room(descriptor: int, data: bytes) -> int:
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    if not room.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data)


def _send(descriptor: int, data: bytes) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        return connection.send(data, socket.MSG_DONTWAIT)


def datagram(fields: dict[str, str]) -> bytes:
    """Encode fields: NAME=value; or, for several lines, NAME, the value's length (64 bit, little-endian), the value."""
    encoded = bytearray()
    for name, text in fields.items():
        value = text.encode(errors="replace")
        if b"\n" in value:
            encoded += name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
        else:
            encoded += name.encode() + b"=" + value + b"\n"
    return bytes(encoded)


def configure(level: str) -> None:
    """Set up logging for this process; call again to change the level, which needs no descriptor and cannot fail."""
    root = logging.getLogger()
    if not any(isinstance(handler, CountingHandler | logging.NullHandler) for handler in root.handlers):
        logging.basicConfig(handlers=[_handler()], force=True)
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a closed stderr must not stop the agent
    sys.excepthook = _tell_the_end  # Python's own would print a traceback that is not redacted


def _tell_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("iot_agent").critical("ended by a fault of its own", exc_info=(kind, error, trace))


def _handler() -> logging.Handler:
    if _stderr_is_the_journal() and os.path.exists(JOURNAL_SOCKET):  # noqa: PTH110 - pathlib would say the same longer
        return JournalHandler()
    if sys.stderr is None:  # it was closed at the start: descriptor 2 may be another file by now
        return logging.NullHandler()
    person = sys.stderr.isatty()
    return StderrHandler(Redacting("%(asctime)s %(levelname)-7s %(message)s") if person else Prioritised("%(message)s"))


def _stderr_is_the_journal() -> bool:
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stderr = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return (device, inode) == (str(stderr.st_dev), str(stderr.st_ino))


def _priority(record: logging.LogRecord) -> int:
    return PRIORITIES.get(record.levelno, 5)
