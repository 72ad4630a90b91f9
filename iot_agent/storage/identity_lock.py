"""Taking turns at the device's identity: one MQTT session for its client id, one user of its token, at any time.

A worker of the daemon and `agentctl doctor` both open a session under the same client id, and the broker would close
the one for the other; and two processes on one token disturb each other. So each holds a lock while it works: flock(2)
on the state directory itself, which needs no file, works on a full or read-only disk, and is let go of by the kernel
however its holder ends. Only who may read the directory can take it: the agent's user and root.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HELD_BY_PARENT = "--identity-lock-is-held"  # tells a worker that the process that started it holds the lock
LONGEST_WAIT = 15.0  # seconds to wait for the other process
LOOK_AGAIN = 0.05  # seconds; flock(2) itself would wait without a limit


@contextmanager
def exclusive_use(state: Path, patience: float) -> Iterator[bool]:
    """Hold the lock; gives False when another process still held it after `patience` seconds, or it cannot be had."""
    try:
        descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _taken(descriptor, time.monotonic() + patience)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_AGAIN)
        else:
            return True
