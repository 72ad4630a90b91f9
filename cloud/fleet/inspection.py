"""Compares a device's record with IoT Core: what differs, and what to do about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cloud.rotation.record import State

if TYPE_CHECKING:
    from cloud.rotation.record import Device

ORPHANS: Final = "deactivate it; then readmit the device if it has no other certificate, else delete the orphan"


@dataclass(frozen=True)
class Seen:
    """A certificate in the registry: its status (None if it is not registered), policies and things."""

    certificate_id: str
    status: str | None
    policies: tuple[str, ...] = ()
    things: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expected:
    """The policies that an active certificate has, and those that a vendor certificate in service has."""

    device_policies: frozenset[str]
    bootstrap_policies: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Finding:
    """A difference, and what to do about it."""

    certificate_id: str
    problem: str
    remedy: str


def roles(device: Device) -> dict[str, str]:
    """Return the role of each certificate in the record, by certificate id."""
    found = {one.certificate_id: "retiring" for one in device.retiring}
    if device.vendor_certificate_id:
        found.setdefault(device.vendor_certificate_id, "vendor")
    found |= {name: "quarantined" for name in device.quarantined if name not in found}
    found |= {one.certificate_id: "returning" for one in device.returning if one.certificate_id not in found}
    if device.pending:
        found[device.pending.certificate_id] = "pending"
    if device.active:
        found[device.active.certificate_id] = "active"
    return found


def compare(device: Device, seen: list[Seen], expected: Expected) -> list[Finding]:
    """Compare the record with the registry; `seen` are the record's certificates and those attached to the thing."""
    named = roles(device)
    return [finding for one in seen for finding in _judge(device, one, named.get(one.certificate_id), expected)]


def _judge(device: Device, one: Seen, role: str | None, expected: Expected) -> list[Finding]:
    if one.certificate_id in {returning.certificate_id for returning in device.returning}:
        return []  # it may register again; the sweeper looks after it
    in_use = role in ("active", "pending") or (
        role == "vendor" and one.certificate_id == device.present_certificate_id and device.state is not State.REVOKED
    )
    if role is None and one.status is not None:
        found = [(f"{one.status} and attached to the thing, but not in the record: an orphan", ORPHANS)]
    elif role is not None and in_use:
        found = _judge_in_use(device, one, role, expected)
    elif role != "retiring" and one.status == "ACTIVE" and not device.readmit_until:
        found = [(f"{role}, out of service in the record, but ACTIVE in IoT Core", "deactivate it")]
    else:
        found = []  # a retirement is under way, and the sweeper finishes it
    return [Finding(one.certificate_id, problem, remedy) for problem, remedy in found]


def _judge_in_use(device: Device, one: Seen, role: str, expected: Expected) -> list[tuple[str, str]]:
    if one.status is None and role == "vendor" and device.readmit_until:
        return []  # a readmitted device may register it at any time
    if one.status is None:
        return [(f"{role}, but not registered in IoT Core", _recovery(role))]
    if one.status != "ACTIVE":
        return [
            (
                f"{role}, but {one.status} in IoT Core",
                f"if that is not intended, activate it; otherwise {_recovery(role)}",
            )
        ]
    needed = expected.bootstrap_policies if role == "vendor" else expected.device_policies
    missing = sorted(needed - set(one.policies))
    found = [(f"{role}, but without policy {', '.join(missing)}", "attach it")] if missing else []
    if device.serial not in one.things:
        found.append((f"{role}, but not attached to thing {device.serial}", "attach the thing"))
    return found


def _recovery(role: str) -> str:
    return "the device asks again by itself" if role == "pending" else "run iot-fleet readmit: the device starts again"
