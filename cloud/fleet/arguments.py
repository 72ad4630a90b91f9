"""The command line: what can be asked for, and each value understood once, here."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cloud.common.arguments import add_where, lifetime_s, serial
from cloud.rotation.record import State

FLEET_OVERVIEW: Final = """\
Sees and steers the fleet of a deployed stack.

  iot-fleet list --overdue                  devices that should have renewed long ago
  iot-fleet show SN-0001                    all that is known of one device, and whether IoT Core agrees
  iot-fleet forecast --html fleet.html      when certificates expire, and which devices may not make it
  iot-fleet allow SN-0001 SN-0002           let devices come aboard
  iot-fleet rotate --all --over 7d          have every device renew, spread over a week
  iot-fleet readmit SN-0001 --for 3d        let a device start again that has expired or was restored
  iot-fleet revoke SN-0001                  take a device out of service

Every command takes --json for a program to read, and every one that changes something --dry-run."""

EXIT: Final = "Exit status: 0 done, 1 a problem, with its reason, 2 a wrong command line, 130 interrupted."


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the command and its options; prints help or what is wrong and exits as argparse does."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="iot-fleet", description=FLEET_OVERVIEW, epilog=EXIT, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=text, epilog=EXIT, formatter_class=plain)
        made.add_argument("--json", action="store_true", help="for a program to read")
        return made

    def changing(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        made = command(name, summary, text)
        made.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        return made

    _list(command("list", "one line for each device", LIST))
    show = command("show", "all that is known of one device", SHOW)
    show.add_argument("serial", type=serial, metavar="SERIAL")
    forecast = command("forecast", "when certificates expire, and who is at risk", FORECAST)
    forecast.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    _some(changing("allow", "let devices come aboard", ALLOW))
    _rotate(changing("rotate", "have devices renew", ROTATE))
    readmit = changing("readmit", "let a device start again", READMIT)
    _some(readmit)
    readmit.add_argument(
        "--for", dest="duration", type=span_ms, default=span_ms("3d"), metavar="TIME", help="how long (default: 3d)"
    )
    revoke = changing("revoke", "take devices out of service", REVOKE)
    _some(revoke)
    revoke.add_argument("--yes", action="store_true", help="do not ask")

    for made in commands.choices.values():
        add_where(made)
    return parser.parse_args(words)


LIST = """\
One line for each device: state, when its certificate expires, when it was last heard of, and what to know besides.
Options narrow it down; all that are given must be so. --json writes one object a line."""

SHOW = """\
All that is known of one device: its record, its history, and its certificates as the record has them and as IoT Core
has them. The exit status is 1 when the two do not agree; each finding comes with what to do."""

FORECAST = """\
When certificates expire, when they renew, and which devices may not make it: those with less time left than three
times the usual time between contacts, and those in the last sixth of their certificate's life."""

ALLOW = """\
Puts serials on the allow-list. One that is quarantined, because it came before it was allowed, may register again."""

ROTATE = """\
Tells devices, at their next check-in, to renew within a window. The windows of many devices are spread evenly over the
span --over, so that neither the cloud nor anything else sees them all at once. --issuer is for the change to another
CA: it gives the old one's common name, and takes every device whose certificate that one has issued."""

READMIT = """\
Lets a device start again with a vendor certificate: its own, if that has not expired, or a new one (made by
cloud/setup.sh device SERIAL --force). For a device whose certificate has expired, whose disk was restored from an old
copy, or that was revoked by mistake. What the device has stays in service until it has proven the next certificate."""

REVOKE = """\
Takes devices out of service at once: none of their certificates is accepted any more. Sessions that are open end within
a few minutes. iot-fleet readmit takes it back."""


def _list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        action="append",
        type=state,
        default=[],
        metavar="STATE",
        help=f"one of {', '.join(State)}; repeatable",
    )
    parser.add_argument("--expiring-within", type=span_ms, metavar="TIME", help="as 30d or 12h; those that have, too")
    parser.add_argument("--not-seen-for", type=span_ms, metavar="TIME", help="in service, and silent for so long")
    parser.add_argument(
        "--overdue", action="store_true", help="in the last sixth of their certificate's life, or past it"
    )
    parser.add_argument("--issuer", metavar="NAME", help="certificates of the CA of this common name")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="serials that begin so")
    parser.add_argument("--limit", type=int, metavar="N", help="no more than so many")


def _some(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("serials", type=serial, nargs="*", metavar="SERIAL")
    parser.add_argument("--from", dest="file", metavar="FILE", help="a list of serials (- is standard input)")


def _rotate(parser: argparse.ArgumentParser) -> None:
    _some(parser)
    parser.add_argument(
        "--issuer", metavar="NAME", help="every device with a certificate of the CA of this common name"
    )
    parser.add_argument("--all", action="store_true", help="every device")
    parser.add_argument(
        "--over", type=span_ms, default=span_ms("24h"), metavar="TIME", help="spread over this span (default: 24h)"
    )
    parser.add_argument("--start", type=moment_ms, metavar="TIME", help="from then on, as 2027-01-31T08:00 UTC (now)")
    parser.add_argument("--reason", default="an operator asked for it", metavar="TEXT", help="told to the device")


def span_ms(text: str) -> int:
    """Milliseconds of `30d`, `12h`, `30m` or `20s`."""
    return lifetime_s(text) * 1000


def moment_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 moment; without an offset it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a moment like 2027-01-31T08:00") from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


def state(text: str) -> State:
    """Return a state, by its name in any case."""
    try:
        return State(re.sub("[- ]", "_", text.upper()))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(State)}") from error
