"""How well a device is, in one word that monitoring can act on. Pure; knows only the report's schema (docs/status.md).

critical    nobody may wait with this: the identity is expired or nearly so, or the disk refuses the record
attention   not as it should be, and it has lasted: look within a day or so
good        all else; a few failed attempts in a row, soon tried again, are life on a network
"""

from enum import StrEnum
from typing import Any

BLIP = 3  # failures in a row that are not worth anybody's attention: onboarding alone takes two
LONG_PAUSE = 120  # seconds: who waits longer for the next try cannot do what it wants to do
CLEANUP = "retire"
LINE_END = "\n"
LAST_CHANCE = 0.1  # of a certificate's life; its renewal should have been over long before


class Level(StrEnum):
    """What monitoring makes a colour of."""

    GOOD = "good"
    ATTENTION = "attention"
    CRITICAL = "critical"


def judge(shown: dict[str, Any]) -> dict[str, str]:
    """Judge a report: its `level`, and `why` in one sentence. The first rule with something to say wins."""
    for rule in (_identity, _trouble, _configuration, _failing, _clock):
        verdict = rule(shown)
        if verdict is not None:
            level, why = verdict
            return {"level": level, "why": why}
    return {"level": Level.GOOD, "why": shown["reason"]}


def _identity(shown: dict[str, Any]) -> tuple[Level, str] | None:
    identity, now = shown["identity"], shown["time"]
    if identity is None:
        return None
    if now >= identity["not_after"]:
        return Level.CRITICAL, "the certificate in force has expired"
    if identity["not_after"] - now < LAST_CHANCE * (identity["not_after"] - identity["not_before"]):
        return Level.CRITICAL, "less than a tenth of the certificate's life is left, and its renewal is not done"
    return None


def _trouble(shown: dict[str, Any]) -> tuple[Level, str] | None:
    return None if shown["trouble"] is None else (Level.CRITICAL, shown["trouble"])


def _configuration(shown: dict[str, Any]) -> tuple[Level, str] | None:
    error = shown["configuration"]["error"]
    return None if error is None else (Level.ATTENTION, f"the configuration is refused: {error.partition(LINE_END)[0]}")


def _failing(shown: dict[str, Any]) -> tuple[Level, str] | None:
    error, step = shown["last_error"], shown["next_step"]
    if error is None:
        return None
    if error["step"] == CLEANUP:
        return Level.ATTENTION, f"keys or certificates that nothing needs cannot be removed: {error['message']}"
    if shown["attempt"] <= BLIP and (step is None or step["due"] - shown["time"] <= LONG_PAUSE):
        return None
    return Level.ATTENTION, f"{error['step']} failed {shown['attempt']} times in a row: {error['message']}"


def _clock(shown: dict[str, Any]) -> tuple[Level, str] | None:
    return (
        None if shown["clock_trusted"] else (Level.ATTENTION, "the system clock is behind the time the cloud has told")
    )
