"""A status report and a history, written for a person. Pure; knows only the report's schema (docs/status.md).

`safe` must be applied to everything from the socket or the disk first: a terminal executes control characters, and
another program may have written the record or damaged it.
"""

from datetime import UTC, datetime
from typing import Any

from iot_agent.core.errors import printable

MINUTE, HOUR, DAY = 60, 3600, 86400
LAST = 253402300799  # the end of the year 9999, the last that datetime can write


def safe(value: Any) -> Any:  # noqa: ANN401 - whatever JSON may hold
    """Replace control characters in every text of an answer; newlines stay."""
    if isinstance(value, str):
        return "\n".join(map(printable, value.split("\n")))
    if isinstance(value, dict):
        return {key: safe(part) for key, part in value.items()}
    return [safe(part) for part in value] if isinstance(value, list) else value


def status(shown: dict[str, Any]) -> str:
    """Write a report for a person."""
    now = shown["time"]
    lines = [f"{shown['serial'] or 'no serial yet'}  {shown['state']}  ({shown['reason']})"]

    def line(name: str, text: str) -> None:
        lines.append(f"  {name:<14}{text}")

    line("health", shown["health"]["level"])
    line("daemon", shown["daemon"] + (f", version {shown['version']}" if shown["daemon"] == "running" else ""))
    identity = shown["identity"]
    if identity is None:
        line("identity", "none of its own yet; the bootstrap identity is used")
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
        line("configuration", shown["configuration"]["error"].replace("\n", "\n" + " " * 16))
        line("what to do", shown["configuration"]["remedy"])
    if shown["trouble"] is not None:
        line("trouble", shown["trouble"])
    if not shown["clock_trusted"]:
        line("clock", "the system clock is behind the time that the cloud has given, so it is not used")
    return "\n".join(lines)


def history(events: list[dict[str, Any]]) -> str:
    """Write a history for a person, oldest first."""
    return "\n".join(f"{_date(event['at'])}  {event['event']:<19} {event['detail']}" for event in events)


def _date(moment: int) -> str:
    if not 0 <= moment <= LAST:
        return f"second {moment}"
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
