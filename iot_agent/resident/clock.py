"""The daemon's clock: the wall clock, but never below its floor, the latest time that cloud and device agreed on.

A board without a battery starts in 1970. Certificates must not be judged by such a clock. So while the wall clock is
below the floor, the time is the floor plus what the monotonic clock has counted since.
"""

import time


class FlooredClock:
    """The `Clock` port: seconds since the epoch, at least `floor` and what has passed since."""

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._since = self.elapsed()

    def now(self) -> float:
        """Give the wall clock's time, or the floor's when the wall clock is behind it."""
        return max(time.time(), self._floor + self.elapsed() - self._since)

    def elapsed(self) -> float:
        """Give seconds since the machine's start, its sleep included (CLOCK_BOOTTIME, clock_gettime(2))."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    @property
    def trusted(self) -> bool:
        """Whether the wall clock is not below the floor."""
        return time.time() >= self._floor

    def lift(self, floor: int) -> None:
        """Raise the floor; a lower one changes nothing."""
        if floor > self._floor:
            self._floor = floor
            self._since = self.elapsed()
