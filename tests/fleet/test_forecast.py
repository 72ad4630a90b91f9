"""Who is at risk, and how counts become bars: pure rules over plain records."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from cloud.fleet import forecast, formatting, html_report, rollout
from cloud.rotation.record import Certificate, Device, Renewal, State

NOW = 1_800_000_000_000
HOUR, DAY = 3600 * 1000, 24 * 3600 * 1000
LIFE = 90 * DAY


def device(number: int, age: int, silent: int) -> Device:
    """Return a device whose certificate is so old, and that was heard of so long ago."""
    issued = NOW - age
    certificate = Certificate(f"{number:064x}", "k", "PEM", issued, issued + LIFE)
    return Device(f"SN-{number}", State.ROTATION_COMPLETE, 1, active=certificate, last_seen=NOW - silent)


def fleet(*odd: Device) -> list[Device]:
    """Return a hundred devices that are heard of every day or so, and the odd ones."""
    dice = random.Random(1)  # noqa: S311 - a test's dice
    return [device(number, dice.randrange(50 * DAY), dice.randrange(DAY)) for number in range(100)] + list(odd)


@pytest.mark.parametrize(
    ("age", "silent", "why"),
    [
        (10 * DAY, HOUR, None),
        (60 * DAY, HOUR, None),  # renews about now
        (74 * DAY, HOUR, None),
        (76 * DAY, HOUR, "should have renewed"),
        (88 * DAY, HOUR, "47 h left|2 d left"),
        (60 * DAY, 11 * DAY, "30 d left, and silent for 11 d"),
        (60 * DAY, 9 * DAY, None),
        (91 * DAY, HOUR, "expired 24 h ago"),
    ],
)
def test_a_device_is_at_risk_by_the_time_left_against_its_usual_contacts(
    age: int, silent: int, why: str | None
) -> None:
    made = forecast.make(fleet(device(999, age, silent)), NOW)
    found = [risk.why for risk in made.risks if risk.serial == "SN-999"]
    assert made.at_risk == len(made.risks)
    if why is None:
        assert found == []
    else:
        assert any(part in found[0] for part in why.split("|")), found


def test_the_usual_time_between_contacts_is_the_fleets() -> None:
    made = forecast.make(fleet(), NOW)
    assert made.usual is not None
    assert 0.7 * DAY < made.usual < 1.3 * DAY
    assert forecast.make([], NOW).usual is None


def test_the_most_urgent_come_first_and_no_count_is_lost() -> None:
    late = [device(1000 + number, 80 * DAY + number * DAY // 200, HOUR) for number in range(1500)]
    made = forecast.make(fleet(*late), NOW)
    assert (made.at_risk, len(made.risks)) == (1500, 1000)
    assert made.risks[0].serial == "SN-2499"
    assert "and 1480 more" in "\n".join(forecast.lines(made))
    assert "and 500 more" in html_report.render(made, "Fleet")
    expiring = sum(life.active.not_after > NOW for life in [*fleet(), *late] if life.active)
    assert sum(made.expiry.counts) + made.expired == made.devices == 1600
    assert sum(made.expiry.counts) == expiring


@pytest.mark.parametrize("reach", [1, 50_000, HOUR, DAY, 29 * DAY, 30 * DAY, 400 * DAY, 4000 * DAY])
def test_a_histogram_has_at_most_so_many_buckets_and_every_moment_in_its_own(reach: int) -> None:
    moments = [NOW, NOW + reach // 2, NOW + reach]
    made = forecast._histogram(moments, NOW)
    assert len(made.counts) <= forecast.BUCKETS
    assert sum(made.counts) == len(moments)
    assert made.counts[(moments[1] - NOW) // made.width] >= 1


def test_an_empty_fleet_has_a_forecast_too() -> None:
    made = forecast.make([], NOW)
    assert "0 devices" in forecast.lines(made)[0]
    assert html_report.render(made, "Fleet").count("<p>None.</p>") == 4


def test_a_page_holds_no_markup_of_a_title() -> None:
    assert "<script>" not in html_report.render(forecast.make([], NOW), "<script>")


def test_windows_fill_the_span_evenly_and_are_the_same_each_time() -> None:
    windows = [rollout.window(f"SN-{number}", NOW, 7 * DAY, "why", NOW) for number in range(9600)]
    assert windows[17] == rollout.window("SN-17", NOW, 7 * DAY, "why", NOW)
    assert min(window.start for window in windows) == NOW
    assert max(window.end for window in windows) == NOW + 7 * DAY
    starts = [sum(window.start == start for window in windows) for start in {window.start for window in windows}]
    assert len(starts) == rollout.SLICES
    assert max(starts) < 2 * 9600 // rollout.SLICES
    assert rollout.hours_needed(18_001) == 2


@pytest.mark.parametrize(
    ("ms", "written"),
    [(0, "now"), (1000, "1 s"), (119_000, "119 s"), (120_000, "2 min"), (47 * HOUR, "47 h"), (48 * HOUR, "2 d")],
)
def test_a_span_is_written_in_one_unit(ms: int, written: str) -> None:
    assert formatting.span(ms) == written


@pytest.mark.parametrize("life", [30 * DAY, 90 * DAY, 365 * DAY])
def test_after_a_quiet_week_a_healthy_fleet_is_still_healthy(life: int) -> None:
    dice = random.Random(2)  # noqa: S311 - a test's dice
    quiet = []
    for number in range(400):
        one = device(number, 0, 7 * DAY + dice.randrange(DAY))
        issued = NOW - dice.randrange(int(life * 0.76))
        active = Certificate(f"{number:064x}", "k", "PEM", issued, issued + life)
        quiet.append(replace(one, active=active))
    made = forecast.make(quiet, NOW)
    assert (made.at_risk, made.risks) == (0, [])


def test_renewals_are_spread_and_an_operators_window_and_overdue_ones_are_known() -> None:
    same_day = [device(number, 30 * DAY, HOUR) for number in range(1000)]
    made = forecast.make(same_day, NOW)
    first, last = 30 * DAY, 39 * DAY  # two thirds of 90 days, and a tenth of them later
    assert sum(made.renewals.counts) == 1000
    assert sum(made.renewals.counts[: first // made.renewals.width]) == 0
    assert max(made.renewals.counts) < 300
    assert len(made.renewals.counts) == -(-last // made.renewals.width)
    assert (made.told_to_renew, made.overdue_renewals) == (0, 0)

    soon = Renewal(NOW + HOUR, NOW + 3 * HOUR, "new CA", NOW)
    told = forecast.make([replace(one, renew=soon) for one in same_day], NOW)
    assert (told.told_to_renew, sum(told.renewals.counts), told.renewals.width * len(told.renewals.counts)) == (
        1000,
        1000,
        3 * HOUR,
    )
    never_later = Renewal(NOW + 80 * DAY, NOW + 81 * DAY, "no hurry", NOW)
    assert forecast.make([replace(one, renew=never_later) for one in same_day], NOW).renewals == made.renewals

    late = forecast.make([device(number, 74 * DAY, HOUR) for number in range(10)], NOW)
    assert (late.overdue_renewals, sum(late.renewals.counts), late.at_risk) == (10, 0, 0)
    assert "overdue, and not in the chart: 10" in "\n".join(forecast.lines(late))
    assert "Overdue, and not in the chart: 10" in html_report.render(late, "Fleet")


def test_the_peak_is_compared_with_the_quota_of_aws() -> None:
    window = Renewal(NOW + 5 * HOUR, NOW + 6 * HOUR, "at once", NOW)
    made = forecast.make([replace(device(number, 10 * DAY, HOUR), renew=window) for number in range(3600)], NOW)
    assert made.peak == forecast.Peak(NOW + 5 * HOUR, 3600)
    assert made.as_json()["peak_of_renewals"]["per_second"] == 1.0
    assert "peak: 3,600 in the hour from 2027-01-15 13:00 UTC, 1 a second; AWS IoT registers 10 a second (10.0%" in (
        "\n".join(forecast.lines(made))
    )
    assert forecast.make([], NOW).peak is None


@pytest.mark.parametrize("most", [1, 1000, 1_000_000, 123_456_789])
def test_the_labels_of_the_y_axis_are_inside_the_picture(most: int) -> None:
    chart = html_report._plot(forecast.Histogram(NOW, DAY, (most, 2)), str, "devices")
    (right,) = {float(x) for x in re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="end">', chart)}
    assert right >= 7 * len(f"{most:,}"), "a digit is 7 units wide"
    assert f">{most:,}</text>" in chart
