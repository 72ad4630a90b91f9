"""Which topic rules receive the requests of a topic prefix. Pure.

A rule receives a message if its filter matches the topic; two different filters can match the same topic. Slashes
separate levels: `+` stands for any one level, `#` at the end for any number, also none (MQTT 3.1.1, section 4.7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REQUESTS: Final = ("create-man-cert/+/rqst", "ack-man-cert/+/rqst", "check-in/+/rqst")
"""What follows the prefix in the filters of the stack's own rules."""

ANY: Final = frozenset({"+", "#"})


@dataclass(frozen=True)
class Rule:
    """A topic rule: its name, and its filter, None for one that receives no topic (basic ingest)."""

    name: str
    topic_filter: str | None


def users(prefix: str, rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules that receive requests under `prefix` on purpose.

    A rule whose filter names no level receives everything in the account, as an archive does: it is left out.
    """
    return [rule for rule in rules if _names_a_level(rule.topic_filter) and _receives(rule.topic_filter, prefix)]


def overlap(one: str, other: str) -> bool:
    """Whether there is a topic that both filters match."""
    return _overlap(one.split("/"), other.split("/"))


def _names_a_level(topic_filter: str | None) -> bool:
    return topic_filter is not None and not set(topic_filter.split("/")) <= ANY


def _receives(topic_filter: str | None, prefix: str) -> bool:
    return topic_filter is not None and any(overlap(topic_filter, f"{prefix}/{rest}") for rest in REQUESTS)


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    if "#" in (*one[:1], *other[:1]):
        return True
    if not one or not other:
        return not one and not other
    return (one[0] == other[0] or not ANY.isdisjoint((one[0], other[0]))) and _overlap(one[1:], other[1:])
