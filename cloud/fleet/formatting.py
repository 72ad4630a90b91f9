"""Text for a person to read: times, spans of time, rows in columns. Pure. Times are ms since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cloud.rotation.agenda import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND_MS: Final = 1000
HOUR_MS: Final = 3600 * SECOND_MS
UNITS: Final = (("d", DAY_MS), ("h", HOUR_MS), ("min", 60 * SECOND_MS), ("s", SECOND_MS))


def moment(ms: int | None) -> str:
    """Return `2026-05-04 13:30`, or a dash."""
    return "-" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def with_iso(fields: dict[str, Any], *times: str) -> dict[str, Any]:
    """Return the fields, and after each of these times (ms, or None) `NAME_iso`, the same time in ISO 8601, UTC."""
    written = {}
    for name, value in fields.items():
        written[name] = value
        if name in times:
            written[f"{name}_iso"] = None if value is None else _iso(value)
    return written


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def span(ms: int) -> str:
    """Return a span of time in its largest unit: `63 d`, `5 h`, `12 min`."""
    for unit, size in UNITS:
        if abs(ms) >= size * (2 if unit != "s" else 1):
            return f"{ms // size if ms >= 0 else -(-ms // size)} {unit}"
    return "now"


def ago(ms: int | None, now: int) -> str:
    """Return how long ago, or `never`."""
    return "never" if ms is None else f"{span(now - ms)} ago" if now - ms >= SECOND_MS else "now"


def ahead(ms: int | None, now: int) -> str:
    """Return how far ahead, `expired 3 d ago`, or a dash."""
    if ms is None:
        return "-"
    return f"in {span(ms - now)}" if ms > now else f"expired {span(now - ms)} ago"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines with aligned columns; the last column is not padded."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
