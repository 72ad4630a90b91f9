"""Health: one word for monitoring."""

from typing import Any

import pytest

from iot_agent.core.record import Record
from tests.device.reports import failing, report


@pytest.mark.parametrize(
    ("shown", "level"),
    [
        (report(), "good"),
        (report(Record("SN-0001")), "good"),
        (report(failing(3)), "good"),
        (report(failing(4)), "attention"),
        (report(now=1899), "good"),
        (report(now=1901), "critical"),
        (report(now=2001), "critical"),
        (report(clock_trusted=False), "attention"),
        (report(configuration={"error": "agent.yaml:1: no\nmore", "remedy": "repair it"}), "attention"),
        (report(trouble="cannot write"), "critical"),
        (report(failing(9), now=2001), "critical"),
    ],
)
def test_health_is_the_worst_that_has_something_to_say(shown: dict[str, Any], level: str) -> None:
    assert shown["health"]["level"] == level
    assert "\n" not in shown["health"]["why"]


@pytest.mark.parametrize("error", ["", "x", "x\ny"])
def test_a_daemon_that_waits_for_its_configuration_is_never_good(error: str) -> None:
    shown = report(daemon="waiting for its configuration", configuration={"error": error, "remedy": "repair it"})
    assert shown["health"]["level"] == "attention"
