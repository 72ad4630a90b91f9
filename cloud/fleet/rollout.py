"""The renewal of many devices, spread evenly over a span of time. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from cloud.rotation.record import Renewal

SLICES: Final = 96

QUOTA_PER_SECOND: Final = 10.0
"""Certificates that AWS IoT registers in a second, for the whole account; a renewal deletes one as well, under a quota
of the same size (AWS General Reference, "AWS IoT Core endpoints and quotas")."""

MOST_PER_SECOND: Final = QUOTA_PER_SECOND / 2
"""Half of the quota leaves room for devices that register meanwhile."""


def window(serial: str, start: int, over: int, reason: str, now: int) -> Renewal:
    """Return the window of a device: always the same slice of the span for the same serial (ms)."""
    number = int.from_bytes(hashlib.sha256(serial.encode()).digest()[:4]) % SLICES
    return Renewal(start + over * number // SLICES, start + over * (number + 1) // SLICES, reason, now)


def rate(devices: int, over: int) -> float:
    """Return renewals per second when `devices` are spread over `over` ms."""
    return devices / max(over / 1000, 1.0)


def hours_needed(devices: int) -> int:
    """Return the smallest number of hours over which so many devices may be spread."""
    return -(-devices // int(MOST_PER_SECOND * 3600))
