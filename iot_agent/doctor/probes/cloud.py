"""One check-in over the active identity, in the daemon's own worker: its libraries are large and may crash."""

from dataclasses import replace

from iot_agent.core.codec import Request
from iot_agent.core.record import Kind, Outcome, Record
from iot_agent.core.settings import Settings
from iot_agent.host.subprocesses import Worker
from iot_agent.storage.identity_lock import HELD_BY_PARENT

LIMIT = 60.0  # seconds; s2n takes up to 30 to report a server that it does not trust


def check_in(settings: Settings, record: Record, now: float, *, trusted: bool) -> Outcome:
    """Check in; the caller holds the identity lock."""
    bounded = replace(settings, step_limit=min(settings.step_limit, LIMIT), log_level="error")
    worker = Worker(Request(Kind.CHECK_IN, record, now, trusted, bounded), HELD_BY_PARENT)
    while (outcome := worker.poll()) is None:
        worker.wait()
    return outcome
