"""The clock, and whether it can be trusted: NTP sets it, or the cloud, asked just now, agrees with it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from iot_agent.doctor.findings import Finding, error, fine, warning

SUSPECT, WRONG = (
    60,
    300,
)  # seconds of difference between the two clocks
SET_IT = "Set the clock: enable systemd-timesyncd or chrony and let NTP (UDP port 123) through, or fit a clock battery."


@dataclass(frozen=True)
class ClockFacts:
    """Seconds since the epoch; `cloud` is its time. `synchronised` is what the kernel says, None if it says nothing."""

    now: float
    floor: int
    synchronised: bool | None
    cloud: int | None


def judge(seen: ClockFacts) -> Iterator[Finding]:
    """Compare the clock with the time that is known to have passed, then with the cloud, or ask the kernel."""
    if seen.now < seen.floor:
        behind = f"{seen.floor - seen.now:.0f} s behind a time that this device and the cloud agreed on"
        yield error("clock.floor", f"the clock is {behind}; the agent uses that time for certificates", SET_IT)
    else:
        yield fine("clock.floor", "the clock is not behind the time that is known to have passed")
    if seen.cloud is not None:
        yield _compared(seen.now - seen.cloud)
    elif seen.synchronised is None:
        yield warning("clock.trust", "neither the kernel nor the cloud could say whether the clock is right", SET_IT)
    elif seen.synchronised:
        yield fine("clock.trust", "the kernel says that the clock is synchronised")
    else:
        yield warning(
            "clock.trust", "the kernel says that the clock is not synchronised; the cloud was not asked", SET_IT
        )


def _compared(ahead: float) -> Finding:
    said = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the cloud's"
    if abs(ahead) > WRONG:
        return error("clock.trust", f"the clock is {said}", SET_IT)
    if abs(ahead) > SUSPECT:
        return warning("clock.trust", f"the clock is {said}", SET_IT)
    return fine("clock.trust", f"the cloud agrees with it (within {abs(ahead):.0f} s)")
