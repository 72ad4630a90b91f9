"""A queue from the MQTT library's threads to the thread that waits; its size is bounded, whatever a broker sends.

A message is kept only if its topic was subscribed to and only while few are waiting; others are dropped. An event of
the connection is never dropped: a session has few of them.
"""

import queue
import time
from typing import Any

MOST_WAITING = 8  # messages: only one request is open at a time, but late answers to earlier ones may come first


class Nothing(Exception):
    """Nothing came in time."""


class Inbox:
    """Events as (kind, value); of kind "message", the value is (topic, payload)."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._topics: frozenset[str] = frozenset()

    def expect(self, topics: frozenset[str]) -> None:
        """Keep messages on these topics from now on, and on no others."""
        self._topics = topics

    def message(self, topic: str, payload: bytes) -> None:
        """Keep a message, or drop it."""
        if topic in self._topics and self._events.qsize() < MOST_WAITING:
            self._events.put(("message", (topic, payload)))

    def tell(self, kind: str, value: object) -> None:
        """Keep an event of the connection."""
        self._events.put((kind, value))

    def take(self, deadline: float) -> tuple[str, Any]:
        """Give the next, waiting until `deadline` (of the monotonic clock) and never longer; raises `Nothing`."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Nothing
        try:
            return self._events.get(timeout=left)
        except queue.Empty:
            raise Nothing from None  # the empty queue adds nothing
