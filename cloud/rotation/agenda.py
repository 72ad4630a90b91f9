"""When the sweeper must look at a record, and what it then decides. Pure.

The sweeper does what no message triggers.

- A look that is due stays due, even if the record is written meanwhile: only the sweeper plans the next one.
- A retirement is finished, and repeated once no run that read an older record can undo it. The same holds for a
  certificate that may register again.
- A certificate that the device has not proven within a day (or half of the certificate's life, if that is less) is
  abandoned: it is retired, and the device asks again with its present one. It is kept while it may be the only one that
  still works: until it expires, if the present one is about to expire, or if a readmitted device asked for it and has
  sent nothing over its present one since.
- The record of a device that an operator has removed is deleted, after what is left of the device elsewhere.
- A readmission that was not used in its time ends.
- A device in the last sixth of its certificate's life is overdue: it is counted about once a day, and once more when
  the certificate has expired.

Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from cloud.rotation.lifecycle import SETTLE_MS, Keep, Save, none_returning, to_retire
from cloud.rotation.record import Entry, State

if TYPE_CHECKING:
    from cloud.rotation.record import Certificate, Device

DAY_MS: Final = 24 * 3600 * 1000

LATE_MS: Final = 3600 * 1000
"""How long a message may be under way: `MaximumEventAgeInSeconds` in template.yaml."""


def next_look(device: Device, now: int) -> int | None:
    """Return when the sweeper is to look at the record; None: not before the record is written again.

    A look that is due at `now` is returned as it is. Any other is later than `now`.
    """
    if device.look_at is not None and device.look_at <= now:
        return device.look_at
    moments = [retiring.since + SETTLE_MS for retiring in device.retiring]
    moments += [returning.since + SETTLE_MS for returning in device.returning]
    if device.pending:
        abandoned = abandoned_at(device.pending)
        waited_for = abandoned > now or _dispensable(device, device.pending, now)
        moments.append(abandoned if waited_for else device.pending.not_after)
    if device.readmit_until is not None:
        moments.append(device.readmit_until)
    if device.removing is not None:
        moments.append(device.removing + SETTLE_MS)
    if device.active:
        moments += _next_count(device, device.active, now)
    if not moments:
        return None
    earliest = min(moments)
    return earliest if earliest > now else now + SETTLE_MS


def _next_count(device: Device, active: Certificate, now: int) -> list[int]:
    overdue = overdue_at(active)
    if now < overdue:
        return [overdue]
    # A write on a device's own message, a check-in, does not put off the look that is planned.
    planned = now + DAY_MS if device.look_at is None else device.look_at
    return [min(planned, now + DAY_MS, active.not_after)] if now < active.not_after else []


def looked_at(device: Device) -> Device:
    """Return the record for the sweeper to write: its next look is planned again."""
    return replace(device, look_at=None)


def abandoned_at(pending: Certificate) -> int:
    """Return when the cloud stops waiting for the device to prove a pending certificate."""
    return pending.issued_at + min(DAY_MS, (pending.not_after - pending.issued_at) // 2)


def overdue_at(active: Certificate) -> int:
    """Return when a device that still has this certificate is overdue."""
    return active.not_after - (active.not_after - active.issued_at) // 6


def decide_sweep(device: Device, now: int) -> Save | Keep:
    """Judge a record that is due. One decision at a time: the sweeper looks again while there is more to decide."""
    if device.pending and now >= abandoned_at(device.pending) and _dispensable(device, device.pending, now):
        return _abandoned(device, device.pending, now)
    if device.readmit_until is not None and now >= device.readmit_until:
        return _readmission_over(device, now)
    return Keep("nothing to decide")


def late(device: Device, now: int) -> Literal["Expiring", "Expired"] | None:
    """Return the metric that counts this device as overdue; None if it is not."""
    if device.active is None or now < overdue_at(device.active):
        return None
    return "Expiring" if now < device.active.not_after else "Expired"


def _dispensable(device: Device, pending: Certificate, now: int) -> bool:
    """Whether the pending certificate is not needed: it has expired, or the present one works for another day."""
    present = device.present_not_after
    asks_again = present is not None and now + DAY_MS < present
    return now >= pending.not_after or (asks_again and (not pending.recovering or _heard_since(device, pending)))


def _heard_since(device: Device, pending: Certificate) -> bool:
    """Whether the device certainly sent a message over its present certificate after the pending one was issued."""
    return device.last_seen is not None and device.last_seen - pending.issued_at > LATE_MS


def _abandoned(device: Device, pending: Certificate, now: int) -> Save:
    state = State.ROTATION_COMPLETE if device.active else State.THING_CREATED
    rest = replace(device, state=state, pending=None, retiring=to_retire(device, pending.certificate_id, now))
    return Save(rest, Entry("abandoned", "the device never used it; its previous one stays", pending.certificate_id))


def _readmission_over(device: Device, now: int) -> Save:
    """End a readmission. A device that was revoked is revoked again; an unneeded vendor certificate is retired."""
    back = State.REVOKED if device.state is State.ALLOWED else device.state
    vendor = device.vendor_certificate_id
    unneeded = vendor if back is State.REVOKED or device.active else None
    kept = none_returning(device) if unneeded else device  # else it is still all that the device has
    ended = replace(kept, state=back, readmit_until=None, retiring=to_retire(device, unneeded, now))
    return Save(ended, Entry("readmission-over", "its time is over; the device has not used it"))
