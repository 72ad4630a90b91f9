"""Progress of a long task: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WIDTH = 30
EVERY_S = 10.0
REDRAW_S = 0.1
T = TypeVar("T")


def shown(
    items: Sequence[T], what: str, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[T]:
    """Yield each item; show on `out` (standard error) how many are done, the rate, and the time left."""
    target = out or sys.stderr
    live = target.isatty()
    begun = told = clock()
    for done, item in enumerate(items):
        now = clock()
        if done and now - told >= (REDRAW_S if live else EVERY_S):
            told = now
            target.write(f"\r{_bar(done, len(items))}" if live else _line(done, len(items)))
            target.write(_pace(done, len(items), now - begun) + ("\x1b[K" if live else "\n"))
            target.flush()
        yield item
    if live:
        target.write("\r\x1b[K")
    took = clock() - begun
    target.write(f"{len(items)} {what} in {took:.0f} s\n")
    target.flush()


def _bar(done: int, total: int) -> str:
    filled = WIDTH * done // total
    return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{total}"


def _line(done: int, total: int) -> str:
    return f"{done}/{total}"


def _pace(done: int, total: int, took: float) -> str:
    rate = done / took if took else 0.0
    return f"  {rate:.0f}/s, {(total - done) / rate:.0f} s left" if rate else ""
