"""No two CONNECTs of this device within a second: AWS IoT Core takes one a second for a client id, and drops the rest.

Every session is a process of its own, so the time of the last one is the time of a file. (AWS IoT Core quotas, "Connect
requests per second per client ID".)
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SPACING = 1.05  # seconds


class ConnectThrottle:
    """Waits as long as it takes, then marks the time in `path`."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._path, self._clock, self._sleep = path, clock, sleep

    def __call__(self) -> None:
        """Wait. Without the file, or with a clock that was set back, there is nothing to wait for."""
        with suppress(OSError):
            passed = self._clock() - self._path.stat().st_mtime
            if 0 <= passed < SPACING:
                self._sleep(SPACING - passed)
        with suppress(OSError):  # a full disk must not keep the device from connecting
            self._path.touch()
            os.utime(self._path, (self._clock(), self._clock()))
