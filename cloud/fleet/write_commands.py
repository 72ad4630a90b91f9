"""The commands that change something. A device that fails does not stop the others."""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from cloud.common import operations
from cloud.common.errors import SetupError
from cloud.common.operator_input import confirmed, listed_serials
from cloud.common.progress import shown
from cloud.fleet import formatting, listing, rollout
from cloud.fleet.connect import reach
from cloud.fleet.examine import of_the_thing
from cloud.fleet.inspection import roles
from cloud.rotation.devices import ConflictError
from cloud.rotation.lifecycle import Save
from cloud.rotation.operator_rules import OrderError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from cloud.common.operations import OperatorContext
    from cloud.rotation.lifecycle import Keep

FEW: Final = 20
"""Up to so many devices are named in a question, and no progress bar is shown."""


def allow(options: argparse.Namespace) -> int:
    """Allow serials."""
    office = reach(options).office
    return _each(options, _serials(options), partial(operations.allow, office))


def readmit(options: argparse.Namespace) -> int:
    """Readmit devices."""
    office = reach(options).office
    return _each(options, _serials(options), lambda serial: operations.readmit(office, serial, options.duration))


def revoke(options: argparse.Namespace) -> int:
    """Ask, and revoke devices."""
    serials = _serials(options)
    office = reach(options).office
    named = ", ".join(serials[:FEW]) + (f" and {len(serials) - FEW} more" if len(serials) > FEW else "")
    if not (options.yes or options.dry_run or confirmed(f"Take {named} out of service now?")):
        raise SetupError("nothing was done")
    return _each(options, serials, partial(operations.revoke, office))


def remove(options: argparse.Namespace) -> int:
    """Ask, and remove one device."""
    here, serial = reach(options), options.serial
    device = here.office.devices.get(serial)
    unknown = [one for one in of_the_thing(here.iot, serial) if device and one not in roles(device)]
    if unknown:
        raise SetupError(
            f"the thing {serial} also has a certificate that the record does not know: {', '.join(unknown)}",
            f"iot-fleet show {serial} says what to do with it; then remove the device",
        )
    question = f"Delete the certificates, the thing and the record of {serial} for good?"
    if device and not (options.yes or options.dry_run or confirmed(question)):
        raise SetupError("nothing was done")
    return _each(options, [serial], partial(operations.remove, here.office))


def rotate(options: argparse.Namespace) -> int:
    """Advise devices to renew, each in its own window."""
    chosen = [bool(options.serials or options.file), bool(options.issuer), options.all]
    if sum(chosen) != 1:
        raise SetupError("no devices are given", "give serials, or --from FILE, or --issuer NAME, or --all")
    office = reach(options).office
    now = office.clock()
    serials = _serials(options) if chosen[0] else list(_with_certificate(office, options.issuer))
    if options.issuer and not serials:
        raise SetupError(
            f'no device has a certificate of a CA named "{options.issuer}"',
            f"give the full name; the certificates here were issued by {listing.issuers(office.devices.scan())}",
        )
    rate = rollout.rate(len(serials), options.over)
    if rate > rollout.MOST_PER_SECOND:
        raise SetupError(
            f"{len(serials)} devices over {formatting.span(options.over)} are {rate:.0f} renewals a second, "
            f"and with more than {rollout.MOST_PER_SECOND:.0f} AWS IoT would refuse some of them",
            f"spread them: --over {rollout.hours_needed(len(serials))}h",
        )
    start = options.start or now

    def advise(serial: str) -> Save | Keep:
        return operations.advise(office, serial, rollout.window(serial, start, options.over, options.reason, now))

    if len(serials) > FEW:
        _say(f"{len(serials)} devices over {formatting.span(options.over)}: {rate * 3600:.1f} renewals an hour")
    return _each(options, serials, advise)


def _each(options: argparse.Namespace, serials: list[str], act: Callable[[str], Save | Keep]) -> int:
    """Call `act` for each serial and print the outcome; go on after a failure."""
    failed, events = 0, Counter[str]()
    # On a terminal the lines that are printed show the progress: a bar among them would be torn.
    with_bar = len(serials) > FEW and not sys.stdout.isatty()
    for serial in shown(serials, "devices") if with_bar else serials:
        outcome: dict[str, Any] = {"serial": serial, "done": False, "dry_run": options.dry_run}
        try:
            decision = act(serial)
        except (OrderError, ConflictError, ClientError, BotoCoreError) as error:
            failed += 1
            outcome["error"] = str(error)
            if not options.json:
                print(f"iot-fleet: {serial}: {error}", file=sys.stderr)
        else:
            outcome |= _told(decision, dry_run=options.dry_run)
            events[outcome["event"] or "unchanged"] += 1
            if not options.json:
                print(f"{serial}  {'would be ' if options.dry_run and outcome['event'] else ''}{_sentence(outcome)}")
        if options.json:
            print(json.dumps(outcome))
    if failed or len(serials) > 1:
        _say(_summary(events, failed, dry_run=options.dry_run))
    return 1 if failed else 0


def _summary(events: Counter[str], failed: int, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    parts = [f"{count} {'' if event == 'unchanged' else would}{event}" for event, count in sorted(events.items())]
    parts += [f"{failed} failed"] if failed else []
    return ", ".join(parts) + ("; this was a dry run: nothing was changed" if dry_run else "")


def _told(decision: Save | Keep, *, dry_run: bool) -> dict[str, Any]:
    if isinstance(decision, Save) and decision.entry:
        told = {"done": not dry_run, "event": decision.entry.event, "detail": decision.entry.detail}
        return told | ({"renew": listing.window(decision.device.renew)} if decision.entry.event == "advised" else {})
    return {"event": None, "detail": getattr(decision, "reason", "")}


def _sentence(outcome: dict[str, Any]) -> str:
    return f"{outcome['event']}: {outcome['detail']}" if outcome["event"] else str(outcome["detail"])


def _serials(options: argparse.Namespace) -> list[str]:
    """Return the serials of the command line or of the list. Raises SetupError."""
    if options.file is None:
        if not options.serials:
            raise SetupError("no devices are given", "give serials, or --from FILE")
        return list(dict.fromkeys(options.serials))
    if options.serials:
        raise SetupError("give serials or --from FILE, not both")
    return [row.serial for row in listed_serials(options.file)]


def _with_certificate(office: OperatorContext, issuer: str | None) -> Iterator[str]:
    wanted, now = listing.Wanted(issuer=issuer), office.clock()
    return (device.serial for device in office.devices.scan() if device.active and wanted.matches(device, now))


def _say(line: str) -> None:
    print(f"iot-fleet: {line}", file=sys.stderr)
