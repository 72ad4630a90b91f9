"""Arguments that several commands share: which stack, a serial, a span of time. Each value is understood once."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cloud.rotation.messages import SERIAL

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHORTEST_S = 10
LONGEST_S = 3652 * 86400  # as long as a CA made here; far longer ones would end after the year 9999
STACK = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,99}")


def add_where(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that say which stack is meant, and return their group."""
    where = parser.add_argument_group("where")
    where.add_argument("--stack", type=stack, default="iot-agent", metavar="NAME", help="(default: %(default)s)")
    where.add_argument("--region", help="AWS region (default: that of your AWS configuration)")
    where.add_argument("--local", type=Path, metavar="DIR", help="use the local cloud running in DIR, not AWS")
    return where


def lifetime_s(text: str) -> int:
    """Seconds of `90d`, `12h`, `30m` or `20s`; a bare number is refused, for nobody knows which unit was meant."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * UNITS_S[match[2]] if match else 0
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time from 10s to 3652d; write it with its unit, as 90d, 12h, 30m or 20s"
        )
    return seconds


def serial(text: str) -> str:
    """Return a device's serial number: it is a thing's name, a common name and part of topics."""
    return matching(SERIAL, text, "1 to 64 letters, digits, ':', '_' or '-'")


def stack(text: str) -> str:
    """Return a CloudFormation stack's name."""
    return matching(STACK, text, "a letter, then up to 99 letters, digits or '-'")


def matching(pattern: re.Pattern[str], text: str, allowed: str) -> str:
    """Return the text if all of it matches; `allowed` says what would."""
    if not pattern.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed here: {allowed}")
    return text
