"""The daemon's clock: wall time that never runs behind what the cloud and this device once agreed on.

A board without a battery wakes in 1970. Certificates must not be judged by such a clock, and waiting by it would never
end; so below the floor, time is the floor plus what the monotonic clock has counted since.
"""

import time


class FlooredClock:
    """Seconds since the epoch, at least `floor` and running."""

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
        """Whether the wall clock has caught up with what is known to have passed."""
        return time.time() >= self._floor

    def lift(self, floor: int) -> None:
        """Raise the floor; a lower one changes nothing."""
        if floor > self._floor:
            self._floor = floor
            self._since = self.elapsed()
