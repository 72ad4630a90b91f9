"""The command line of iot-fleet: commands, options, and how each value is read."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cloud.common.arguments import add_where, lifetime_s, serial
from cloud.common.version import version
from cloud.rotation.record import State

FLEET_OVERVIEW: Final = """\
Shows and manages the devices of a deployed stack.

  iot-fleet list --overdue                  devices that should have renewed by now
  iot-fleet show SN-0001                    everything known about one device, compared with IoT Core
  iot-fleet forecast --html fleet.html      when certificates expire, and which devices are at risk
  iot-fleet allow SN-0001 SN-0002           allow devices to register
  iot-fleet rotate --all --over 7d          tell every device to renew, spread over a week
  iot-fleet readmit SN-0001 --for 3d        let a device start again that has expired or was restored
  iot-fleet revoke SN-0001                  take a device out of service
  iot-fleet remove SN-0001                  delete a device's certificates, thing and record, for good

Every command takes --json, which prints JSON; every command that changes something takes --dry-run."""

HISTORY: Final = 20
EXIT: Final = "Exit status: 0 success, 1 a problem (its reason is printed), 2 a wrong command line, 130 interrupted."


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the command and its options; like argparse, print help or an error and exit."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="iot-fleet", description=FLEET_OVERVIEW, epilog=EXIT, formatter_class=plain)
    parser.add_argument("--version", action="version", version=f"iot-fleet {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=text, epilog=EXIT, formatter_class=plain)
        made.add_argument("--json", action="store_true", help="print JSON")
        return made

    def changing(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        made = command(name, summary, text)
        made.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
        return made

    _list(command("list", "print one line for each device", LIST))
    show = command("show", "print everything known about one device", SHOW)
    show.add_argument("serial", type=serial, metavar="SERIAL")
    show.add_argument(
        "--history", type=lines, default=HISTORY, metavar="N",
        help="the last N lines of the history; 0 for all, as with --json (default: %(default)s)",
    )  # fmt: skip
    forecast = command("forecast", "show when certificates expire, and which devices are at risk", FORECAST)
    forecast.add_argument("--html", type=Path, metavar="FILE", help="write an HTML page with charts to FILE")
    _some(changing("allow", "allow devices to register", ALLOW))
    _rotate(changing("rotate", "tell devices to renew", ROTATE))
    readmit = changing("readmit", "let a device start again", READMIT)
    _some(readmit)
    readmit.add_argument(
        "--for", dest="duration", type=span_ms, default=span_ms("3d"), metavar="TIME", help="for how long (default: 3d)"
    )
    revoke = changing("revoke", "take devices out of service", REVOKE)
    _some(revoke)
    remove = changing("remove", "delete everything about one device, for good", REMOVE)
    remove.add_argument("serial", type=serial, metavar="SERIAL")
    for asking in (revoke, remove):
        asking.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    for made in commands.choices.values():
        add_where(made)
    return parser.parse_args(words)


LIST = """\
Prints one line for each device: its state, when its certificate expires, when it last sent a message, and notes.
With several options, a device is listed only if it matches all of them. --json prints one JSON object a line."""

SHOW = """\
Prints everything known about one device: its record, its history, and its certificates as the record and as IoT Core
have them. The exit status is 1 if the two differ; each difference comes with what to do. Times are UTC."""

FORECAST = """\
Shows when certificates expire, when they will be renewed, how many renewals that is a second at most, and which devices
are at risk: those whose certificate is in the last sixth of its life, those whose renewal should be done and that have
less than the usual time between two contacts left, and those that are silent for longer than is usual and whose
certificate expires within three times this silence."""

ALLOW = """\
Puts serials on the allow-list. A device that was quarantined because it connected before it was allowed may then
register."""

ROTATE = """\
Tells devices, at their next check-in, to renew within a window of time. The windows are spread evenly over --over, so
that the cloud never serves all renewals at once. --issuer is for the change to another CA: it takes the common name of
the old CA, and selects every device whose certificate that CA issued."""

READMIT = """\
Lets a device start again with a vendor certificate: the one it has, if that has not expired, or a new one (made by
cloud/setup.sh device SERIAL --force). For a device whose certificate has expired, whose disk was restored from an old
copy, or that was revoked by mistake. Its active certificate stays in service until the device has proven the next."""

REVOKE = """\
Takes devices out of service immediately: none of their certificates is accepted any more. Open sessions end within a
few minutes. iot-fleet readmit reverses this."""

REMOVE = """\
Deletes everything about one device, for good: its certificates, also the vendor certificate, its thing and its record.
Its history stays. It is out of service immediately; what is left is deleted within ten minutes, when no message of the
device can still be under way. If the device connects again, it is one that nobody allowed."""


def _list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        action="append",
        type=state,
        default=[],
        metavar="STATE",
        help=f"one of {', '.join(State)}; may be given several times",
    )
    parser.add_argument(
        "--expiring-within",
        type=span_ms,
        metavar="TIME",
        help="certificates that expire within TIME (30d, 12h) or have expired",
    )
    parser.add_argument(
        "--not-seen-for", type=span_ms, metavar="TIME", help="devices in service that have sent nothing for TIME"
    )
    parser.add_argument(
        "--overdue", action="store_true", help="devices in the last sixth of their certificate's life, and expired ones"
    )
    parser.add_argument("--issuer", metavar="NAME", help="certificates issued by the CA with this common name")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="serials that begin with TEXT")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N devices")


def _some(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("serials", type=serial, nargs="*", metavar="SERIAL")
    parser.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        help="a file with one serial a line, or a CSV with a column serial (- is standard input)",
    )


def _rotate(parser: argparse.ArgumentParser) -> None:
    _some(parser)
    parser.add_argument(
        "--issuer", metavar="NAME", help="every device whose certificate was issued by the CA with this common name"
    )
    parser.add_argument("--all", action="store_true", help="every device that has a certificate")
    parser.add_argument(
        "--over",
        type=span_ms,
        default=span_ms("24h"),
        metavar="TIME",
        help="spread the renewals over TIME (default: 24h)",
    )
    parser.add_argument(
        "--start",
        type=moment_ms,
        metavar="TIME",
        help="when the first may begin, for example 2027-01-31T08:00, UTC (default: now)",
    )
    parser.add_argument(
        "--reason",
        default="an operator asked for it",
        metavar="TEXT",
        help="the reason that the device is given (default: %(default)s)",
    )


def lines(text: str) -> int:
    """Return a number of lines."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return int(text)


def span_ms(text: str) -> int:
    """Return the milliseconds of `30d`, `12h`, `30m` or `20s`."""
    return lifetime_s(text) * 1000


def moment_ms(text: str) -> int:
    """Return an ISO 8601 time as milliseconds since 1970; without an offset it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2027-01-31T08:00") from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


def state(text: str) -> State:
    """Return the state of this name, in upper or lower case."""
    try:
        return State(re.sub("[- ]", "_", text.upper()))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(State)}") from error
