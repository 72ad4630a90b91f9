"""One device in one line, and which devices an operator wants to see. Pure. Times are ms since 1970, UTC."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from cloud.fleet import formatting
from cloud.rotation.agenda import overdue_at
from cloud.rotation.record import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloud.rotation.record import Device, Renewal

HEADING = ("SERIAL", "STATE", "EXPIRES (UTC)", "EXPIRES IN", "LAST SEEN", "NOTES")


@dataclass(frozen=True)
class Wanted:
    """Which devices to list: those that match every field that is set."""

    states: frozenset[State] = frozenset()
    prefix: str = ""
    expiring_within: int | None = None
    not_seen_for: int | None = None
    overdue: bool = False
    issuer: str | None = None

    def matches(self, device: Device, now: int) -> bool:
        """Whether the device matches."""
        active = device.active
        left = None if active is None else active.not_after - now
        unseen = now - (device.last_seen or 0)
        return all(
            (
                not self.states or device.state in self.states,
                device.serial.startswith(self.prefix),
                self.expiring_within is None or (left is not None and left <= self.expiring_within),
                self.not_seen_for is None or (active is not None and unseen >= self.not_seen_for),
                not self.overdue or (active is not None and now >= overdue_at(active)),
                self.issuer is None or (active is not None and issuer_of(active.pem) == self.issuer),
            )
        )


def issuer_of(pem: str) -> str:
    """Return the common name of the CA that issued a certificate."""
    names = x509.load_pem_x509_certificate(pem.encode()).issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def issuers(devices: Iterable[Device]) -> str:
    """Return the common names of the CAs that issued the devices' certificates, for an error message."""
    names = {issuer_of(device.active.pem) for device in devices if device.active}
    return ", ".join(f'"{name}"' for name in sorted(names)) or "no CA: no device has a certificate"


def notes(device: Device, now: int) -> list[str]:
    """Return what an operator should also know."""
    found = []
    if device.active and now >= device.active.not_after:
        found.append("EXPIRED: readmit the device")
    elif device.active and now >= overdue_at(device.active):
        found.append("overdue")
    if device.pending:
        found.append(f"has a new certificate, not proven for {formatting.span(now - device.pending.issued_at)}")
    if device.state is State.QUARANTINED:
        found.append("quarantined: allow it if it is yours")
    if device.readmit_until is not None:
        found.append(f"readmitted until {formatting.moment(device.readmit_until)} UTC")
    if device.renew:
        found.append(f"told to renew by {formatting.moment(device.renew.end)} UTC")
    if device.returning:
        found.append(f"{len(device.returning)} may register again")
    if device.removing is not None:
        found.append(f"being removed since {formatting.moment(device.removing)} UTC")
    if device.retiring:
        found.append(f"{len(device.retiring)} being retired")
    return found


def row(device: Device, now: int) -> tuple[str, ...]:
    """Return the line of a device; its columns are those of HEADING."""
    expires = device.active.not_after if device.active else None
    return (
        device.serial,
        device.state.value,
        formatting.moment(expires)[:10],
        formatting.ahead(expires, now),
        formatting.ago(device.last_seen, now),
        "; ".join(notes(device, now)),
    )


def _report(device: Device) -> dict[str, Any]:
    """Return what the device said of itself at its last check-in; nothing if that cannot be read."""
    try:
        told = json.loads(device.report or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def window(advice: Renewal | None) -> dict[str, Any] | None:
    """Return the window that a device is told to renew in, as a JSON object."""
    if advice is None:
        return None
    return formatting.with_iso({"start": advice.start, "end": advice.end, "reason": advice.reason}, "start", "end")


def as_json(device: Device, now: int) -> dict[str, Any]:
    """Return a device as a JSON object."""
    fields = {
        "serial": device.serial,
        "state": device.state.value,
        "certificate_id": device.active.certificate_id if device.active else None,
        "issued_at": device.active.issued_at if device.active else None,
        "expires_at": device.active.not_after if device.active else None,
        "pending_certificate_id": device.pending.certificate_id if device.pending else None,
        "vendor_certificate_id": device.vendor_certificate_id,
        "quarantined_certificate_ids": list(device.quarantined),
        "returning_certificate_ids": [one.certificate_id for one in device.returning],
        "allowed_at": device.allowed_at,
        "last_seen": device.last_seen,
        "readmit_until": device.readmit_until,
        "removing_since": device.removing,
        "issuer": issuer_of(device.active.pem) if device.active else None,
        "renew": window(device.renew),
        "agent_version": (reported := _report(device)).get("version"),
        "report": reported or None,
        "notes": notes(device, now),
    }
    return formatting.with_iso(
        fields, "issued_at", "expires_at", "allowed_at", "last_seen", "readmit_until", "removing_since"
    )
