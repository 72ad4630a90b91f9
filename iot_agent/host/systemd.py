"""Messages to systemd (sd_notify(3)): ready, status, watchdog, reload, stop. Without systemd nothing is sent."""

import os
import time
from pathlib import Path

from sdnotify import SystemdNotifier

from iot_agent.core.errors import printable

SEND_LIMIT = (
    1.0  # seconds: the queue holds ten messages, and a service manager that reads none must not delay the device
)
LONGEST_STATUS = 1000  # characters: systemd ignores a message of more than 4096 bytes
WATCHDOG_SHARE = 3  # messages in each watchdog period


class Notifier:
    """The `ServiceManager` port."""

    def __init__(self) -> None:
        self._notifier = SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.settimeout(SEND_LIMIT)
        self._status = ""

    def ready(self) -> None:
        """Say that the start or the reload is over."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`; it is sent only when it changes.

        Line breaks in the text are replaced: a second line would be a command to systemd, like WATCHDOG=trigger.
        """
        line = printable(text)[:LONGEST_STATUS]
        if line != self._status:
            self._status = line
            self._tell(f"STATUS={line}")

    def alive(self) -> None:
        """Restart the watchdog's timer."""
        self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that a reload has begun; systemd requires the monotonic time with it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the daemon is stopping."""
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        """Send a message. systemd reads UTF-8; the library writes Latin-1, and drops what is in neither."""
        self._notifier.notify(message.encode().decode("latin-1"))


def watchdog_interval() -> float | None:
    """Give the seconds between two messages, or None if this process has no watchdog (sd_watchdog_enabled(3))."""
    period, owner = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not period.isdecimal() or owner not in ("", str(os.getpid())):
        return None
    return int(period) / 1e6 / WATCHDOG_SHARE


def given_directory(variable: str, otherwise: Path) -> Path:
    """Give the first directory that systemd made for the unit (systemd.exec(5), RuntimeDirectory=)."""
    return Path(os.environ.get(variable, "").split(":")[0] or otherwise)
