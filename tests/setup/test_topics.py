"""Which topic rules hear the requests of a prefix."""

from __future__ import annotations

from itertools import product

import pytest

from cloud.setup import topics
from cloud.setup.topics import Rule
from tests.cloud.template import of_type

ALPHABET = ("", "a", "b")
FILTERS = [
    "/".join((*levels, *end))
    for length in range(3)
    for levels in product((*ALPHABET, "+"), repeat=length)
    for end in ((), ("#",))
    if levels or end
]
TOPICS = ["/".join(levels) for length in range(1, 5) for levels in product(ALPHABET, repeat=length)]


def matches(topic_filter: str, topic: str) -> bool:
    """Say what MQTT 3.1.1, section 4.7, says."""
    levels, wanted = topic.split("/"), topic_filter.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(levels) == len(wanted) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


def test_two_filters_meet_if_and_only_if_a_topic_matches_both() -> None:
    heard = {one: {topic for topic in TOPICS if matches(one, topic)} for one in FILTERS}
    for one, other in product(FILTERS, repeat=2):
        assert topics.overlap(one, other) == bool(heard[one] & heard[other]), (one, other)


@pytest.mark.parametrize(
    ("topic_filter", "uses"),
    [
        ("p/create-man-cert/+/rqst", True),
        ("p/check-in/SN-1/rqst", True),
        ("p/#", True),
        ("p/+/+/+", True),
        ("+/ack-man-cert/#", True),
        ("+/+/+/rqst", True),
        ("p/create-man-cert/+/rspn", False),
        ("/p/create-man-cert/+/rqst", False),
        ("p/q/create-man-cert/+/rqst", False),
        ("pp/#", False),
        ("p", False),
        ("$aws/events/#", False),
        ("#", False),
        ("+/+/+/+", False),
        (None, False),
    ],
)
def test_a_rule_uses_a_prefix_if_it_hears_its_requests_and_names_a_level(
    topic_filter: str | None, *, uses: bool
) -> None:
    rule = Rule("r", topic_filter)
    assert topics.users("p", [rule]) == [rule] * uses


def test_the_filters_are_those_of_the_template() -> None:
    rules = [body["TopicRulePayload"]["Sql"]["Sub"] for body in of_type("AWS::IoT::TopicRule").values()]
    filters = {sql.split(" FROM ")[1].strip("'") for sql in rules}
    assert {f"${{TopicPrefix}}/{rest}" for rest in topics.REQUESTS} == {one for one in filters if "TopicPrefix" in one}


def test_bug_planted_a_filter_is_compared_as_a_text() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topics, "overlap", lambda one, other: one == other)
        with pytest.raises(AssertionError):
            test_two_filters_meet_if_and_only_if_a_topic_matches_both()
