"""The rules of the cloud's half of a rotation. No clock, network or log: time and facts are arguments.

- A serial that nobody allowed gets nothing, and the certificate that presents it is quarantined.
- Authority is the certificate a message came over, its *principal*; never what the message says.
- The first certificate is asked for by the recorded vendor certificate, each later one by the active certificate.
- One serial has at most one vendor certificate, one active and one pending certificate.
- The same public key gets the same certificate again, unless that one is in the last third of its life.
- Another public key supersedes an unproven pending certificate, which is then retired.
- Only a message that came **over the pending certificate** makes it active, and only then is the previous retired.
- What is to be retired is in the record before anything is retired, so the next run can finish what this one cannot.
- A vendor certificate that an operator allows to register again stays in the record until it is in service, or gone,
  at a time when no run that read an older record can still be at work.
- A device that an operator removes is revoked first. When no run that read an older record can still be at work, all of
  its certificates, its thing and its record are deleted: then it is a device that nobody allowed.
- A device that an operator has readmitted may ask with a vendor certificate again until the readmission ends: with the
  recorded one or a new one. Its active certificate stays in service until the next certificate is proven.

Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from cloud.rotation.record import NEW, Device, Entry, Retiring, Returning, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cloud.rotation.record import Certificate

SETTLE_MS: Final = 5 * 60 * 1000
"""How long a certificate that is retired, or that may register again, stays in the record. A run of the Lambda that
read an older record may still register the former, or take the latter out of service; until this time has passed, that
is repaired. A run lasts at most as long as the function's timeout (a minute)."""

REMEMBERED: Final = 8
"""How many quarantined vendor certificates a record keeps. No device ever has that many; a serial that has more is
being impersonated."""

TRY_LATER_S: Final = 60
CONFLICT_S: Final = 5

ErrorCode: TypeAlias = Literal["not-allowed", "wrong-principal", "bad-request", "bad-csr", "conflict", "try-later"]


class Event(StrEnum):
    """What can change a record's state. The values are the literals of the stack's topic rules."""

    REGISTERED = "registered"
    CREATE = "create"
    ACK = "ack"
    CHECK_IN = "check-in"


TRANSITIONS: Final = {
    (State.ALLOWED, Event.REGISTERED): State.THING_CREATED,
    (State.THING_CREATED, Event.CREATE): State.CERT_ISSUED,
    (State.CERT_ISSUED, Event.CREATE): State.CERT_ISSUED,
    (State.CERT_ISSUED, Event.ACK): State.ROTATION_COMPLETE,
    (State.ROTATION_COMPLETE, Event.CREATE): State.CERT_ISSUED,
}
"""Every change of state that a message can cause: what is not here is refused. A check-in changes none."""

OUTSIDE: Final = frozenset({State.QUARANTINED, State.REVOKED})
"""States that only an operator ends."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What the registry says of a certificate; `serial` is its one common name, None if that is no valid serial.

    `in_service`: it is not INACTIVE or REVOKED.
    """

    certificate_id: str
    serial: str | None
    by_vendor_ca: bool
    not_after: int
    in_service: bool = True


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse, and say why; the device may ask again after `retry_after_s` seconds, if that is given."""

    code: ErrorCode
    reason: str
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Admit:
    """The principal may have a certificate for this device: `reusable`, or a new one recorded by `with_pending`.

    `device` is the record to go on with. `recovering`: the device has an active certificate, but asks over a vendor
    certificate.
    """

    reason: str
    device: Device
    recovering: bool = False


@dataclass(frozen=True, slots=True)
class Save:
    """Write this record, with this line of history if there is one, then answer."""

    device: Device
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing to write; answer as before."""

    reason: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Take this vendor certificate out of service.

    `record`, if any, is written first. `thing`, if any, bears a serial that is not on the allow-list: it is deleted, if
    this stack made it.
    """

    reason: str
    certificate_id: str
    record: Device | None = None
    thing: str | None = None


def decide_registered(device: Device | None, presented: Presented, now: int) -> Save | Keep | Quarantine:
    """Judge a vendor certificate that has registered itself just in time; `device` is the record of its serial."""
    if not presented.by_vendor_ca:
        return Keep("not a certificate of the vendor CA")
    if presented.serial is None:
        return Quarantine("the certificate names no valid serial", presented.certificate_id)
    if device is None or device.state is State.QUARANTINED:
        return _quarantine_unknown(device, presented.serial, presented.certificate_id)
    if device.state is State.ALLOWED:
        return _vendor_recorded(device, presented, now)
    if device.state is State.REVOKED:
        return _quarantine(device, presented.certificate_id, "the device is revoked")
    return _registered_in_service(device, presented, now)


def _registered_in_service(device: Device, presented: Presented, now: int) -> Save | Keep | Quarantine:
    """Keep the recorded vendor certificate; another one replaces it, if the device is readmitted."""
    known = device.vendor_certificate_id == presented.certificate_id
    if device.readmitted(now):
        return Keep("the vendor certificate is recorded already") if known else _vendor_recorded(device, presented, now)
    if not known:
        return _quarantine(device, presented.certificate_id, "the serial has another vendor certificate")
    if device.active:
        return Quarantine("the device no longer needs its vendor certificate", presented.certificate_id)
    return Keep("the vendor certificate is recorded already")


def needs_inspection(device: Device | None, principal: str, now: int) -> bool:
    """Say whether `decide_create` needs to know whose certificate the principal is, because the record cannot tell."""
    if device is None or device.state in (State.QUARANTINED, State.ALLOWED):
        return True
    return device.readmitted(now) and principal not in (device.present_certificate_id, device.vendor_certificate_id)


def decide_create(
    device: Device | None, serial: str, principal: str, presented: Presented | None, now: int
) -> Refuse | Quarantine | Admit:
    """Decide whether the principal may have a certificate; `presented` is its certificate if `needs_inspection`."""
    vendors = presented if presented and _speaks_for(presented, serial, device) else None
    if device is None or device.state is State.QUARANTINED:
        return _create_not_allowed(device, serial, vendors)
    if device.state is State.ALLOWED:
        return _create_allowed(device, vendors, now)
    if device.state is State.REVOKED:
        return _create_revoked()
    return _create_in_service(device, principal, vendors, now)


def _create_not_allowed(device: Device | None, serial: str, vendors: Presented | None) -> Refuse | Quarantine:
    """Without a record, or in QUARANTINED: issue nothing, and quarantine a vendor certificate of this serial."""
    if vendors:
        return _quarantine_unknown(device, serial, vendors.certificate_id)
    return Refuse("not-allowed", "the serial is not on the allow-list")


def _create_allowed(device: Device, vendors: Presented | None, now: int) -> Refuse | Admit:
    """In ALLOWED: a vendor certificate of this serial may ask, and is recorded as if its registration had come first.

    The request may overtake the event that reports the registration.
    """
    if vendors:
        return Admit("a vendor certificate of an allowed device", _with_vendor(device, vendors, now))
    return Refuse("wrong-principal", "this is not the vendor certificate of this serial")


def _create_in_service(device: Device, principal: str, vendors: Presented | None, now: int) -> Refuse | Admit:
    """In THING_CREATED, CERT_ISSUED, ROTATION_COMPLETE: the present certificate may ask.

    While the device is readmitted, a vendor certificate may ask too: the recorded one or a new one, which replaces it.
    """
    if principal == device.present_certificate_id:
        return Admit("the device's present certificate", device)
    if device.readmitted(now) and principal == device.vendor_certificate_id:
        return Admit("the vendor certificate of a readmitted device", device, device.active is not None)
    if device.readmitted(now) and vendors:
        replaced = _with_vendor(device, vendors, now)
        return Admit("a new vendor certificate of a readmitted device", replaced, device.active is not None)
    return Refuse("wrong-principal", "only the device's present certificate may ask for the next")


def _create_revoked() -> Refuse:
    """In REVOKED: only an operator's readmission lets the device ask again."""
    return Refuse("not-allowed", "the device is REVOKED")


def reusable(device: Device, public_key: str, now: int) -> Certificate | None:
    """Return the pending or active certificate that has this public key, unless it is in the last third of its life."""
    held = (certificate for certificate in (device.pending, device.active) if certificate)
    return next((c for c in held if c.public_key == public_key and c.fresh(now)), None)


def with_pending(device: Device, certificate: Certificate, now: int) -> Save:
    """Return `device` with `certificate` pending; an unproven one before it is to be retired."""
    unproven = device.pending.certificate_id if device.pending else None
    state = TRANSITIONS[device.state, Event.CREATE]
    detail = f"for the key {certificate.public_key[:16]}"
    if unproven:
        detail += f"; {unproven[:16]}, which was never proven, is retired"
    issued = replace(device, state=state, pending=certificate, retiring=to_retire(device, unproven, now))
    return Save(issued, Entry("issued", detail, certificate.certificate_id))


def decide_ack(device: Device | None, principal: str, named: str, now: int) -> Refuse | Save | Keep:
    """Judge an acknowledgement of the certificate `named`: it is believed only if it came over that certificate."""
    if device is None or device.state in OUTSIDE:
        return Refuse("not-allowed", "the device is not in service")
    if named != principal or not device.holds(principal):
        return Refuse("wrong-principal", "an acknowledgement must come over the certificate it acknowledges")
    if device.pending is None or device.pending.certificate_id != principal:
        return Keep("acknowledged already")
    advice = device.renew
    proven = replace(
        device,
        state=TRANSITIONS[device.state, Event.ACK],
        active=device.pending,
        pending=None,
        retiring=to_retire(device, device.present_certificate_id, now),
        renew=None if advice is None or advice.since <= device.pending.issued_at else advice,
        readmit_until=None,
        last_seen=now,
    )
    proven = none_returning(proven)
    if device.readmit_until is not None:  # the vendor certificate was in service once more
        proven = replace(proven, retiring=to_retire(proven, device.vendor_certificate_id, now))
    previous = str(device.present_certificate_id)[:16]
    return Save(proven, Entry("proven", f"the device has used it; {previous} is retired", principal))


def decide_check_in(device: Device | None, principal: str, report: str, now: int) -> Refuse | Save:
    """Judge a device's report about itself, a JSON text."""
    if device is None or device.state in OUTSIDE:
        return Refuse("not-allowed", "the device is not in service")
    if device.active is None or device.active.certificate_id != principal:
        return Refuse("wrong-principal", "a check-in must come over the active certificate")
    return Save(replace(device, last_seen=now, report=report))


def has_settled(one: Retiring | Returning, now: int) -> bool:
    """Whether no run that read an older record can still be at work on this certificate."""
    return now - one.since >= SETTLE_MS


def removable(device: Device, now: int) -> bool:
    """Whether all that is left of a device may be deleted: no run that read its record in service is still at work."""
    return device.removing is not None and now - device.removing >= SETTLE_MS


def left_of(device: Device) -> tuple[str, ...]:
    """Return the certificates of a device that is being removed, with those that it has shown meanwhile."""
    return tuple(dict.fromkeys((*(one.certificate_id for one in device.retiring), *device.quarantined)))


def finished(device: Device, shut_out: Collection[str], now: int) -> Save | Keep:
    """Return `device`, all of whose `retiring` are retired, without what has settled.

    `shut_out` are those of its returning certificates that cannot be used as they are. Each is about to be deleted, and
    stays in the record for another SETTLE_MS: a run that deletes it at the same time may also detach the policies of
    the registration that follows.
    """
    removed = device.removing is not None  # then they are all deleted together, at the end
    retiring = tuple(one for one in device.retiring if removed or not has_settled(one, now))
    returning = tuple(
        replace(one, since=now) if one.certificate_id in shut_out else one
        for one in device.returning
        if one.certificate_id in shut_out or not has_settled(one, now)
    )
    rest = replace(device, retiring=retiring, returning=returning)
    if rest == device:
        return Keep("they are too recent to be taken off the record")
    gone = ", ".join(one.certificate_id[:16] for one in device.retiring if one not in retiring)
    return Save(rest, Entry("retired", gone) if gone else None)


def to_return(certificate_ids: Iterable[str], now: int) -> tuple[Returning, ...]:
    """Return these vendor certificates, each once, as certificates that may register again from now on."""
    return tuple(Returning(certificate_id, now) for certificate_id in dict.fromkeys(certificate_ids))


def none_returning(device: Device) -> Device:
    """Return `device` with no certificate returning any more.

    One that has not been deleted yet is still out of service, so it is recorded as quarantined: a later `allow` or
    `readmit` lets it register again.
    """
    known = {device.vendor_certificate_id, *device.quarantined}
    left = (one.certificate_id for one in device.returning if one.certificate_id not in known)
    return replace(device, quarantined=(*device.quarantined, *left)[-REMEMBERED:], returning=())


def to_retire(device: Device, certificate_id: str | None, now: int) -> tuple[Retiring, ...]:
    """Return the device's `retiring`, with this certificate added, if there is one and it is not there yet."""
    if certificate_id is None or certificate_id in {retiring.certificate_id for retiring in device.retiring}:
        return device.retiring
    return (*device.retiring, Retiring(certificate_id, now, vendor=certificate_id == device.vendor_certificate_id))


def _speaks_for(presented: Presented, serial: str, device: Device | None) -> bool:
    """Whether it is a vendor certificate of the serial, in service and not to be retired."""
    retired = device is not None and presented.certificate_id in {one.certificate_id for one in device.retiring}
    return presented.by_vendor_ca and presented.serial == serial and presented.in_service and not retired


def _vendor_recorded(device: Device, presented: Presented, now: int) -> Save:
    detail = f"the vendor certificate has registered itself and is good until {_date(presented.not_after)}"
    return Save(_with_vendor(device, presented, now), Entry("registered", detail, presented.certificate_id))


def _with_vendor(device: Device, presented: Presented, now: int) -> Device:
    """Record a vendor certificate. A readmitted device keeps its state; its former vendor certificate is retired."""
    came = presented.certificate_id
    replaced = None if device.vendor_certificate_id == came else device.vendor_certificate_id
    return replace(
        device,
        quarantined=tuple(one for one in device.quarantined if one != came),
        returning=tuple(one for one in device.returning if one.certificate_id != replaced),
        state=TRANSITIONS.get((device.state, Event.REGISTERED), device.state),
        vendor_certificate_id=presented.certificate_id,
        vendor_not_after=presented.not_after,
        retiring=to_retire(device, replaced, now),
    )


def _quarantine_unknown(device: Device | None, serial: str, certificate_id: str) -> Quarantine:
    reason, record = "the serial is not on the allow-list", device or Device(serial, State.QUARANTINED, NEW)
    return replace(_quarantine(record, certificate_id, reason), thing=serial)


def _quarantine(device: Device, certificate_id: str, reason: str) -> Quarantine:
    """Quarantine a vendor certificate of this serial, and record it: a later order may let it register again."""
    if certificate_id in device.quarantined:
        return Quarantine(reason, certificate_id)
    remembered = replace(
        device,
        quarantined=(*device.quarantined, certificate_id)[-REMEMBERED:],
        returning=tuple(one for one in device.returning if one.certificate_id != certificate_id),
    )
    return Quarantine(reason, certificate_id, remembered)


def _date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")
