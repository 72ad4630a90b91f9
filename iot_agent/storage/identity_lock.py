"""The identity lock: one process at a time uses the device's MQTT client id and its token.

A worker of the daemon and `agentctl doctor` use the same client id: the broker closes the older of two sessions. And
some tokens fail if two processes use them. So each process holds this lock while it works: flock(2) on the state
directory itself. That needs no file, works on a full or read-only disk, and the kernel releases it however the process
ends. Only the agent's user and root can take it, because only they can open the directory.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HELD_BY_PARENT = "--identity-lock-is-held"  # an argument of the worker: the process that started it holds the lock
LONGEST_WAIT = 15.0  # seconds to wait for the other process
RETRY_EVERY = 0.05  # seconds; flock(2) itself would wait without a limit


@contextmanager
def exclusive_use(state: Path, limit: float) -> Iterator[bool]:
    """Hold the lock; gives False if another process still holds it after `limit` seconds, or if it cannot be taken."""
    try:
        descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _taken(descriptor, time.monotonic() + limit)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(RETRY_EVERY)
        else:
            return True
