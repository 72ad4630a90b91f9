"""The renewal instant of a certificate, and the back-off between attempts. Pure.

- The renewal window is computed from the dates of the certificate that was issued.
- The instant in it is drawn once, when the certificate arrives, and stored. If it were drawn again at each decision,
  the earliest draw would win, and a fleet would renew at nearly the same time.
- Two rotations are never closer than the minimum interval: a CA that issues absurdly short certificates cannot make
  the device renew in a loop. A certificate that leaves no room for that interval is not worth taking.
- Back-off doubles, with jitter over the upper half, so that each pause is longer than the one before; it is capped,
  never under one second (AWS IoT Core takes one CONNECT a second for each client id), and counted in the stored
  record, so it survives restarts.

All times are seconds since the epoch, all spans seconds; `draw` is a uniform number in [0, 1).
"""

from dataclasses import dataclass

LAST_USEFUL = 0.9  # of the lifetime: a renewal planned later leaves no time for retries
SHORTEST_RETRY = 1.0
NEVER = 100.0 * 365 * 86400  # an interval that is off: longer than a device lives


@dataclass(frozen=True)
class Policy:
    """The numbers that the rules need; the agent's configuration fills them in."""

    renewal_fraction: float = 2 / 3
    renewal_spread: float = 0.1
    minimum_interval: float = 3600
    retry_base: float = 5
    retry_cap: float = 3600
    prove_attempts: int = 5
    check_in_interval: float = 86400


def latest_renewal(not_before: int, not_after: int) -> float:
    """Say when a renewal must have begun, so that there is still time to retry it."""
    return not_before + LAST_USEFUL * (not_after - not_before)


def worth_taking(not_before: int, not_after: int, now: float, policy: Policy) -> bool:
    """Say whether a fresh certificate lives long enough to be used and renewed without a renewal loop."""
    start = not_before + policy.renewal_fraction * (not_after - not_before)
    return now < start and now + policy.minimum_interval <= latest_renewal(not_before, not_after)


def renewal_instant(not_before: int, not_after: int, now: float, policy: Policy, draw: float) -> int:
    """Draw the instant to renew a certificate that arrives `now` and is `worth_taking`."""
    lifetime = not_after - not_before
    start = not_before + policy.renewal_fraction * lifetime
    drawn = start + draw * policy.renewal_spread * lifetime
    return int(min(max(drawn, now + policy.minimum_interval), latest_renewal(not_before, not_after)))


def backoff(attempt: int, policy: Policy, draw: float) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (1 is the first)."""
    ceiling = min(policy.retry_cap, policy.retry_base * 2.0 ** min(attempt - 1, 60))
    return max(SHORTEST_RETRY, ceiling * (1 + draw) / 2)
