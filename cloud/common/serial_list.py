"""A list of serials from a file: every line is checked before anything is done with any. Pure.

One serial a line, or a CSV with a heading, one of whose columns is named `serial` (in any case). Blank lines, lines
that begin with a #, a byte order mark and carriage returns are ignored.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

CONTENT_SHOWN = 60  # characters of a line that is wrong


@dataclass(frozen=True)
class Row:
    """A serial, and the number of its line."""

    line: int
    serial: str


@dataclass(frozen=True)
class Fault:
    """A line that holds no new serial, and why."""

    line: int
    content: str
    problem: str

    def __str__(self) -> str:
        """Return the line and its problem, for a message."""
        return f"line {self.line}: {self.content[:CONTENT_SHOWN]!r} {self.problem}"


def read(lines: Iterable[str], allowed: re.Pattern[str]) -> tuple[list[Row], list[Fault]]:
    """Return the good rows, in order, and the faults."""
    rows: list[Row] = []
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    column: int | None = None
    for number, raw in enumerate(lines, 1):
        text = raw.removeprefix("\ufeff").strip()
        if not text or text.startswith("#"):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([text]), [])]
        except csv.Error as error:
            faults.append(Fault(number, text, f"cannot be read as CSV: {error}"))
            continue
        if column is None:
            names = [cell.lower() for cell in cells]
            if "serial" in names:
                column = names.index("serial")
                continue
            if len(cells) > 1:
                problem = "has several columns: begin the file with a line that names them, one of them serial"
                return [], [Fault(number, text, problem)]
            column = 0
        serial = cells[column] if column < len(cells) else ""
        if not allowed.fullmatch(serial):
            faults.append(Fault(number, text, "is not a serial: 1 to 64 letters, digits, ':', '_' or '-'"))
        elif serial in seen:
            faults.append(Fault(number, text, f"is there already, on line {seen[serial]}"))
        else:
            seen[serial] = number
            rows.append(Row(number, serial))
    return rows, faults
