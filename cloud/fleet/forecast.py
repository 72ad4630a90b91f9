"""When the fleet's certificates expire, when they will be renewed, and which devices are at risk. Pure.

A device is *at risk* if its certificate expires within CONTACTS_NEEDED times its usual time between contacts, or if it
is in the last sixth of its certificate's life and has not renewed. A record holds only the last contact, so the usual
time is the fleet's: twice the median age of the last contacts (at a random moment, the last contact is on average half
an interval old). For a device that has been silent for longer than that, its silence counts as the usual time.

Times are ms since 1970, UTC.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from cloud.fleet import formatting
from cloud.rotation.agenda import DAY_MS, overdue_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloud.rotation.record import Device

CONTACTS_NEEDED: Final = 3
RENEWAL_AT: Final = 2 / 3
BUCKETS: Final = 30
WIDTHS: Final = (
    *(minutes * formatting.HOUR_MS // 60 for minutes in (1, 5, 15, 30)),
    *(hours * formatting.HOUR_MS for hours in (1, 3, 6, 12)),
    *(days * DAY_MS for days in (1, 2, 7, 14, 30, 90)),
)
RISKS_KEPT: Final = 1000


@dataclass(frozen=True)
class Life:
    """What a forecast needs to know of a device with a certificate."""

    serial: str
    issued_at: int
    not_after: int
    overdue_at: int
    contact: int


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
            "last_contacts": histogram(self.contacts),
        }


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
            active = device.active
            contact = max(device.last_seen or 0, active.issued_at)
            lives.append(Life(device.serial, active.issued_at, active.not_after, overdue_at(active), contact))
    forecast.expired = sum(life.not_after <= now for life in lives)
    forecast.expiry = _histogram([life.not_after for life in lives if life.not_after > now], now)
    renewals = [life.issued_at + int((life.not_after - life.issued_at) * RENEWAL_AT) for life in lives]
    forecast.renewals = _histogram([moment for moment in renewals if moment > now], now)
    forecast.contacts = _histogram([now - life.contact for life in lives], 0)
    forecast.usual = usual_interval([now - life.contact for life in lives])
    risks = sorted(filter(None, (_risk(life, forecast.usual or 0, now) for life in lives)), key=_urgency)
    forecast.at_risk, forecast.risks = len(risks), risks[:RISKS_KEPT]
    return forecast


def usual_interval(ages: list[int]) -> int | None:
    """Return the fleet's usual time between contacts, from the ages of the last contacts."""
    return 2 * int(median(ages)) if ages else None


def _risk(life: Life, usual: int, now: int) -> Risk | None:
    left, silent = life.not_after - now, now - life.contact
    interval = max(usual, silent)
    if left <= 0:
        why = f"expired {formatting.span(-left)} ago: readmit it"
    elif left < CONTACTS_NEEDED * interval:
        why = f"{formatting.span(left)} left, and silent for {formatting.span(silent)}"
    elif now >= life.overdue_at:
        why = f"{formatting.span(left)} left: it should have renewed {formatting.span(now - life.overdue_at)} ago"
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
        f"Renewals expected, at two thirds of each life (one line is {formatting.span(forecast.renewals.width)})",
        *_bars(forecast.renewals, forecast.now),
        "",
        f"At risk: {forecast.at_risk}",
    ]
    shown = forecast.risks[:20]
    rows = [(risk.serial, formatting.moment(risk.not_after), risk.why) for risk in shown]
    told += [f"  {line}" for line in formatting.columns([("SERIAL", "EXPIRES (UTC)", "WHY"), *rows] if rows else [])]
    if forecast.at_risk > len(shown):
        told.append(f"  … and {forecast.at_risk - len(shown)} more; --json and --html list them")
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
