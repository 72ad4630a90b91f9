"""The commands that change nothing: list, show, forecast."""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Final

from cloud.common.errors import SetupError
from cloud.fleet import forecast as forecasts
from cloud.fleet import formatting, html_report, listing
from cloud.fleet.connect import reach
from cloud.fleet.examine import examine

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

LINES_AT_ONCE: Final = 500
"""Lines that are aligned and printed together: a long list is printed while it is read, and is not held in memory."""


def list_devices(options: argparse.Namespace) -> int:
    """Print one line for each device that matches, while the table is read."""
    wanted = listing.Wanted(
        frozenset(options.state),
        options.prefix,
        options.expiring_within,
        options.not_seen_for,
        options.overdue,
        options.issuer,
    )
    here = reach(options)
    office, now = here.office, here.office.clock()
    found = (device for device in office.devices.scan() if wanted.matches(device, now))
    lines: list[tuple[str, ...]] = [listing.HEADING]
    count = 0
    for device in found:
        if count == options.limit:
            break
        count += 1
        if options.json:
            print(json.dumps(listing.as_json(device, now)))
            continue
        lines.append(listing.row(device, now))
        if len(lines) == LINES_AT_ONCE:
            _print(lines)
    if not options.json:
        _print(lines)
        print(f"{count} device{'' if count == 1 else 's'}", file=sys.stderr)
    if options.issuer and not count:
        print(f"the certificates here were issued by {listing.issuers(office.devices.scan())}", file=sys.stderr)
    return 0


def _print(lines: list[tuple[str, ...]]) -> None:
    for line in formatting.columns(lines):
        print(line)
    lines.clear()


def show(options: argparse.Namespace) -> int:
    """Print everything known about one device; return 1 if the record and the registry differ."""
    here = reach(options)
    report = examine(here, options.serial)
    if report is None:
        raise SetupError(
            f"{options.serial} has no record in stack {options.stack}", f"allow it: iot-fleet allow {options.serial}"
        )
    now = here.office.clock()
    if options.json:
        print(json.dumps(report.as_json(now), indent=2))
    else:
        print("\n".join(report.lines(now, options.history)))
    return 1 if report.findings else 0


def _check_writable(page: Path) -> None:
    """Raise SetupError if the page cannot be written: reading the table of a large fleet takes minutes."""
    if page.is_dir() or not os.access(page if page.exists() else page.parent, os.W_OK):
        raise SetupError(f"cannot write {page}", "give a file in a directory that exists and that you may write to")


def forecast(options: argparse.Namespace) -> int:
    """Print the forecast, or write it as an HTML page."""
    if options.html:
        _check_writable(options.html)
    office = reach(options).office
    made = forecasts.make(office.devices.scan(), office.clock())
    if options.html:
        options.html.write_text(html_report.render(made, f"Fleet of {options.stack}"), encoding="utf-8")
        print(f"written: {options.html}", file=sys.stderr)
    if options.json:
        print(json.dumps(made.as_json(), indent=2))
    elif not options.html:
        print("\n".join(forecasts.lines(made)))
    return 0
