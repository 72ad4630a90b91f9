"""At most one CONNECT a second: AWS IoT Core accepts one a second for a client id, and drops the others.

Each session is made by another process, so the time of the last CONNECT is kept as the modification time of a file.
(AWS IoT Core quotas, "Connect requests per second per client ID".)
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SPACING = 1.05  # seconds


class ConnectThrottle:
    """Waits until a CONNECT is allowed, then notes its time as that of the file `path`."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._path, self._clock, self._sleep = path, clock, sleep

    def __call__(self) -> None:
        """Wait; not at all if there is no file yet, or if the clock was set back."""
        with suppress(OSError):
            passed = self._clock() - self._path.stat().st_mtime
            if 0 <= passed < SPACING:
                self._sleep(SPACING - passed)
        with suppress(OSError):  # a full disk must not prevent a connection
            self._path.touch()
            os.utime(self._path, (self._clock(), self._clock()))
