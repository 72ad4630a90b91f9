"""What the MQTT library's threads say waits in a bounded inbox."""

import time
from typing import Any

import pytest

from iot_agent.worker.inbox import MOST_WAITING, Inbox, Nothing
from tests.harness import PATIENCE


def flooded(kind: type[Inbox]) -> Inbox:
    """Fill one while nobody takes anything out, which is when it grows."""
    inbox = kind()
    inbox.expect(frozenset({"ours"}))
    for _ in range(1000):
        inbox.message("somebody/else", b"")
        inbox.message("ours", b"")
    inbox.tell("lost", None)
    return inbox


def drained(inbox: Inbox) -> list[tuple[str, Any]]:
    """Take out all that waits; 2,000 messages and an end are the most there can be."""
    found: list[tuple[str, Any]] = []
    while not found or found[-1][0] != "lost":
        found.append(inbox.take(time.monotonic() + PATIENCE))
    return found


def test_few_messages_wait_and_the_end_is_told_all_the_same() -> None:
    found = drained(flooded(Inbox))
    assert found == [*[("message", ("ours", b""))] * MOST_WAITING, ("lost", None)]


def test_a_wait_is_over_at_its_deadline_although_something_has_come() -> None:
    with pytest.raises(Nothing):
        flooded(Inbox).take(time.monotonic())


class Hoarder(Inbox):
    """An inbox that keeps whatever comes."""

    def message(self, topic: str, payload: bytes) -> None:
        self.tell("message", (topic, payload))


def test_bug_planted_an_inbox_without_a_bound() -> None:
    assert len(drained(flooded(Hoarder))) > 2 * MOST_WAITING
