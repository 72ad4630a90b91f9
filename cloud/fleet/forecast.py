"""When the fleet's certificates expire, when they will be renewed, and which devices are at risk. Pure.

A device is *at risk* if
- its certificate has expired, or is in the last sixth of its life and has not been renewed;
- it has been silent for longer than is usual in the fleet, and its certificate expires within CONTACTS_NEEDED times
  this silence;
- its renewal should be done, and its certificate expires within the usual time between contacts.

A record holds only the last contact, so the usual time is the fleet's: twice the median age of the last contacts (at a
random moment, the last contact is on average half an interval old). So a week in which no device was heard of makes the
usual time longer, and no device unusual.

A device renews at an instant that it draws by itself, between two thirds of its certificate's life and a tenth of the
life later (`Policy` in iot_agent/core/schedule.py, as delivered), or earlier if an operator's window says so. The cloud
does not know the instant: the forecast takes one by the serial, so that it is the same each time. A renewal whose
instant has passed is *overdue*: it comes as soon as the device has contact, and is counted apart.

Times are ms since 1970, UTC.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from cloud.fleet import formatting, rollout
from cloud.fleet.formatting import HOUR_MS, SECOND_MS
from cloud.rotation.agenda import DAY_MS, overdue_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloud.rotation.record import Certificate, Device

CONTACTS_NEEDED: Final = 3
RENEWAL_AT: Final = 2 / 3
RENEWAL_SPREAD: Final = 1 / 10
BUCKETS: Final = 30
WIDTHS: Final = (
    *(minutes * HOUR_MS // 60 for minutes in (1, 5, 15, 30)),
    *(hours * HOUR_MS for hours in (1, 3, 6, 12)),
    *(days * DAY_MS for days in (1, 2, 7, 14, 30, 90)),
)
RISKS_KEPT: Final = 1000


@dataclass(frozen=True)
class Life:
    """What a forecast needs to know of a device with a certificate."""

    serial: str
    renew_at: int
    renewed_by: int
    not_after: int
    overdue_at: int
    contact: int


@dataclass(frozen=True)
class Peak:
    """The hour with the most renewals: when it begins (ms), and how many there are."""

    start: int
    renewals: int

    @property
    def per_second(self) -> float:
        """Renewals a second, on average over the hour."""
        return self.renewals * SECOND_MS / HOUR_MS


@dataclass(frozen=True)
class Risk:
    """A device that may not renew in time, and why."""

    serial: str
    not_after: int
    contact: int
    why: str


@dataclass(frozen=True)
class Histogram:
    """Counts in buckets of `width` ms from `start` on."""

    start: int
    width: int
    counts: tuple[int, ...]


@dataclass
class Forecast:
    """The state of the fleet at the time `now`."""

    now: int
    states: Counter[str] = field(default_factory=Counter)
    expired: int = 0
    expiry: Histogram = field(default_factory=lambda: Histogram(0, 1, ()))
    renewals: Histogram = field(default_factory=lambda: Histogram(0, 1, ()))
    told_to_renew: int = 0
    overdue_renewals: int = 0
    peak: Peak | None = None
    contacts: Histogram = field(default_factory=lambda: Histogram(0, 1, ()))
    usual: int | None = None
    risks: list[Risk] = field(default_factory=list)
    at_risk: int = 0

    @property
    def devices(self) -> int:
        """The number of devices."""
        return self.states.total()

    def as_json(self) -> dict[str, Any]:
        """Return the forecast as a JSON object."""

        def histogram(one: Histogram) -> dict[str, Any]:
            return {"start": one.start, "width": one.width, "counts": list(one.counts)}

        return {
            **formatting.with_iso({"time": self.now}, "time"),
            "devices": self.devices,
            "states": dict(self.states),
            "expired": self.expired,
            "usual_time_between_contacts": self.usual,
            "at_risk": self.at_risk,
            "risks": [vars_of(risk) for risk in self.risks],
            "expiry": histogram(self.expiry),
            "renewals": histogram(self.renewals),
            "told_to_renew": self.told_to_renew,
            "overdue_renewals": self.overdue_renewals,
            "peak_of_renewals": self._peak_as_json(),
            "quota_per_second": rollout.QUOTA_PER_SECOND,
            "last_contacts": histogram(self.contacts),
        }

    def _peak_as_json(self) -> dict[str, Any] | None:
        if self.peak is None:
            return None
        fields = {"start": self.peak.start, "renewals": self.peak.renewals, "per_second": self.peak.per_second}
        return formatting.with_iso(fields, "start")


def vars_of(risk: Risk) -> dict[str, Any]:
    """Return a risk as a JSON object."""
    fields = {"serial": risk.serial, "expires_at": risk.not_after, "last_contact": risk.contact, "why": risk.why}
    return formatting.with_iso(fields, "expires_at", "last_contact")


def make(devices: Iterable[Device], now: int) -> Forecast:
    """Return the forecast. Only a few numbers of each device are kept in memory."""
    forecast = Forecast(now)
    lives: list[Life] = []
    for device in devices:
        forecast.states[device.state.value] += 1
        if device.active:
            lives.append(_life(device, device.active))
            forecast.told_to_renew += device.renew is not None
    forecast.expired = sum(life.not_after <= now for life in lives)
    forecast.expiry = _histogram([life.not_after for life in lives if life.not_after > now], now)
    renewals = [life.renew_at for life in lives if life.renew_at > now]
    forecast.renewals, forecast.peak = _histogram(renewals, now), _peak(renewals, now)
    forecast.overdue_renewals = sum(life.renew_at <= now < life.not_after for life in lives)
    forecast.contacts = _histogram([now - life.contact for life in lives], 0)
    forecast.usual = usual_interval([now - life.contact for life in lives])
    risks = sorted(filter(None, (_risk(life, forecast.usual or 0, now) for life in lives)), key=_urgency)
    forecast.at_risk, forecast.risks = len(risks), risks[:RISKS_KEPT]
    return forecast


def _life(device: Device, active: Certificate) -> Life:
    """Return what the forecast needs; the renewal instant is drawn by the serial, from the earlier of two windows."""
    whole = active.not_after - active.issued_at
    start = active.issued_at + int(whole * RENEWAL_AT)
    end = start + int(whole * RENEWAL_SPREAD)
    share = int.from_bytes(hashlib.sha256(f"renewal of {device.serial}".encode()).digest()[:4]) / 2**32
    renew_at, renewed_by = start + int((end - start) * share), end
    if device.renew:
        told = device.renew.start + int((device.renew.end - device.renew.start) * share)
        renew_at, renewed_by = min(renew_at, told), min(renewed_by, device.renew.end)
    contact = max(device.last_seen or 0, active.issued_at)
    return Life(device.serial, renew_at, renewed_by, active.not_after, overdue_at(active), contact)


def _peak(renewals: list[int], now: int) -> Peak | None:
    hours = Counter((moment - now) // HOUR_MS for moment in renewals)
    if not hours:
        return None
    hour, most = max(hours.items(), key=lambda found: (found[1], -found[0]))
    return Peak(now + hour * HOUR_MS, most)


def usual_interval(ages: list[int]) -> int | None:
    """Return the fleet's usual time between contacts, from the ages of the last contacts."""
    return 2 * int(median(ages)) if ages else None


def _risk(life: Life, usual: int, now: int) -> Risk | None:
    left, silent = life.not_after - now, now - life.contact
    if left <= 0:
        why = f"expired {formatting.span(-left)} ago: readmit it"
    elif silent > usual and left < CONTACTS_NEEDED * silent:
        why = f"{formatting.span(left)} left, and silent for {formatting.span(silent)}"
    elif now >= life.overdue_at or (now >= life.renewed_by and left < usual):
        why = f"{formatting.span(left)} left: it should have renewed {formatting.span(now - life.renewed_by)} ago"
    else:
        return None
    return Risk(life.serial, life.not_after, life.contact, why)


def _urgency(risk: Risk) -> int:
    return risk.not_after


def _histogram(moments: list[int], start: int) -> Histogram:
    """Count in buckets of the smallest width in WIDTHS that needs at most BUCKETS of them."""
    reach = max((moment - start for moment in moments), default=0) + 1
    width = next((width for width in WIDTHS if width * BUCKETS >= reach), 365 * DAY_MS)
    counts = Counter((moment - start) // width for moment in moments)
    return Histogram(start, width, tuple(counts[bucket] for bucket in range(max(counts, default=-1) + 1)))


def lines(forecast: Forecast) -> list[str]:
    """Return the forecast as lines of text for the terminal."""
    told = [
        f"{forecast.devices} devices at {formatting.moment(forecast.now)} UTC: "
        + ", ".join(f"{count} {state}" for state, count in sorted(forecast.states.items())),
        f"usual time between contacts: {formatting.span(forecast.usual) if forecast.usual is not None else '-'}",
        "",
        f"Expiry of certificates (one line is {formatting.span(forecast.expiry.width)}; {forecast.expired} expired)",
        *_bars(forecast.expiry, forecast.now),
        "",
        f"Renewals expected (one line is {formatting.span(forecast.renewals.width)})",
        *_bars(forecast.renewals, forecast.now),
        *(f"  {line}" for line in about_renewals(forecast)),
        "",
        f"At risk: {forecast.at_risk}",
    ]
    shown = forecast.risks[:20]
    rows = [(risk.serial, formatting.moment(risk.not_after), risk.why) for risk in shown]
    told += [f"  {line}" for line in formatting.columns([("SERIAL", "EXPIRES (UTC)", "WHY"), *rows] if rows else [])]
    if forecast.at_risk > len(shown):
        told.append(f"  … and {forecast.at_risk - len(shown)} more; --json and --html list them")
    return told


def about_renewals(forecast: Forecast) -> list[str]:
    """Return what the chart of renewals does not show, in sentences."""
    told = []
    if forecast.peak:
        rate, quota = forecast.peak.per_second, rollout.QUOTA_PER_SECOND
        told.append(
            f"peak: {forecast.peak.renewals:,} in the hour from {formatting.moment(forecast.peak.start)} UTC, "
            f"{rate:.2g} a second; AWS IoT registers {quota:.0f} a second ({rate / quota:.1%} of the quota)"
        )
    if forecast.told_to_renew:
        told.append(f"told to renew in an operator's window: {forecast.told_to_renew:,}")
    if forecast.overdue_renewals:
        told.append(f"overdue, and not in the chart: {forecast.overdue_renewals:,}; they renew at their next contact")
    return told


def _bars(histogram: Histogram, now: int) -> list[str]:
    most = max(histogram.counts, default=0)
    if not most:
        return ["  none"]
    rows = []
    for number, count in enumerate(histogram.counts):
        begins = histogram.start + number * histogram.width - now
        rows.append((f"in {formatting.span(begins)}" if begins else "now", str(count), "█" * -(-40 * count // most)))
    return [f"  {line}" for line in formatting.columns(rows)]
