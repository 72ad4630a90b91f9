"""One turn of a device's life: decide, write down the intent, run the step, fold in its outcome, write it down.

The daemon runs the steps in worker processes; the simulator runs them in its own. Both drive this, from the repair at
boot on. Nothing is remembered only in memory, except how long the last failure has been waited out: across a restart
that is told by the wall clock, as far as it makes sense.
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
    """What a cycle works with. `policy` may be replaced between two turns."""

    store: StateStore
    applications: Applications
    clock: Clock
    policy: Policy
    new_label: Callable[[], str]
    new_request_id: Callable[[], str]
    jitter: Callable[[], float] = jitter


class Cycle:
    """Holds the record. `trouble` says why it cannot be written, if it cannot."""

    def __init__(self, means: Means, loaded: Record) -> None:
        self.means = means
        self.trouble: str | None = None
        self._paused_until = 0.0
        self._waited_before = _waited(loaded, means.clock.now())
        self._waiting_from = means.clock.elapsed()
        self._saved: Record | None = None  # what was read may be the record before: it is written anew before any act
        self.record = self._reconciled(loaded)
        self.save()

    # ---- what next --------------------------------------------------------------------------------------------------

    def decide(self) -> Step:
        """Say what to do next, and from when."""
        waited = self._waited_before + self.means.clock.elapsed() - self._waiting_from
        return lifecycle.decide(self.record, self.means.clock.now(), self.means.policy, waited)

    def is_due(self, step: Step) -> bool:
        """Say whether a step can begin now; `pause` seconds from now it may be."""
        return step.kind is not Kind.WAIT and self.pause(step) <= 0

    def pause(self, step: Step) -> float:
        """Give the seconds until the step is due, and until the disk may take the record again."""
        return max(step.due - self.means.clock.now(), self._paused_until - self.means.clock.elapsed())

    def begin(self, step: Step) -> bool:
        """Write down the intent; a step begins only when that is on the disk."""
        self.record = lifecycle.begin(self.record, step, self.means.new_label, self.means.new_request_id)
        return self.save()

    # ---- what it means ----------------------------------------------------------------------------------------------

    def finish(self, kind: Kind, outcome: Outcome) -> None:
        """Fold in an outcome, and write the record."""
        context = ApplyContext(self.means.clock.now(), self.means.policy, self.means.jitter())
        try:
            record = lifecycle.apply(self.record, kind, outcome, context)
        except RuntimeError as bug:  # a fault of ours must not end a daemon that could still renew
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
        """Do what an operator orders; False when it cannot be written down."""
        self.record = lifecycle.request_rotation(self.record, self.means.clock.now())
        self._paused_until = 0.0
        return self.save()

    def reset_backoff(self) -> None:
        """End any wait, because a person has changed something."""
        self.record = lifecycle.reset_backoff(self.record)

    def save(self) -> bool:
        """Write the record if it changed. While the disk refuses it, no step begins and the old identity serves."""
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
    """Tell how much of a wait is over at a start. A clock that was set back tells nothing: then it begins again."""
    return max(0.0, now - record.waiting_since)
