"""What `agentctl status` says: the same report from a running daemon and from the disk of a stopped one. Pure.

The report's schema is version 1, documented in docs/status.md; fields are only ever added. Times are whole seconds
since the epoch, null where there is none.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from iot_agent.lifecycle import renewal_due
from iot_agent.record import Identity, Record, Step

SCHEMA = 1
MINUTE, HOUR, DAY = 60, 3600, 86400


def report(record: Record, step: Step | None, now: float, about: dict[str, Any]) -> dict[str, Any]:
    """Put the report together; `about` holds what is not in the record (daemon, version, key backend, trouble)."""
    return {
        "schema": SCHEMA,
        **about,
        "time": int(now),
        "serial": record.serial,
        "state": record.state,
        "reason": "the daemon is not running" if step is None else step.reason,
        "identity": _identity(record.active, renewal_due(record)),
        "pending": None if record.pending is None else asdict(record.pending),
        "next_step": None if step is None else {"kind": step.kind, "due": int(step.due)},
        "attempt": record.attempt,
        "rotations": record.rotations,
        "last_contact": record.last_contact or None,
        "last_error": None if record.failure is None else asdict(record.failure),
    }


def _identity(active: Identity | None, renew_at: int) -> dict[str, Any] | None:
    if active is None:
        return None
    return {"label": active.label, **asdict(active.certificate), "renew_at": renew_at}


def render(shown: dict[str, Any]) -> str:
    """Write a report for a person."""
    now = shown["time"]
    lines = [f"{shown['serial']}  {shown['state']}  ({shown['reason']})"]

    def line(name: str, text: str) -> None:
        lines.append(f"  {name:<14}{text}")

    line("daemon", shown["daemon"] + (f", version {shown['version']}" if shown["daemon"] == "running" else ""))
    identity = shown["identity"]
    if identity is None:
        line("identity", "none of its own yet; the bootstrap certificate serves")
    else:
        line("identity", f"{identity['certificate_id'][:16]}… ({identity['label']})")
        line(
            "valid",
            f"{_date(identity['not_before'])} to {_date(identity['not_after'])}, {_in(identity['not_after'], now)}",
        )
        line("renewal", f"{_date(identity['renew_at'])}, {_in(identity['renew_at'], now)}")
    if shown["key"] is not None:
        line("key", f"{shown['key']['backend']}, {shown['key']['algorithm']}")
    if shown["pending"] is not None:
        line("pending", shown["pending"]["label"])
    if shown["next_step"] is not None:
        line("next", f"{shown['next_step']['kind']}, {_in(shown['next_step']['due'], now)}")
    line("rotations", str(shown["rotations"]))
    line("last contact", "never" if shown["last_contact"] is None else _in(shown["last_contact"], now))
    if shown["last_error"] is not None:
        error = shown["last_error"]
        line("last error", f"{error['step']}: {error['message']} [{error['code']}], {_in(error['at'], now)}")
        line("what to do", error["remedy"])
    if shown["configuration"]["error"] is not None:
        line("configuration", f"the last reload was refused, the one before stays: {shown['configuration']['error']}")
    if shown["trouble"] is not None:
        line("trouble", shown["trouble"])
    if not shown["clock_trusted"]:
        line("clock", "the system clock is behind the time that the cloud has told; it is not trusted")
    return "\n".join(lines)


def render_history(events: list[dict[str, Any]]) -> str:
    """Write a history for a person, oldest first."""
    return "\n".join(f"{_date(event['at'])}  {event['event']:<19} {event['detail']}" for event in events)


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _in(moment: int, now: int) -> str:
    seconds = abs(moment - now)
    if seconds < 1:
        return "now"
    if seconds < 2 * MINUTE:
        text = f"{seconds} s"
    elif seconds < 2 * HOUR:
        text = f"{seconds // MINUTE} min"
    elif seconds < 2 * DAY:
        text = f"{seconds // HOUR} h"
    else:
        text = f"{seconds // DAY} days"
    return f"in {text}" if moment > now else f"{text} ago"
