"""The health of a device, in one word for monitoring. Pure; knows only the report's schema (docs/status.md).

critical    look now: the certificate has expired or soon will, or the record cannot be written to disk
attention   look within a day: something is wrong and has lasted
good        anything else; a few failures in a row that are soon tried again are normal on a network
"""

from enum import StrEnum
from typing import Any

NORMAL_FAILURES = 3  # in a row; onboarding alone may take two
LONG_PAUSE = 120  # seconds; a failure after which the agent waits longer is worth a look
CLEANUP = "retire"
LAST_PART = 0.1  # of a certificate's lifetime; its renewal should have been done long before


class Health(StrEnum):
    """The `level` of the report's `health`."""

    GOOD = "good"
    ATTENTION = "attention"
    CRITICAL = "critical"


def judge(shown: dict[str, Any]) -> dict[str, str]:
    """Judge a report; give its `level`, and `why` in one sentence. The first rule that finds something decides."""
    for rule in (_identity, _trouble, _configuration, _failing, _clock):
        verdict = rule(shown)
        if verdict is not None:
            level, why = verdict
            return {"level": level, "why": why}
    return {"level": Health.GOOD, "why": shown["reason"]}


def _identity(shown: dict[str, Any]) -> tuple[Health, str] | None:
    identity, now = shown["identity"], shown["time"]
    if identity is None:
        return None
    if now >= identity["not_after"]:
        return Health.CRITICAL, "the active certificate has expired"
    if identity["not_after"] - now < LAST_PART * (identity["not_after"] - identity["not_before"]):
        return Health.CRITICAL, "the certificate has less than a tenth of its lifetime left"
    return None


def _trouble(shown: dict[str, Any]) -> tuple[Health, str] | None:
    return None if shown["trouble"] is None else (Health.CRITICAL, shown["trouble"])


def _configuration(shown: dict[str, Any]) -> tuple[Health, str] | None:
    error = shown["configuration"]["error"]
    if error is None:
        return None
    first, _, _ = error.partition("\n")
    return Health.ATTENTION, f"the configuration is refused: {first}"


def _failing(shown: dict[str, Any]) -> tuple[Health, str] | None:
    error, step = shown["last_error"], shown["next_step"]
    if error is None:
        return None
    if error["step"] == CLEANUP:
        return Health.ATTENTION, f"old keys or certificates cannot be removed: {error['message']}"
    if shown["attempt"] <= NORMAL_FAILURES and (step is None or step["due"] - shown["time"] <= LONG_PAUSE):
        return None
    return Health.ATTENTION, f"{error['step']} failed {shown['attempt']} times in a row: {error['message']}"


def _clock(shown: dict[str, Any]) -> tuple[Health, str] | None:
    if shown["clock_trusted"]:
        return None
    return Health.ATTENTION, "the system clock is behind the time that the cloud has given"
