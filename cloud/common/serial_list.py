"""A list of serials from a file: everything in it is judged before anything is done with it. Pure.

One serial a line, or a CSV whose column `serial`, or else the first, holds it. Blank lines and lines beginning with a #
are passed over; so are a byte order mark and the carriage returns of other systems.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

SHOWN = 60  # of a line that is wrong


@dataclass(frozen=True)
class Row:
    """A serial, and the number of its line."""

    line: int
    serial: str


@dataclass(frozen=True)
class Fault:
    """A line that is no serial, and why."""

    line: int
    content: str
    problem: str

    def __str__(self) -> str:
        """Tell it to a person."""
        return f"line {self.line}: {self.content[:SHOWN]!r} {self.problem}"


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
            column = cells.index("serial") if "serial" in cells else 0
            if "serial" in cells:
                continue
        serial = cells[column] if column < len(cells) else ""
        if not allowed.fullmatch(serial):
            faults.append(Fault(number, text, "is not a serial: 1 to 64 letters, digits, ':', '_' or '-'"))
        elif serial in seen:
            faults.append(Fault(number, text, f"is there already, on line {seen[serial]}"))
        else:
            seen[serial] = number
            rows.append(Row(number, serial))
    return rows, faults
