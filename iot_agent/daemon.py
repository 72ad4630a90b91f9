"""The resident loop: decide, write down the intent, let a worker do it, fold in the outcome, write it down, wait.

One thread, one selector. Nothing here touches a key, the network or a library that could hang: that is the worker's.
Nothing is remembered only in memory; the process may be killed at any instruction.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from iot_agent import __version__, lifecycle, status
from iot_agent.codec import Request
from iot_agent.lifecycle import Moment
from iot_agent.ports import Clock, Notifier, StateStore, Work
from iot_agent.record import Failed, Kind, Outcome, Record, Step
from iot_agent.settings import Settings

log = logging.getLogger(__name__)
LONGEST_WAIT = 3600.0  # re-decide on wall time at least hourly: the clock may have been set meanwhile
DISK_PAUSE = 30.0  # before trying a failed write of the record again


class Control(Protocol):
    """The socket, as far as the loop needs it."""

    def expire(self) -> float | None:
        """Drop slow clients; seconds until the next would be, or None."""

    def close(self) -> None:
        """Stop serving."""


@dataclass
class Parts:
    """What the composition root gives the daemon."""

    settings: Settings
    store: StateStore
    clock: Clock
    notifier: Notifier
    launch: Callable[[Request], Work]
    serve: Callable[[selectors.BaseSelector, Callable[[str], dict[str, Any]]], Control]
    reload: Callable[[], Settings]
    new_label: Callable[[], str]
    new_request_id: Callable[[], str]
    watchdog: float | None


class Daemon:
    """Carries one device through its life."""

    def __init__(self, parts: Parts, record: Record) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._record = record
        self._saved: Record | None = record
        self._worker: Work | None = None
        self._working_on: Step | None = None
        self._config_error: str | None = None
        self._trouble: str | None = None
        self._paused_until = 0.0
        self._stop = self._reload = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        self._catch_signals()
        control = self._parts.serve(self._selector, self._command)
        self._parts.notifier.ready()
        try:
            while not self._stop:
                step = self._advance()
                self._parts.notifier.status(f"{self._record.state}: {self._trouble or step.reason}")
                for key, _ in self._selector.select(self._patience(step, control.expire())):
                    key.data()
                self._parts.notifier.alive()
                self._collect()
                if self._reload:
                    self._reload_settings()
        finally:
            self._parts.notifier.stopping()
            if self._worker is not None:
                self._worker.kill()
            control.close()
            log.info("stopped in state %s", self._record.state)

    # ---- one turn ---------------------------------------------------------------------------------------------------

    def _advance(self) -> Step:
        """Start the next step if it is due and the disk takes its intent; say what is being done or waited for."""
        if self._working_on is not None:
            return self._working_on
        now = self._parts.clock.now()
        step = lifecycle.decide(self._record, now, self._settings.policy)
        if step.kind is Kind.WAIT or step.due > now or time.monotonic() < self._paused_until:
            return step
        self._record = lifecycle.begin(self._record, step, self._parts.new_label, self._parts.new_request_id)
        if self._save():
            log.info("%s: %s", step.kind, step.reason)
            trusted = self._parts.clock.trusted
            self._worker = self._parts.launch(Request(step.kind, self._record, now, trusted, self._settings))
            self._working_on = step
            self._selector.register(self._worker, selectors.EVENT_READ, lambda: None)
        return step

    def _collect(self) -> None:
        """Fold in the outcome of the step under way, if there is one."""
        if self._worker is None or self._working_on is None:
            return
        descriptor = self._worker.fileno()
        outcome = self._worker.poll()
        if outcome is None:
            return
        self._selector.unregister(descriptor)
        step, self._worker, self._working_on = self._working_on, None, None
        self._fold(step.kind, outcome)

    def _fold(self, kind: Kind, outcome: Outcome) -> None:
        before = self._record
        moment = Moment(self._parts.clock.now(), self._settings.policy, _draw())
        self._record = lifecycle.apply(before, kind, outcome, moment)
        self._parts.clock.lift(self._record.time_floor)
        self._save()
        if isinstance(outcome, Failed):
            log.warning("%s failed (%d in a row): %s [%s]", kind, self._record.attempt, outcome.message, outcome.code)
        for event in self._record.history:
            if event not in before.history:
                log.info("%s: %s", event.event, event.detail)
        if self._record.state is not before.state:
            log.info("state %s -> %s", before.state, self._record.state)

    def _save(self) -> bool:
        """Write the record if it changed. While the disk refuses it, no step begins and the old identity serves."""
        if self._record == self._saved:
            return True
        try:
            self._parts.store.save(self._record)
        except OSError as error:
            self._trouble = f"cannot write the record, so nothing new is begun: {error}"
            self._paused_until = time.monotonic() + DISK_PAUSE
            log.error("%s", self._trouble)  # noqa: TRY400 - the traceback adds nothing to what the kernel said
            return False
        self._saved, self._trouble = self._record, None
        return True

    def _patience(self, step: Step, slow_client: float | None) -> float:
        """Give the seconds to sleep at most: until something is due."""
        waits = [LONGEST_WAIT]
        if self._worker is not None:
            waits.append(self._worker.seconds_left)
        else:
            paused = self._paused_until - time.monotonic()
            waits.append(max(step.due - self._parts.clock.now(), paused))
        if slow_client is not None:
            waits.append(slow_client)
        if self._parts.watchdog is not None:
            waits.append(self._parts.watchdog)
        return max(0.0, min(waits))

    # ---- signals and commands ---------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        """Turn signals into bytes on a socket, so that the selector wakes up for them."""
        receiving, sending = socket.socketpair()
        for end in (receiving, sending):
            end.setblocking(False)  # noqa: FBT003 - positional only
        signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
        self._signal_sockets = receiving, sending
        self._selector.register(receiving, selectors.EVENT_READ, lambda: receiving.recv(64))
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_stop", True))
        signal.signal(signal.SIGINT, lambda *_: setattr(self, "_stop", True))
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "_reload", True))

    def _reload_settings(self) -> None:
        """Take over a changed configuration; a wrong one is refused whole and the one in force stays."""
        self._reload = False
        self._parts.notifier.reloading()
        try:
            self._settings = self._parts.reload()
        except ValueError as error:
            self._config_error = str(error)
            log.error("reload refused, the configuration in force stays: %s", error)  # noqa: TRY400 - it says it all
        else:
            self._config_error = None
            self._record = lifecycle.try_now(self._record)
            log.info("configuration reloaded")
        self._parts.notifier.ready()

    def _command(self, command: str) -> dict[str, Any]:
        """Answer `agentctl`."""
        if command == "history":
            return {"ok": True, "history": [vars(event) for event in self._record.history]}
        if command == "rotate":
            return self._rotate()
        return {"ok": True, "status": self._status()}

    def _rotate(self) -> dict[str, Any]:
        joined = self._record.pending is not None or self._record.active is None
        self._record = lifecycle.request_rotation(self._record, self._parts.clock.now())
        self._paused_until = 0.0
        if not self._save():
            return {"ok": False, "error": "busy", "message": self._trouble}
        message = "joined the rotation that is under way" if joined else "a rotation begins now"
        return {"ok": True, "message": message, "rotations": self._record.rotations}

    def _status(self) -> dict[str, Any]:
        now = self._parts.clock.now()
        step = self._working_on or lifecycle.decide(self._record, now, self._settings.policy)
        about = {
            "daemon": "running",
            "version": __version__,
            "key": {"backend": self._settings.keys_backend, "algorithm": self._settings.keys_algorithm},
            "configuration": {"error": self._config_error},
            "trouble": self._trouble,
            "clock_trusted": self._parts.clock.trusted,
        }
        return status.report(self._record, step, now, about)


def _draw() -> float:
    """Draw from [0, 1). `random` would load OpenSSL into the resident process, for its hashes."""
    return int.from_bytes(os.urandom(7)) / 2**56
