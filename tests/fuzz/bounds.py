"""The time that one input may take: the process's own, not the clock's, so that a busy machine is no finding."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SLOWEST = 10.0  # seconds; what we parse takes milliseconds, and ten times as long when it is instrumented


class TooLong(BaseException):
    """An input took too long. No parser catches it."""


@contextmanager
def in_time(seconds: float = SLOWEST) -> Iterator[None]:
    """Raise `TooLong` after so many seconds of work; a library in C is stopped only where it looks for signals."""

    def stop(_number: int, _frame: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
