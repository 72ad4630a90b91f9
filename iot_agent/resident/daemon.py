"""The daemon's loop: starts each step of the cycle in a worker, and waits for its end, signals and `agentctl`.

One thread, one selector. This process uses no key, no network and no library that could hang: the worker does. It may
be killed at any instruction, because everything that matters is in the record.
"""

import logging
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from iot_agent import __version__
from iot_agent.core import journal_events
from iot_agent.core.codec import Request
from iot_agent.core.errors import REMEDIES, Code
from iot_agent.core.ports import ServiceManager, Work
from iot_agent.core.record import Failed, Kind, Outcome, Record, State, Step
from iot_agent.core.settings import Settings
from iot_agent.host.signals import Signals
from iot_agent.resident.cycle import Cycle
from iot_agent.status.report import compose

log = logging.getLogger(__name__)
LONGEST_SLEEP = 3600.0  # seconds; then it decides again, because the wall clock may have been set meanwhile
OF_A_ROTATION = frozenset({Kind.GENERATE, Kind.REQUEST, Kind.PROVE})
RELOAD_REMEDY = (
    "Correct the file, check it with iot-agent --check, then reload; until then the previous configuration stays."
)


class Control(Protocol):
    """The socket, as far as the loop needs it."""

    def expire(self) -> float | None:
        """Drop clients that are too slow; give the seconds until the next one is, or None."""

    def close(self) -> None:
        """Stop serving."""


@dataclass
class Dependencies:
    """What the composition root gives the daemon."""

    config: Path
    settings: Settings
    notifier: ServiceManager
    launch: Callable[[Request], Work]
    serve: Callable[[selectors.BaseSelector, Callable[[str], dict[str, Any]]], Control]
    reload: Callable[[], Settings]
    watchdog: float | None
    signals: Signals
    publish: Callable[[dict[str, Any]], None]


class Daemon:
    """Runs the steps of `cycle`, each in a worker."""

    def __init__(self, given: Dependencies, cycle: Cycle) -> None:
        self._given = given
        self._cycle = cycle
        self._settings = given.settings
        self._worker: Work | None = None
        self._working_on: Step | None = None
        self._config_error: str | None = None
        self._told_trouble: str | None = None
        self._signals = given.signals
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        self._selector.register(self._signals, selectors.EVENT_READ, self._signals.drain)
        control = self._given.serve(self._selector, self._command)
        self._given.notifier.ready()
        try:
            while not self._signals.stop:
                step = self._advance()
                self._tell_trouble()
                self._given.notifier.status(f"{self._cycle.record.state}: {self._cycle.trouble or step.reason}")
                self._given.publish(self._status())
                for key, _ in self._selector.select(self._select_timeout(step, control.expire())):
                    key.data()
                self._given.notifier.alive()
                self._collect()
                if self._signals.reload:
                    self._reload_settings()
        finally:
            self._given.notifier.stopping()
            if self._worker is not None:
                self._worker.kill()
            control.close()
            log.info("stopped in state %s", self._cycle.record.state, extra=self._about("stopped"))

    # ---- one step ---------------------------------------------------------------------------------------------------

    def _advance(self) -> Step:
        """Start the next step if it is due and its intent can be saved; give the step that runs or is waited for."""
        if self._working_on is not None:
            return self._working_on
        step = self._cycle.decide()
        if self._cycle.is_due(step) and self._cycle.begin(step):
            log.info("%s: %s", step.kind, step.reason, extra=self._about("step-begun", step=step.kind))
            self._launch(step)
        return step

    def _launch(self, step: Step) -> None:
        """Start a worker; if the machine has no process, memory or descriptor for it, the step has failed."""
        clock = self._cycle.means.clock
        request = Request(step.kind, self._cycle.record, clock.now(), clock.trusted, self._settings)
        try:
            self._worker = self._given.launch(request)
            self._selector.register(self._worker, selectors.EVENT_READ, lambda: None)
        except OSError as error:
            if self._worker is not None:
                self._worker.kill()
                self._worker = None
            said = f"the step's process could not be started: {error}"
            self._apply(step.kind, Failed(Code.WORKER_CRASHED, said, REMEDIES[Code.WORKER_CRASHED], fatal=False))
            return
        self._working_on = step

    def _collect(self) -> None:
        """Apply the outcome of the running step, if there is one."""
        if self._worker is None or self._working_on is None:
            return
        descriptor = self._worker.fileno()
        outcome = self._worker.poll()
        if outcome is None:
            return
        self._selector.unregister(descriptor)
        step, self._worker, self._working_on = self._working_on, None, None
        self._apply(step.kind, outcome)

    def _apply(self, kind: Kind, outcome: Outcome) -> None:
        before = self._cycle.record
        self._cycle.finish(kind, outcome)
        if isinstance(outcome, Failed):
            about = self._about("step-failed", step=kind, error=outcome.code, remedy=outcome.remedy)
            count = self._cycle.record.attempt
            log.warning("%s failed (%d in a row): %s [%s]", kind, count, outcome.message, outcome.code, extra=about)
        self._tell_history(before)
        if self._cycle.record.state is not before.state:
            about = self._about("state-changed", previous_state=before.state)
            log.info("state %s -> %s", before.state, self._cycle.record.state, extra=about)

    def _tell_history(self, before: Record) -> None:
        for event in self._cycle.record.history:
            if event not in before.history:
                log.info("%s: %s", event.event, event.detail, extra=self._about(event.event))

    def _tell_trouble(self) -> None:
        """Log once that the record cannot be saved."""
        if self._cycle.trouble not in (None, self._told_trouble):
            log.error("%s", self._cycle.trouble, extra=self._about("record-not-written"))
        self._told_trouble = self._cycle.trouble

    def _about(self, event: str, **fields: object) -> dict[str, Any]:
        """Give the journal fields of an event of this device."""
        return journal_events.of(event, **journal_events.facts(self._cycle.record), **fields)

    def _select_timeout(self, step: Step, slow_client: float | None) -> float:
        """Give the seconds until something is due, at the latest."""
        until_step = self._cycle.pause(step) if self._worker is None else self._worker.seconds_left
        waits = (LONGEST_SLEEP, until_step, slow_client, self._given.watchdog)
        return max(0.0, min(wait for wait in waits if wait is not None))

    # ---- signals and commands ---------------------------------------------------------------------------------------

    def _reload_settings(self) -> None:
        """Take over a changed configuration; if it is wrong, nothing of it is taken over."""
        self._signals.reload = False
        self._given.notifier.reloading()
        try:
            self._settings = self._given.reload()
        except ValueError as error:
            self._config_error = str(error)
            about = self._about("reload-refused")
            log.error("reload refused, the previous configuration stays: %s", error, extra=about)  # noqa: TRY400 - says it all
        else:
            self._config_error = None
            self._cycle.means.policy = self._settings.policy
            self._cycle.reset_backoff()
            log.info("configuration reloaded", extra=self._about("reloaded"))
        self._given.notifier.ready()

    def _command(self, command: str) -> dict[str, Any]:
        """Answer `agentctl`."""
        if command == "history":
            return {"ok": True, "history": [vars(event) for event in self._cycle.record.history]}
        if command == "rotate":
            return self._rotate()
        if command == "cancel":
            return self._cancel()
        return {"ok": True, "status": self._status()}

    def _rotate(self) -> dict[str, Any]:
        before = self._cycle.record
        if not self._cycle.order_rotation():
            return {"ok": False, "error": "busy", "message": self._cycle.trouble}
        self._tell_history(before)
        under_way = before.state is not State.ACKED or (before.pending is not None and before.renew_requested)
        message = "joined the rotation that is under way" if under_way else "a rotation begins now"
        return {"ok": True, "message": message, "rotations": before.rotations}

    def _cancel(self) -> dict[str, Any]:
        before = self._cycle.record
        if before.pending is None and not before.renew_requested:
            return {"ok": False, "error": "nothing-to-cancel", "message": "no rotation is under way"}
        if self._working_on is not None and self._working_on.kind in OF_A_ROTATION:
            self._end_step()  # it may be ended at any instruction, as by a power cut
        if not self._cycle.cancel_rotation():
            return {"ok": False, "error": "busy", "message": self._cycle.trouble}
        self._tell_history(before)
        then = self._cycle.decide()
        again = f"; another one begins with a new key: {then.reason}" if then.kind is Kind.GENERATE else ""
        return {"ok": True, "message": f"the rotation is withdrawn{again}"}

    def _end_step(self) -> None:
        if self._worker is not None:
            self._selector.unregister(self._worker)
            self._worker.kill()
        self._worker = self._working_on = None

    def _status(self) -> dict[str, Any]:
        clock = self._cycle.means.clock
        about = {
            "daemon": "running",
            "version": __version__,
            "key": {"backend": self._settings.keys_backend, "algorithm": self._settings.keys_algorithm},
            "configuration": {
                "file": str(self._given.config),
                "error": self._config_error,
                "remedy": self._config_error and RELOAD_REMEDY,
            },
            "trouble": self._cycle.trouble,
            "clock_trusted": clock.trusted,
        }
        return compose(self._cycle.record, self._working_on or self._cycle.decide(), clock.now(), about)
