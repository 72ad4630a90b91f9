"""The report of `agentctl status`: the same from a running daemon and from the disk of a stopped one. Pure.

Its schema is version 1 (docs/status.md); later versions only add fields. Times are whole seconds since the epoch, or
null.
"""

from dataclasses import asdict
from typing import Any

from iot_agent.core.lifecycle import renewal_due
from iot_agent.core.record import Identity, Record, Step
from iot_agent.status import health

SCHEMA = 1


def compose(record: Record, step: Step | None, now: float, about: dict[str, Any]) -> dict[str, Any]:
    """Give the report; `about` has the fields that the record does not know (daemon, version, key, trouble ...)."""
    error = record.failure or record.cleanup
    shown = {
        "schema": SCHEMA,
        **about,
        "time": int(now),
        "serial": record.serial or None,
        "state": record.state,
        "reason": "the daemon is not running" if step is None else step.reason,
        "identity": _identity(record.active, renewal_due(record)),
        "pending": None if record.pending is None else asdict(record.pending),
        "next_step": None if step is None else {"kind": step.kind, "due": int(step.due)},
        "attempt": record.attempt,
        "rotations": record.rotations,
        "last_contact": record.last_contact or None,
        "last_error": None if error is None else asdict(error),
    }
    return {**shown, "health": health.judge(shown)}


def _identity(active: Identity | None, renew_at: int) -> dict[str, Any] | None:
    if active is None:
        return None
    return {"label": active.label, **asdict(active.certificate), "renew_at": renew_at}
