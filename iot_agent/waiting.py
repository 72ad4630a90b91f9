"""The daemon before it has a configuration that it can run with: it waits, says for what, and goes on by itself.

To systemd it is up (READY=1, with the reason in STATUS=, the watchdog fed), `agentctl status` tells what is missing and
what to do. The configuration is read again when its file appears or changes, and on SIGHUP.
"""

import logging
import selectors
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iot_agent import __version__, events, offline, status
from iot_agent.control import ControlServer
from iot_agent.ports import Notifier
from iot_agent.record import Record
from iot_agent.signals import Signals

log = logging.getLogger(__name__)
LOOK_EVERY = 2.0  # seconds between two looks at the file: without inotify in the standard library, cheap enough


@dataclass
class Waiting:
    """Waits for `config` to be mended. Where state and socket are is not known yet: they are where systemd says."""

    config: Path
    state: Path
    run: Path
    notifier: Notifier
    watchdog: float | None
    signals: Signals

    def look(self) -> tuple[int, ...] | None:
        """See the file as it is now: what changes when somebody writes it, replaces it, or gives access to it."""
        try:
            found = self.config.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino

    def until_changed(self, seen: tuple[int, ...] | None, problem: str) -> None:
        """Wait until the file is no more as it was `seen`, or until a signal comes.

        Raises `OSError` when the control socket cannot be made: then nobody could see what is waited for.
        """
        log.warning("waiting for a configuration: %s", problem, extra=events.of("waiting"))
        with selectors.DefaultSelector() as selector:
            selector.register(self.signals, selectors.EVENT_READ, self.signals.drain)
            control = ControlServer(self.run / "control.sock", selector, lambda command: self._answer(command, problem))
            try:
                self.notifier.ready()
                self.notifier.status(f"waiting for a configuration: {problem.splitlines()[0]}")
                while not (self.signals.stop or self.signals.reload) and self.look() == seen:
                    patience = (LOOK_EVERY, control.expire(), self.watchdog)
                    for key, _ in selector.select(min(wait for wait in patience if wait is not None)):
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
        """Tell what the disk holds, if this device has a past, and what is waited for."""
        record = offline.record(self.state)
        remedy = (
            f"Mend {self.config} (agent.yaml(5); the agent's user must be able to read it) and check it with: "
            f"iot-agent --check --config {self.config}. It is taken over as soon as it is saved."
        )
        about = {
            "daemon": "waiting for its configuration",
            "version": __version__,
            "key": None,
            "configuration": {"error": problem, "remedy": remedy},
            "trouble": None,
            "clock_trusted": record is None or time.time() >= record.time_floor,
        }
        shown = status.report(record or Record(""), None, time.time(), about)
        shown["reason"] = "waiting for a configuration that it can run with"
        return shown
