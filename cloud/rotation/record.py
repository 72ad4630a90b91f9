"""The record: what the cloud knows of one serial, and which certificates it has. Pure data.

Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NEW: Final = -1
"""The version of a record that was never written; the first write makes it 0."""


class State(StrEnum):
    """Where a serial stands."""

    ALLOWED = "ALLOWED"
    THING_CREATED = "THING_CREATED"
    CERT_ISSUED = "CERT_ISSUED"
    ROTATION_COMPLETE = "ROTATION_COMPLETE"
    QUARANTINED = "QUARANTINED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate this stack issued: ids are lower-case hex SHA-256 of the DER certificate and of the DER SPKI.

    `recovering`: a device that had an active one asked for it over a vendor certificate, so it may have nothing else.
    """

    certificate_id: str
    public_key: str
    pem: str
    issued_at: int
    not_after: int
    recovering: bool = False

    def fresh(self, now: int) -> bool:
        """Whether it is worth handing out again: more than a third of its life is left."""
        return self.not_after - now > (self.not_after - self.issued_at) / 3


@dataclass(frozen=True, slots=True)
class Retiring:
    """A certificate to be retired, and since when. An issued one is deleted; the vendor's stays, INACTIVE.

    The vendor CA registers its certificates just in time: a deleted vendor certificate would come back to life on its
    next connection. So it remains as a tombstone without policy or thing. The manufacturer CA does not register
    automatically, so an issued certificate that is deleted is gone for good.
    """

    certificate_id: str
    since: int
    vendor: bool = False


@dataclass(frozen=True, slots=True)
class Returning:
    """A vendor certificate that an operator's order lets register again, and since when it is looked after.

    It is deleted, for its CA registers it just in time when it comes next. A run that was at work when the order came,
    and takes the certificate out of service all the same, is made good as long as it is in the record.
    """

    certificate_id: str
    since: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """An operator's advice, given at `since`, to renew somewhere in this window."""

    start: int
    end: int
    reason: str
    since: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a device's history: what happened, in a word and in a sentence, and by which operator, if by one."""

    event: str
    detail: str
    certificate_id: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """What the cloud knows of one serial; `version` counts its writes.

    `vendor_not_after` is when the vendor certificate expires, None if that is not known. Until `readmit_until` the
    device may start again with a vendor certificate. `quarantined` are vendor certificates of this serial that were
    turned away, the latest last; an operator's order makes them `returning`. `look_at` is when the sweeper is to look
    at it, as last written.
    """

    serial: str
    state: State
    version: int
    allowed_at: int | None = None
    vendor_certificate_id: str | None = None
    vendor_not_after: int | None = None
    active: Certificate | None = None
    pending: Certificate | None = None
    retiring: tuple[Retiring, ...] = ()
    renew: Renewal | None = None
    last_seen: int | None = None
    report: str | None = None
    quarantined: tuple[str, ...] = ()
    returning: tuple[Returning, ...] = ()
    readmit_until: int | None = None
    look_at: int | None = None

    @property
    def present_certificate_id(self) -> str | None:
        """The certificate that may ask for the next one: the active, before there is one the vendor's."""
        return self.active.certificate_id if self.active else self.vendor_certificate_id

    @property
    def present_not_after(self) -> int | None:
        """When the present certificate expires; None if there is none, or it is not known."""
        return self.active.not_after if self.active else self.vendor_not_after

    def readmitted(self, now: int) -> bool:
        """Whether an operator lets the device start again with a vendor certificate."""
        return self.readmit_until is not None and now < self.readmit_until

    def knows(self, certificate_id: str) -> bool:
        """Whether this is a certificate of the record, whatever it is to the device."""
        leaving = {one.certificate_id for one in self.retiring}
        coming = {one.certificate_id for one in self.returning}
        vendors = {self.vendor_certificate_id, *self.quarantined, *coming}
        return certificate_id in leaving | vendors or self.holds(certificate_id)

    def holds(self, certificate_id: str) -> bool:
        """Whether this is one of the certificates the device may use now."""
        return any(held.certificate_id == certificate_id for held in (self.pending, self.active) if held)
