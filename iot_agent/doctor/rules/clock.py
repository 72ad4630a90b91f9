"""The clock, and why it may be trusted: NTP disciplines it, or the cloud, asked just now, agrees with it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from iot_agent.doctor.findings import Finding, error, fine, warning

SUSPECT, WRONG = 60, 300  # seconds away from the cloud; an issuer's clock may be as far from ours as `WRONG`
SET_IT = (
    "Set the clock: enable systemd-timesyncd or chrony and see that NTP (UDP 123) gets out, or fit a clock battery."
)


@dataclass(frozen=True)
class Clock:
    """Seconds since the epoch. `synchronised` is the kernel's word (None if it does not say), `cloud` is its time."""

    now: float
    floor: int
    synchronised: bool | None
    cloud: int | None


def judge(seen: Clock) -> Iterator[Finding]:
    """Judge the time first against what is known to have passed, then against somebody who knows it."""
    if seen.now < seen.floor:
        behind = f"{seen.floor - seen.now:.0f} s behind what this device and the cloud once agreed on"
        yield error("clock.floor", f"the clock is {behind}; certificates are not judged by it", SET_IT)
    else:
        yield fine("clock.floor", "not behind what is known to have passed")
    if seen.cloud is not None:
        yield _compared(seen.now - seen.cloud)
    elif seen.synchronised is None:
        yield warning("clock.trust", "neither the kernel nor the cloud could say whether the clock is right", SET_IT)
    elif seen.synchronised:
        yield fine("clock.trust", "the kernel says that NTP keeps it")
    else:
        yield warning("clock.trust", "the kernel says that nothing keeps it, and the cloud could not be asked", SET_IT)


def _compared(ahead: float) -> Finding:
    said = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the cloud's"
    if abs(ahead) > WRONG:
        return error("clock.trust", f"the clock is {said}", SET_IT)
    if abs(ahead) > SUSPECT:
        return warning("clock.trust", f"the clock is {said}", SET_IT)
    return fine("clock.trust", f"the cloud agrees with it (within {abs(ahead):.0f} s)")
