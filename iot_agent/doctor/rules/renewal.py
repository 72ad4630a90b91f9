"""Whether the next renewal will be done in time, from how long the past ones took. Pure."""

from collections.abc import Iterator
from itertools import pairwise

from iot_agent.core.lifecycle import renewal_due
from iot_agent.core.record import Event, Identity, Record
from iot_agent.core.schedule import Policy, latest_renewal
from iot_agent.doctor.findings import Finding, error, fine, skipped, warning

LATE_CHECK_INS = 3  # intervals without an answer
SAFETY = 2  # so many of the longest rotation so far must fit between the renewal instant and the expiry
REMEDY = (
    "agentctl status says why; agentctl rotate tries at once. After the expiry, an operator must readmit the device."
)


def judge(record: Record, now: float, policy: Policy) -> Iterator[Finding]:
    """Judge the time that is left, then when the cloud last answered."""
    if record.active is None:
        yield skipped("renewal", "nothing to renew: the device has no certificate of its own yet")
        return
    yield _headroom(record, record.active, now)
    silence = now - record.last_contact
    if silence > LATE_CHECK_INS * policy.check_in_interval:
        said = f"the cloud last answered {_span(silence)} ago, with a check-in every {_span(policy.check_in_interval)}"
        yield warning("renewal.contact", said, REMEDY)
    else:
        yield fine("renewal.contact", f"the cloud last answered {_span(max(0, silence))} ago")


def _headroom(record: Record, active: Identity, now: float) -> Finding:
    due, end = renewal_due(record), active.certificate.not_after
    left = f"{_span(end - now)} of validity left"
    if now >= end:
        return error("renewal.headroom", f"the certificate expired {_span(now - end)} ago by this clock", REMEDY)
    if now > latest_renewal(active.certificate.not_before, end):
        return error("renewal.headroom", f"{left}; the renewal should have been done long ago", REMEDY)
    longest = longest_rotation(record.history)
    if now > due + max(longest, _patience(due, end)):
        return warning("renewal.headroom", f"{left}; the renewal has been due for {_span(now - due)}", REMEDY)
    if longest * SAFETY > end - due:
        took = f"the longest rotation so far took {_span(longest)}; the next one has {_span(end - due)}"
        return warning(
            "renewal.headroom",
            took,
            "Renew earlier (renewal.at), or give certificates a longer lifetime.",
        )
    return fine("renewal.headroom", f"{left}; renewal {_when(due, now)}, {_span(end - due)} before the end")


def _patience(due: int, end: int) -> float:
    """How long after its instant a renewal may take without a warning: a tenth of the time until the expiry."""
    return (end - due) / 10


def longest_rotation(history: tuple[Event, ...]) -> int:
    """Seconds that the longest rotation in the history took; 0 if there is none.

    A rotation begins with the first event after the last promotion that is not clean-up: a request, an issued
    certificate, a dropped key, a roll-back.
    """
    ends = [index for index, event in enumerate(history) if event.event == "promoted"]
    longest = 0
    for before, end in pairwise([-1, *ends]):
        times = [event.at for event in history[before + 1 : end + 1] if event.event != "retired"]
        longest = max(longest, times[-1] - times[0])
    return longest


def _when(due: int, now: float) -> str:
    return f"in {_span(due - now)}" if due > now else "is due now"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
