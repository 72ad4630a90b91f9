"""The resident loop: decide, write down the intent, let a worker do it, fold in the outcome, write it down, wait.

One thread, one selector. Nothing here touches a key, the network or a library that could hang: that is the worker's.
Nothing is remembered only in memory; the process may be killed at any instruction.
"""

import logging
import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from iot_agent import __version__, events, lifecycle, status
from iot_agent.codec import Request
from iot_agent.lifecycle import Moment
from iot_agent.ports import Clock, Notifier, StateStore, Work
from iot_agent.record import Failed, Kind, Outcome, Record, Step
from iot_agent.settings import Settings
from iot_agent.signals import Signals

log = logging.getLogger(__name__)
LONGEST_WAIT = 3600.0  # re-decide on wall time at least hourly: the clock may have been set meanwhile
DISK_PAUSE = 30.0  # before trying a failed write of the record again
RELOAD_REMEDY = (
    "Mend the file, check it with iot-agent --check, then reload; the configuration in force stays until then."
)


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
    signals: Signals
    publish: Callable[[dict[str, Any]], None]


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
        self._signals = parts.signals
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        self._selector.register(self._signals, selectors.EVENT_READ, self._signals.drain)
        control = self._parts.serve(self._selector, self._command)
        self._parts.notifier.ready()
        try:
            while not self._signals.stop:
                step = self._advance()
                self._parts.notifier.status(f"{self._record.state}: {self._trouble or step.reason}")
                self._parts.publish(self._status())
                for key, _ in self._selector.select(self._patience(step, control.expire())):
                    key.data()
                self._parts.notifier.alive()
                self._collect()
                if self._signals.reload:
                    self._reload_settings()
        finally:
            self._parts.notifier.stopping()
            if self._worker is not None:
                self._worker.kill()
            control.close()
            log.info("stopped in state %s", self._record.state, extra=self._about("stopped"))

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
            log.info("%s: %s", step.kind, step.reason, extra=self._about("step-begun", step=step.kind))
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
            about = self._about("step-failed", step=kind, error=outcome.code, remedy=outcome.remedy)
            count = self._record.attempt
            log.warning("%s failed (%d in a row): %s [%s]", kind, count, outcome.message, outcome.code, extra=about)
        self._tell_history(before)
        if self._record.state is not before.state:
            about = self._about("state-changed", previous_state=before.state)
            log.info("state %s -> %s", before.state, self._record.state, extra=about)

    def _tell_history(self, before: Record) -> None:
        for event in self._record.history:
            if event not in before.history:
                log.info("%s: %s", event.event, event.detail, extra=self._about(event.event))

    def _about(self, event: str, **fields: object) -> dict[str, Any]:
        """Give the journal's fields for an event of this device."""
        return events.of(event, **events.facts(self._record), **fields)

    def _save(self) -> bool:
        """Write the record if it changed. While the disk refuses it, no step begins and the old identity serves."""
        if self._record == self._saved:
            return True
        try:
            self._parts.store.save(self._record)
        except OSError as error:
            self._trouble = f"cannot write the record, so nothing new is begun: {error}"
            self._paused_until = time.monotonic() + DISK_PAUSE
            about = self._about("record-not-written")
            log.error("%s", self._trouble, extra=about)  # noqa: TRY400 - the traceback adds nothing to the kernel's word
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

    def _reload_settings(self) -> None:
        """Take over a changed configuration; a wrong one is refused whole and the one in force stays."""
        self._signals.reload = False
        self._parts.notifier.reloading()
        try:
            self._settings = self._parts.reload()
        except ValueError as error:
            self._config_error = str(error)
            about = self._about("reload-refused")
            log.error("reload refused, the configuration in force stays: %s", error, extra=about)  # noqa: TRY400 - says it all
        else:
            self._config_error = None
            self._record = lifecycle.try_now(self._record)
            log.info("configuration reloaded", extra=self._about("reloaded"))
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
        before = self._record
        self._record = lifecycle.request_rotation(before, self._parts.clock.now())
        self._paused_until = 0.0
        if not self._save():
            return {"ok": False, "error": "busy", "message": self._trouble}
        self._tell_history(before)
        message = "joined the rotation that is under way" if joined else "a rotation begins now"
        return {"ok": True, "message": message, "rotations": self._record.rotations}

    def _status(self) -> dict[str, Any]:
        now = self._parts.clock.now()
        step = self._working_on or lifecycle.decide(self._record, now, self._settings.policy)
        about = {
            "daemon": "running",
            "version": __version__,
            "key": {"backend": self._settings.keys_backend, "algorithm": self._settings.keys_algorithm},
            "configuration": {"error": self._config_error, "remedy": self._config_error and RELOAD_REMEDY},
            "trouble": self._trouble,
            "clock_trusted": self._parts.clock.trusted,
        }
        return status.report(self._record, step, now, about)


def _draw() -> float:
    """Draw from [0, 1). `random` would load OpenSSL into the resident process, for its hashes."""
    return int.from_bytes(os.urandom(7)) / 2**56
