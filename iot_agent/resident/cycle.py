"""The cycle of a device's life: decide, save the intent, run the step, apply its outcome to the record, save.

The daemon runs each step in a worker process; the simulator runs it in its own process. Both use this class, from the
repair at boot on. Everything is in the record, except how much of the wait after the last failure has passed: a restart
computes that from the wall clock, and begins the wait again if that clock was set back.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from iot_agent.core import lifecycle
from iot_agent.core.errors import REMEDIES, Code
from iot_agent.core.lifecycle import ApplyContext
from iot_agent.core.ports import Applications, Clock, StateStore
from iot_agent.core.reconcile import reconcile
from iot_agent.core.record import Failed, Kind, Outcome, Record, Step
from iot_agent.core.schedule import Policy

log = logging.getLogger(__name__)
DISK_PAUSE = 30.0  # seconds before a failed write of the record is tried again


def jitter() -> float:
    """Draw from [0, 1). `random` would load OpenSSL into the resident process, for its hashes."""
    return int.from_bytes(os.urandom(7)) / 2**56


@dataclass
class Means:
    """What a cycle works with. `policy` may be replaced between two steps."""

    store: StateStore
    applications: Applications
    clock: Clock
    policy: Policy
    new_label: Callable[[], str]
    new_request_id: Callable[[], str]
    jitter: Callable[[], float] = jitter


class Cycle:
    """Holds the record. `trouble` says why the record cannot be saved, or is None."""

    def __init__(self, means: Means, loaded: Record) -> None:
        self.means = means
        self.trouble: str | None = None
        self._paused_until = 0.0
        self._waited_before = _waited(loaded, means.clock.now())
        self._waiting_from = means.clock.elapsed()
        self._saved: Record | None = None  # what was read may be the record before, so it is saved before any step
        self.record = self._reconciled(loaded)
        self.save()

    # ---- what next --------------------------------------------------------------------------------------------------

    def decide(self) -> Step:
        """Say what to do next, and from when."""
        waited = self._waited_before + self.means.clock.elapsed() - self._waiting_from
        return lifecycle.decide(self.record, self.means.clock.now(), self.means.policy, waited)

    def is_due(self, step: Step) -> bool:
        """Say whether a step can begin now; if not, `pause` says when."""
        return step.kind is not Kind.WAIT and self.pause(step) <= 0

    def pause(self, step: Step) -> float:
        """Give the seconds until the step is due and, after a failed save, may be tried again."""
        return max(step.due - self.means.clock.now(), self._paused_until - self.means.clock.elapsed())

    def begin(self, step: Step) -> bool:
        """Save the intent; give False if that fails: then the step must not begin."""
        self.record = lifecycle.begin(self.record, step, self.means.new_label, self.means.new_request_id)
        return self.save()

    # ---- what came of it --------------------------------------------------------------------------------------------

    def finish(self, kind: Kind, outcome: Outcome) -> None:
        """Apply an outcome to the record, and save it."""
        context = ApplyContext(self.means.clock.now(), self.means.policy, self.means.jitter())
        try:
            record = lifecycle.apply(self.record, kind, outcome, context)
        except RuntimeError as bug:  # a bug of ours must not end a daemon that can still renew
            log.exception("the outcome of %s makes no sense", kind)
            failed = Failed(Code.INTERNAL, str(bug), REMEDIES[Code.INTERNAL], fatal=False)
            record = lifecycle.apply(self.record, kind, failed, context)
        if isinstance(outcome, Failed):
            self._waited_before, self._waiting_from = 0.0, self.means.clock.elapsed()
            record = self._reconciled(record)
        self.record = record
        self.means.clock.lift(record.time_floor)
        self.save()

    def order_rotation(self) -> bool:
        """Begin a rotation because an operator asked for it; False if the record cannot be saved."""
        self.record = lifecycle.request_rotation(self.record, self.means.clock.now())
        self._paused_until = 0.0
        return self.save()

    def cancel_rotation(self) -> bool:
        """Withdraw the rotation, because an operator asked for it; False if the record cannot be saved.

        No step of the rotation may be running. If one was ended just now, it may have stored a certificate: look first.
        """
        self.record = lifecycle.cancel_rotation(self._reconciled(self.record), self.means.clock.now())
        self._paused_until = 0.0
        return self.save()

    def reset_backoff(self) -> None:
        """End any wait, because a person has changed something."""
        self.record = lifecycle.reset_backoff(self.record)

    def save(self) -> bool:
        """Save the record if it changed; give False if that fails: then no step begins."""
        if self.record == self._saved:
            return True
        try:
            if self._saved is None or self.record.active != self._saved.active:
                self.means.applications.prepare(self.record)
            self.means.store.save(self.record)  # this points `current` at the active identity, too
        except OSError as error:
            self.trouble = f"cannot write the record, so nothing new is begun: {error}"
            self._paused_until = self.means.clock.elapsed() + DISK_PAUSE
            return False
        self._saved, self.trouble = self.record, None
        self.means.applications.publish(self.record)
        return True

    def _reconciled(self, record: Record) -> Record:
        context = ApplyContext(self.means.clock.now(), self.means.policy, self.means.jitter())
        return reconcile(record, self.means.store.disk(), context)


def _waited(record: Record, now: float) -> float:
    """Say how many seconds of a wait are over at a start: none if the clock was set back meanwhile."""
    return max(0.0, now - record.waiting_since)
