from dataclasses import replace

import pytest

from iot_agent.core.schedule import Policy, backoff, latest_renewal, renewal_instant, worth_taking

DAY = 86400
POLICY = Policy()


def test_the_window_opens_at_two_thirds_of_the_real_lifetime() -> None:
    assert renewal_instant(0, 90 * DAY, 0, POLICY, 0.0) == 60 * DAY


def test_the_draw_spreads_over_a_tenth_of_the_lifetime() -> None:
    assert renewal_instant(0, 90 * DAY, 0, POLICY, 0.5) == pytest.approx(64.5 * DAY)
    assert renewal_instant(0, 90 * DAY, 0, POLICY, 0.999999) < 69 * DAY


def test_a_late_arrival_still_waits_the_minimum_interval() -> None:
    late = 59 * DAY + DAY - 60
    assert renewal_instant(0, 90 * DAY, late, POLICY, 0.0) == late + POLICY.minimum_interval


def test_a_renewal_is_never_planned_after_nine_tenths_of_the_lifetime() -> None:
    crawling = Policy(minimum_interval=1000 * DAY)
    assert renewal_instant(0, 90 * DAY, 0, crawling, 0.9) == latest_renewal(0, 90 * DAY) == 81 * DAY


def test_the_latest_renewal_is_counted_from_when_the_certificate_begins() -> None:
    assert latest_renewal(1000 * DAY, 1090 * DAY) == 1081 * DAY


def test_a_certificate_with_room_for_just_the_minimum_interval_is_worth_taking() -> None:
    exact = Policy(renewal_fraction=0.5, minimum_interval=90)
    assert worth_taking(0, 100, 0, exact)
    assert not worth_taking(0, 100, 0.5, exact)


@pytest.mark.parametrize(
    ("name", "not_before", "not_after", "now", "worth"),
    [
        ("fresh", 0, 90 * DAY, 10, True),
        ("already in its window", 0, 90 * DAY, 60 * DAY, False),
        ("expired", 0, 90 * DAY, 91 * DAY, False),
        ("shorter than the minimum interval", 0, 3000, 10, False),
        ("just long enough for the minimum interval", 0, 6000, 10, True),
        ("ends before it begins", 100, 50, 10, False),
        ("counted from when it begins, not from 1970", 1000 * DAY, 1090 * DAY, 1060 * DAY, False),
        ("and as late as it may be taken", 1000 * DAY, 1090 * DAY, 1060 * DAY - 1, True),
    ],
)
def test_a_certificate_is_worth_taking_only_if_it_cannot_loop(
    name: str, not_before: int, not_after: int, now: float, *, worth: bool
) -> None:
    assert worth_taking(not_before, not_after, now, POLICY) is worth, name


def test_backoff_doubles_up_to_the_cap_and_never_falls_below_a_second() -> None:
    most = [backoff(attempt, POLICY, 0.999999) for attempt in range(1, 14)]
    assert most[:3] == [pytest.approx(5, rel=1e-4), pytest.approx(10, rel=1e-4), pytest.approx(20, rel=1e-4)]
    assert most[-1] == pytest.approx(POLICY.retry_cap, rel=1e-4)
    assert backoff(1, replace(POLICY, retry_base=0.1), 0.0) == 1.0
    least = [backoff(attempt, POLICY, 0.0) for attempt in range(1, 14)]
    assert all(
        longest <= shortest
        for longest, shortest in zip(most, least[1:], strict=False)
        if shortest < POLICY.retry_cap / 2
    ), "each longer than before"
    assert backoff(10_000, POLICY, 0.5) == POLICY.retry_cap * 3 / 4


def test_the_instant_is_a_part_of_the_lifetime_whenever_that_begins() -> None:
    assert renewal_instant(1000, 1900, 1000, Policy(minimum_interval=1), 1.0) == 1690
