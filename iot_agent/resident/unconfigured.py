"""The daemon while it has no configuration that it can run with: it waits, reports for what, and goes on by itself.

For systemd the service is up (READY=1, the reason in STATUS=, watchdog messages). `agentctl status` shows what is
missing and what to do. The configuration is read again when agent.yaml, or a file that it names and that could not be
used, appears or changes; on SIGHUP; and after some seconds if it could not be read because this machine had no process,
memory or time for it.
"""

import logging
import math
import selectors
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iot_agent import __version__
from iot_agent.core import journal_events
from iot_agent.core.ports import ServiceManager
from iot_agent.core.record import Record
from iot_agent.host.control_socket import ControlServer
from iot_agent.host.signals import Signals
from iot_agent.status import from_disk
from iot_agent.status.report import compose
from iot_agent.storage import layout

log = logging.getLogger(__name__)
LOOK_EVERY = 2.0  # seconds between two looks at the files: the standard library has no inotify
READ_AGAIN = 10.0  # seconds after which what could not be read is tried again although no file has changed
Looks = tuple[tuple[int, ...] | None, ...]


@dataclass
class Unconfigured:
    """Waits until `config` can be used. agent.yaml names the directories, so until then they are those of the unit."""

    config: Path
    state: Path
    run: Path
    notifier: ServiceManager
    watchdog: float | None
    signals: Signals
    files: tuple[Path, ...] = ()

    def watch(self, files: tuple[Path, ...]) -> bool:
        """Look at these too, beside `config`; False if one of them is new, so that `look` has not seen it."""
        new = tuple(path for path in files if path not in self.files)
        self.files += new
        return not new

    def look(self) -> Looks:
        """Give what changes about the files when somebody writes or replaces one, or gives access to it."""
        return tuple(map(_look, (self.config, *self.files)))

    def until_changed(self, seen: Looks, problem: str, *, passing: bool) -> None:
        """Wait until the files differ from `seen`, a signal comes, or, if the problem is `passing`, for some seconds.

        Raises `OSError` if the control socket cannot be made: then nobody could see what the agent waits for.
        """
        log.warning("waiting for a configuration: %s", problem, extra=journal_events.of("waiting"))
        ends = time.monotonic() + READ_AGAIN if passing else math.inf
        with selectors.DefaultSelector() as selector:
            selector.register(self.signals, selectors.EVENT_READ, self.signals.drain)
            socket = self.run / layout.CONTROL_SOCKET
            control = ControlServer(socket, selector, lambda command: self._answer(command, problem))
            try:
                self.notifier.ready()
                first, _, _ = problem.partition("\n")
                self.notifier.status(f"waiting for a configuration: {first}")
                while not (self.signals.stop or self.signals.reload or self.look() != seen or time.monotonic() >= ends):
                    waits = (LOOK_EVERY, control.expire(), self.watchdog)
                    for key, _ in selector.select(min(wait for wait in waits if wait is not None)):
                        key.data()
                    self.notifier.alive()
            finally:
                control.close()
        if self.signals.reload:
            self.signals.reload = False
            self.notifier.reloading()

    def _answer(self, command: str, problem: str) -> dict[str, Any]:
        shown = self._report(problem)
        if command == "status":
            return {"ok": True, "status": shown}
        if command == "history":
            return {"ok": True, "history": []}
        message = f"{shown['reason']}: {problem}\n{shown['configuration']['remedy']}"
        return {"ok": False, "error": "not-configured", "message": message}

    def _report(self, problem: str) -> dict[str, Any]:
        """Report what the disk holds, and what the agent waits for."""
        record = from_disk.record(self.state)
        remedy = (
            f"Correct {self.config} (agent.yaml(5)), or the file that is named, and check it with: "
            f"iot-agent --check --config {self.config}. The agent's user must be able to read them; in /etc/iot-agent: "
            "sudo systemd-tmpfiles --create iot-agent.conf. The agent takes them over as soon as they are right."
        )
        about = {
            "daemon": "waiting for its configuration",
            "version": __version__,
            "key": None,
            "configuration": {"file": str(self.config.absolute()), "error": problem, "remedy": remedy},
            "trouble": None,
            "clock_trusted": record is None or time.time() >= record.time_floor,
        }
        shown = compose(record or Record(""), None, time.time(), about)
        shown["reason"] = "waiting for a configuration that it can run with"
        return shown


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
