"""Log lines: to journald in its own protocol, with fields; elsewhere to stderr, with `<N>` priorities or with times.

journald's protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) is one datagram of fields. Whether stderr is journald's is
asked the way sd-journal asks: JOURNAL_STREAM names the device and inode of the stream that systemd gave us. Whatever
happens to be in a line, a private key or a PIN never leaves this process in one (`redact`).
"""

import logging
import os
import re
import socket
import struct
import sys
from types import TracebackType

JOURNAL_SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
SECRETS = (
    (re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL), "[private key]"),
    (re.compile(r"(pin-value=)[^;&?\s'\"]+", re.IGNORECASE), r"\1[redacted]"),
    (re.compile(r"(\bpin['\"]?\s*[:=]\s*['\"]?)[^\s'\",;)}]+", re.IGNORECASE), r"\1[redacted]"),
)
LONGEST = 32 * 1024  # of one message: well under what a Unix datagram holds, and more than any of ours needs


def redact(text: str) -> str:
    """Take out what must never be in a log: private keys in PEM, PINs in PKCS#11 URIs and settings."""
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return text[:LONGEST]


class Redacting(logging.Formatter):
    """Formats, with arguments and traceback, and only then looks for secrets: they may be in any of the three."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        return redact(super().format(record))


class Prioritised(Redacting):
    """`<6>text`: every line of a message carries its priority (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        prefix = f"<{_priority(record)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class JournalHandler(logging.Handler):
    """Sends each record to journald with its fields (`events.of`); what cannot be sent goes to stderr."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self.setFormatter(Redacting("%(message)s"))
        self._fallback = logging.StreamHandler(sys.stderr)
        self._fallback.setFormatter(Prioritised("%(message)s"))

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record. A journal that is full or away must not stop the agent."""
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
            self._fallback.emit(record)


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
    """Set up logging for this process; call again to change the level."""
    logging.basicConfig(level=level.upper(), handlers=[_handler()], force=True)
    logging.raiseExceptions = False  # a closed stderr must not stop the agent
    sys.excepthook = _tell_the_end  # Python's own would print the traceback as it is


def _tell_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("iot_agent").critical("ended by a fault of its own", exc_info=(kind, error, trace))


def _handler() -> logging.Handler:
    if _stderr_is_the_journal() and os.path.exists(JOURNAL_SOCKET):  # noqa: PTH110 - pathlib would say the same longer
        return JournalHandler()
    handler = logging.StreamHandler(sys.stderr)
    person = sys.stderr.isatty()
    handler.setFormatter(Redacting("%(asctime)s %(levelname)-7s %(message)s") if person else Prioritised("%(message)s"))
    return handler


def _stderr_is_the_journal() -> bool:
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stderr = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(stderr.st_dev), str(stderr.st_ino))


def _priority(record: logging.LogRecord) -> int:
    return PRIORITIES.get(record.levelno, 5)
