"""Arguments that several commands share: the stack and its cloud, a serial, a span of time."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cloud.rotation.messages import SERIAL

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHORTEST_S = 10
LONGEST_S = 3652 * 86400  # the lifetime of a CA made here; a much longer one would end after the year 9999
STACK = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,99}")


def add_where(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that choose the stack and its cloud, and return their group."""
    where = parser.add_argument_group("where")
    where.add_argument(
        "--stack",
        type=stack,
        default="iot-agent",
        metavar="NAME",
        help="the CloudFormation stack (default: %(default)s)",
    )
    where.add_argument("--profile", metavar="NAME", help="the profile of your AWS configuration (default: its default)")
    cloud = where.add_mutually_exclusive_group()  # a local cloud has one region
    cloud.add_argument("--region", help="the AWS region (default: from your AWS configuration)")
    cloud.add_argument("--local", type=Path, metavar="DIR", help="use the local cloud that runs in DIR, not AWS")
    return where


def lifetime_s(text: str) -> int:
    """Return the seconds of `90d`, `12h`, `30m` or `20s`; a number without a unit is refused as ambiguous."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * UNITS_S[match[2]] if match else 0
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time from 10s to 3652d; write it with a unit: 90d, 12h, 30m, 20s"
        )
    return seconds


def written(seconds: int) -> str:
    """Return a span of time as `lifetime_s` reads it, in the largest unit that gives a whole number: 3600 is `1h`."""
    unit = next(unit for unit in "dhms" if seconds % UNITS_S[unit] == 0)
    return f"{seconds // UNITS_S[unit]}{unit}"


def serial(text: str) -> str:
    """Return a device's serial number, which is also its thing's name, a common name and part of topics."""
    return matching(SERIAL, text, "1 to 64 letters, digits, ':', '_' or '-'")


def stack(text: str) -> str:
    """Return a CloudFormation stack's name."""
    return matching(STACK, text, "a letter, then up to 99 letters, digits or '-'")


def matching(pattern: re.Pattern[str], text: str, allowed: str) -> str:
    """Return the text if all of it matches; `allowed` describes what would match."""
    if not pattern.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: give {allowed}")
    return text
