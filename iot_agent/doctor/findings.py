"""A finding: one thing that was checked, how bad it is, and what to do about it. Pure.

The exit status of `agentctl doctor` is that of its worst finding: 0 fine (or skipped), 1 a warning, 2 an error. The
exit statuses of sysexits.h, which agentctl uses too, begin at 64, so the two do not overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from iot_agent.core import typed_json
from iot_agent.core.errors import printable

SCHEMA = 1


class Level(StrEnum):
    """How bad a finding is, in rising order; a `SKIPPED` one says why nothing was checked, and needs no action."""

    FINE = "fine"
    SKIPPED = "skipped"
    WARNING = "warning"
    ERROR = "error"


EXIT_STATUS = {Level.FINE: 0, Level.SKIPPED: 0, Level.WARNING: 1, Level.ERROR: 2}


@dataclass(frozen=True)
class Finding:
    """`check` is a name that never changes; `remedy` is empty exactly when there is nothing to do."""

    check: str
    level: Level
    message: str
    remedy: str = ""


def fine(check: str, message: str) -> Finding:
    """Report that something is right."""
    return Finding(check, Level.FINE, message)


def skipped(check: str, message: str) -> Finding:
    """Report why something was not checked."""
    return Finding(check, Level.SKIPPED, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Report what will become a problem, or may be one."""
    return Finding(check, Level.WARNING, message, remedy)


def error(check: str, message: str, remedy: str) -> Finding:
    """Report what prevents, or will prevent, the device from renewing its certificate."""
    return Finding(check, Level.ERROR, message, remedy)


def exit_status(findings: Iterable[Finding]) -> int:
    """Give the exit status: that of the worst finding."""
    return max((EXIT_STATUS[finding.level] for finding in findings), default=0)


def report(findings: list[Finding], now: float) -> dict[str, Any]:
    """Give what `agentctl doctor --json` prints (docs/doctor.md)."""
    worst = max((finding.level for finding in findings), key=lambda level: EXIT_STATUS[level], default=Level.FINE)
    return {
        "schema": SCHEMA,
        "time": int(now),
        "worst": Level.FINE if worst is Level.SKIPPED else worst,
        "findings": [asdict(finding) for finding in findings],
    }


def encode(finding: Finding) -> str:
    """Turn a finding into one line of JSON."""
    return json.dumps(asdict(finding))


def decode(line: str | bytes) -> Finding:
    """Read what `encode` wrote; raises `ValueError` for anything else."""
    return typed_json.parse(Finding, line)


MARKS = {Level.FINE: "ok", Level.SKIPPED: "-", Level.WARNING: "WARNING", Level.ERROR: "ERROR"}


def write(finding: Finding) -> str:
    """Write a finding for a person: one line, and below it what to do.

    The text may come from certificates, servers and the record, so control characters are removed for the terminal.
    """
    line = f"{MARKS[finding.level]:<8} {finding.check:<22} {printable(finding.message)}"
    return f"{line}\n{'':<31} → {printable(finding.remedy)}" if finding.remedy else line


def summary(findings: list[Finding]) -> str:
    """Give the last line, with the counts."""
    count = {level: sum(finding.level is level for finding in findings) for level in Level}
    found = f"errors: {count[Level.ERROR]}, warnings: {count[Level.WARNING]}, fine: {count[Level.FINE]}"
    return found + (f", skipped: {count[Level.SKIPPED]}" if count[Level.SKIPPED] else "")
