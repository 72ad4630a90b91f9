"""What an operator may order for one serial, and what the record is then. Pure; the operator's commands carry it out.

- `allow`: the device of an unknown or quarantined serial may register.
- `revoke`: no certificate of the device is accepted any more.
- `readmit`: until a given time the device may start again with a vendor certificate, the recorded one or a new one.
  This is for a device whose certificate has expired, that was restored from an old backup, or that was revoked by
  mistake.
- `remove`: as `revoke`, and for good: the sweeper then deletes every certificate, the thing and the record.
- `advise`: the device is told, at its next check-in, to renew within a window.

Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloud.rotation.lifecycle import Keep, Save, none_returning, to_retire, to_return
from cloud.rotation.record import NEW, Device, Entry, Retiring, State

if TYPE_CHECKING:
    from cloud.rotation.record import Renewal


class OrderError(ValueError):
    """The order does not apply to this device; the text says why, and which order does."""


def allow(device: Device | None, serial: str, now: int, by: str | None = None) -> Save | Keep:
    """Put a serial on the allow-list; its quarantined vendor certificates may register again."""
    if device is None:
        return Save(Device(serial, State.ALLOWED, NEW, allowed_at=now), Entry("allowed", "it may register", by=by))
    _stays(device)
    if device.state is State.REVOKED:
        raise OrderError("it is revoked: readmit it instead")
    if device.state is not State.QUARANTINED:
        return Keep(f"known already, {device.state}")
    latest = device.quarantined[-1] if device.quarantined else None
    returning = to_return(device.quarantined, now)
    freed = replace(device, state=State.ALLOWED, allowed_at=now, quarantined=(), returning=returning)
    return Save(freed, Entry("allowed", "out of quarantine", latest, by))


def revoke(device: Device, now: int, by: str | None = None) -> Save | Keep:
    """Take a device out of service; each of its certificates is to be retired."""
    if device.state is State.REVOKED:
        return Keep("revoked already")
    if device.state is State.QUARANTINED:
        raise OrderError("it was never allowed: it is quarantined, and none of its certificates is accepted")
    held = [certificate.certificate_id for certificate in (device.pending, device.active) if certificate]
    revoked = none_returning(device)
    for certificate_id in (*held, device.vendor_certificate_id):
        revoked = replace(revoked, retiring=to_retire(revoked, certificate_id, now))
    revoked = replace(revoked, state=State.REVOKED, active=None, pending=None, renew=None, readmit_until=None)
    names = ", ".join(name[:16] for name in held)
    detail = f"certificates retired: {names}" if held else "it had no certificate to retire"
    return Save(revoked, Entry("revoked", detail, by=by))


def remove(device: Device, now: int, by: str | None = None) -> Save | Keep:
    """Take a device out of service, and note that all of it is to be deleted."""
    if device.removing is not None:
        return Keep(f"being removed since {_date(device.removing)}")
    held = [certificate.certificate_id for certificate in (device.pending, device.active) if certificate]
    ours = (*held, *(one.certificate_id for one in device.retiring if not one.vendor))
    vendors = [device.vendor_certificate_id] if device.vendor_certificate_id else []
    vendors += [one.certificate_id for one in device.retiring if one.vendor]
    vendors += [*(one.certificate_id for one in device.returning), *device.quarantined]
    leaving = (
        *(Retiring(one, now) for one in ours),
        *(Retiring(one, now, vendor=True) for one in dict.fromkeys(vendors)),
    )
    left = Device(device.serial, State.REVOKED, device.version, retiring=leaving, removing=now)
    detail = f"certificates out of service: {len(leaving)}; the sweeper deletes them, its thing and its record"
    return Save(left, Entry("removed", detail, by=by))


def _stays(device: Device) -> None:
    if device.removing is not None:
        raise OrderError("it is being removed: allow it when its record is gone, about ten minutes after that order")


def readmit(device: Device, now: int, until: int, by: str | None = None) -> Save:
    """Let a device start again with a vendor certificate until `until`.

    Its recorded vendor certificate may register again, and so may those that are quarantined or to be retired.
    """
    _stays(device)
    if device.state is State.QUARANTINED:
        raise OrderError("it was never allowed: allow it instead")
    if device.state is State.ALLOWED and device.readmit_until is None:
        raise OrderError("it has not registered yet, so it needs no readmission: any vendor certificate may register")
    vendors = [device.vendor_certificate_id] if device.vendor_certificate_id else []
    vendors += [one.certificate_id for one in device.retiring if one.vendor]
    vendors += [one.certificate_id for one in device.returning]
    returned = replace(
        device,
        state=State.ALLOWED if device.state is State.REVOKED else device.state,
        readmit_until=until,
        quarantined=(),
        returning=to_return((*vendors, *device.quarantined), now),
        retiring=tuple(one for one in device.retiring if not one.vendor),
    )
    detail = f"it may start again with a vendor certificate until {_date(until)}"
    return Save(returned, Entry("readmitted", detail, by=by))


def advise(device: Device, advice: Renewal, by: str | None = None) -> Save:
    """Record that the device is to be told to renew within a window, in place of any advice before."""
    if device.active is None:
        raise OrderError(f"it has no certificate to renew: it is {device.state}")
    detail = f"to renew between {_date(advice.start)} and {_date(advice.end)}: {advice.reason}"
    return Save(replace(device, renew=advice), Entry("advised", detail, by=by))


def _date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
