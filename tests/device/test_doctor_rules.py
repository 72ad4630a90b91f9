"""The doctor's rules on facts that no test machine can show."""

import pytest

from iot_agent.core.record import Record
from iot_agent.doctor.findings import Level
from iot_agent.doctor.rules import clock, identities


@pytest.mark.parametrize(
    ("ahead", "synchronised", "level"),
    [
        (0, False, Level.FINE),
        (-59, None, Level.FINE),
        (61, True, Level.WARNING),
        (-301, True, Level.ERROR),
        (None, True, Level.FINE),
        (None, False, Level.WARNING),
        (None, None, Level.WARNING),
    ],
)
def test_the_cloud_is_believed_before_the_kernel(
    ahead: int | None,
    synchronised: bool | None,  # noqa: FBT001 - a row of the table
    level: Level,
) -> None:
    told = None if ahead is None else 1_000_000 + ahead
    *_, trust = clock.judge(clock.ClockFacts(1_000_000, 0, synchronised, told))
    assert trust.level is level


def test_what_works_in_spite_of_the_rules_is_a_warning() -> None:
    seen = identities.IdentityFacts("iot-agent-1", "pending", None, "aa", 0, 10, odd="its serial number is 0")
    (finding,) = identities.judge([seen], Record("SN-0001"), 5)
    assert (finding.level, finding.message) == (Level.WARNING, "the certificate of iot-agent-1: its serial number is 0")
