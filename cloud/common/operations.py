"""Carries out an operator's order for one serial: the rules decide, the record is written, the registry is changed.

The record is written first and says what is to be done. So an order that stops anywhere is finished by the sweeper, or
by the same order given again. A dry run decides, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud.rotation import operator_rules, steps
from cloud.rotation.lifecycle import Keep, Save
from cloud.rotation.operator_rules import OrderError
from cloud.rotation.record import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud.rotation.devices import Devices
    from cloud.rotation.record import Device, Renewal
    from cloud.rotation.registry import Registry


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """What an order reads and changes, and the caller's ARN (`by`); `clock` returns ms since 1970."""

    devices: Devices
    registry: Registry
    clock: Callable[[], int]
    by: str | None = None
    dry_run: bool = False


@steps.again_on_conflict
def allow(office: OperatorContext, serial: str) -> Save | Keep:
    """Put a serial on the allow-list; a quarantined one may register again. Raises OrderError."""
    device = office.devices.get(serial)
    decision = operator_rules.allow(device, serial, office.clock(), office.by)
    _write(office, decision)
    if device and device.state in (State.QUARANTINED, State.ALLOWED):
        _finish(office, serial)
    return decision


@steps.again_on_conflict
def revoke(office: OperatorContext, serial: str) -> Save | Keep:
    """Take a device out of service immediately. Raises OrderError."""
    decision = operator_rules.revoke(_known(office, serial), office.clock(), office.by)
    _write(office, decision)
    _finish(office, serial)
    return decision


@steps.again_on_conflict
def remove(office: OperatorContext, serial: str) -> Save | Keep:
    """Take a device out of service immediately; the sweeper then deletes all of it. Raises OrderError."""
    decision = operator_rules.remove(_known(office, serial), office.clock(), office.by)
    _write(office, decision)
    _finish(office, serial)
    return decision


@steps.again_on_conflict
def readmit(office: OperatorContext, serial: str, duration_ms: int) -> Save:
    """Let a device start again with a vendor certificate for `duration_ms`. Raises OrderError."""
    now = office.clock()
    decision = operator_rules.readmit(_known(office, serial), now, now + duration_ms, office.by)
    _write(office, decision)
    _finish(office, serial)
    return decision


@steps.again_on_conflict
def advise(office: OperatorContext, serial: str, advice: Renewal) -> Save:
    """Record that the device is to be told to renew within a window. Raises OrderError."""
    decision = operator_rules.advise(_known(office, serial), advice, office.by)
    _write(office, decision)
    return decision


def _known(office: OperatorContext, serial: str) -> Device:
    device = office.devices.get(serial)
    if device is None:
        raise OrderError("the serial has no record: allow it first")
    return device


def _write(office: OperatorContext, decision: Save | Keep) -> None:
    if isinstance(decision, Save) and not office.dry_run:
        office.devices.save(decision.device, office.clock(), decision.entry)


def _finish(office: OperatorContext, serial: str) -> None:
    """Do what the record says is to be done; if this is interrupted, the sweeper does the rest."""
    if not office.dry_run:
        steps.finish(office, serial, ordered=True)
