"""What the MQTT library's own threads say, for the one thread that waits for it: bounded, whatever a broker sends.

A message is kept only if its topic is one that was subscribed to, and only while few are waiting: the rest is dropped
where it comes in. What the library says of the connection is never dropped: it is a handful in a session's life.
"""

import queue
import time
from typing import Any

MOST_WAITING = 8  # messages: one is asked for at a time; late answers to earlier requests may come before it


class Nothing(Exception):
    """Nothing came in time."""


class Inbox:
    """Events as (kind, value); of kind "message", the value is (topic, payload)."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._topics: frozenset[str] = frozenset()

    def expect(self, topics: frozenset[str]) -> None:
        """Take messages on these topics from now on, and on no others."""
        self._topics = topics

    def message(self, topic: str, payload: bytes) -> None:
        """Put a message in, or drop it."""
        if topic in self._topics and self._events.qsize() < MOST_WAITING:
            self._events.put(("message", (topic, payload)))

    def tell(self, kind: str, value: object) -> None:
        """Put in what happened to the connection."""
        self._events.put((kind, value))

    def take(self, deadline: float) -> tuple[str, Any]:
        """Wait for the next until `deadline` (of the monotonic clock), not longer however many come; or `Nothing`."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Nothing
        try:
            return self._events.get(timeout=left)
        except queue.Empty:
            raise Nothing from None  # the empty queue adds nothing
