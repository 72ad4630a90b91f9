"""Carries out what an operator orders for one serial: the rules decide, the record is written, the registry changed.

The record first: it says what is to be done, so an order that stops anywhere is finished by the sweeper, or by the same
order again. A dry run decides and does nothing.
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
    """What an order may touch, and in whose name (`by`, an ARN); `clock` tells ms since 1970."""

    devices: Devices
    registry: Registry
    clock: Callable[[], int]
    by: str | None = None
    dry_run: bool = False


@steps.again_on_conflict
def allow(office: OperatorContext, serial: str) -> Save | Keep:
    """Put a serial on the allow-list; one out of quarantine may register anew. Raises OrderError."""
    device = office.devices.get(serial)
    decision = operator_rules.allow(device, serial, office.clock(), office.by)
    _write(office, decision)
    if device and device.state in (State.QUARANTINED, State.ALLOWED):
        _finish(office, serial)
    return decision


@steps.again_on_conflict
def revoke(office: OperatorContext, serial: str) -> Save | Keep:
    """Take a device out of service at once; raises OrderError."""
    decision = operator_rules.revoke(_known(office, serial), office.clock(), office.by)
    _write(office, decision)
    _finish(office, serial)
    return decision


@steps.again_on_conflict
def readmit(office: OperatorContext, serial: str, duration_ms: int) -> Save:
    """Let a device start again with a vendor certificate for that time; raises OrderError."""
    now = office.clock()
    decision = operator_rules.readmit(_known(office, serial), now, now + duration_ms, office.by)
    _write(office, decision)
    _finish(office, serial)
    return decision


@steps.again_on_conflict
def advise(office: OperatorContext, serial: str, advice: Renewal) -> Save:
    """Have a device told to renew within a window; raises OrderError."""
    decision = operator_rules.advise(_known(office, serial), advice, office.by)
    _write(office, decision)
    return decision


def _known(office: OperatorContext, serial: str) -> Device:
    device = office.devices.get(serial)
    if device is None:
        raise OrderError("no such serial is known here: allow it first")
    return device


def _write(office: OperatorContext, decision: Save | Keep) -> None:
    if isinstance(decision, Save) and not office.dry_run:
        office.devices.save(decision.device, office.clock(), decision.entry)


def _finish(office: OperatorContext, serial: str) -> None:
    """Do what the record now says is to be done; whatever stops it here, the sweeper does the rest."""
    if not office.dry_run:
        steps.finish(office, serial, ordered=True)
