"""Whether the next renewal will come in time, judged by how long the past ones took. Pure."""

from collections.abc import Iterator
from itertools import pairwise

from iot_agent.core.lifecycle import renewal_due
from iot_agent.core.record import Event, Identity, Record
from iot_agent.core.schedule import Policy, latest_renewal
from iot_agent.doctor.findings import Finding, error, fine, skipped, warning

LATE_CHECK_INS = 3  # intervals without an answer
CAREFUL = 2  # times the longest rotation so far must fit between the renewal instant and the end
REMEDY = (
    "Look at agentctl status for why; agentctl rotate tries at once. Once it has expired, an operator must readmit the "
    "device."
)


def judge(record: Record, now: float, policy: Policy) -> Iterator[Finding]:
    """Judge headroom, then contact."""
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
        return error("renewal.headroom", f"{left}, and the renewal should have been done long ago", REMEDY)
    longest = longest_rotation(record.history)
    if now > due + max(longest, policy_patience(due, end)):
        return warning("renewal.headroom", f"{left}; the renewal has been due for {_span(now - due)}", REMEDY)
    if longest * CAREFUL > end - due:
        took = f"the longest rotation so far took {_span(longest)}, and {_span(end - due)} are left for the next one"
        return warning("renewal.headroom", took, "Renew earlier (renewal.at), or have the stack issue for longer.")
    return fine("renewal.headroom", f"{left}; renewal {_when(due, now)}, {_span(end - due)} before the end")


def policy_patience(due: int, end: int) -> float:
    """How long after its instant a renewal may be under way before that is worth a warning: a tenth of what is left."""
    return (end - due) / 10


def longest_rotation(history: tuple[Event, ...]) -> int:
    """Seconds from the first sign of a rotation to its end, the longest in the history; 0 if none is told in full.

    A rotation's first sign is what came after the last promotion and is not clean-up: a request, an issued certificate,
    a dropped key, a roll-back.
    """
    ends = [index for index, event in enumerate(history) if event.event == "promoted"]
    longest = 0
    for before, end in pairwise([-1, *ends]):
        told = [event.at for event in history[before + 1 : end + 1] if event.event != "retired"]
        longest = max(longest, told[-1] - told[0])
    return longest


def _when(due: int, now: float) -> str:
    return f"in {_span(due - now)}" if due > now else "is due now"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
