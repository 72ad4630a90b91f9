"""The record: what the cloud stores about one serial and its certificates. Pure data.

Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NEW: Final = -1
"""The version of a record that is not written yet; the first write makes it 0."""


class State(StrEnum):
    """The state of a serial."""

    ALLOWED = "ALLOWED"
    THING_CREATED = "THING_CREATED"
    CERT_ISSUED = "CERT_ISSUED"
    ROTATION_COMPLETE = "ROTATION_COMPLETE"
    QUARANTINED = "QUARANTINED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate this stack issued: ids are lower-case hex SHA-256 of the DER certificate and of the DER SPKI.

    `recovering`: a device with an active certificate asked for this one over a vendor certificate, so the device may
    have no other certificate that works.
    """

    certificate_id: str
    public_key: str
    pem: str
    issued_at: int
    not_after: int
    recovering: bool = False

    def fresh(self, now: int) -> bool:
        """Whether more than a third of its life is left, so that it can be handed out again."""
        return self.not_after - now > (self.not_after - self.issued_at) / 3


@dataclass(frozen=True, slots=True)
class Retiring:
    """A certificate to be retired, and since when. An issued one is deleted; a vendor certificate stays, INACTIVE.

    AWS IoT registers the vendor CA's certificates just in time: a deleted vendor certificate would be registered again
    when the device next connects. So it stays registered, INACTIVE, without policy or thing. AWS IoT does not register
    the manufacturer CA's certificates by itself, so an issued certificate that is deleted cannot be used again.
    """

    certificate_id: str
    since: int
    vendor: bool = False


@dataclass(frozen=True, slots=True)
class Returning:
    """A vendor certificate that may register again because of an operator's order, and since when.

    It is deleted from the registry, because AWS IoT registers it just in time when the device next connects. A run that
    read the record before the order may still take it out of service; as long as it is in the record, that is repaired.
    """

    certificate_id: str
    since: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """An operator's advice, given at `since`, to renew within this window."""

    start: int
    end: int
    reason: str
    since: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a device's history: `event` in a word, `detail` in a sentence, and `by` which operator, if any."""

    event: str
    detail: str
    certificate_id: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """What the cloud stores about one serial; `version` counts its writes.

    `vendor_not_after` is when the vendor certificate expires, None if that is not known. Until `readmit_until` the
    device may start again with a vendor certificate. `quarantined` are vendor certificates of this serial that were
    refused and taken out of service, the latest last; an operator's order makes them `returning`. `removing` is when an
    operator ordered to remove the device for good: then the sweeper deletes this record. `look_at` is when the sweeper
    is to look at the record, as last written.
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
    removing: int | None = None
    look_at: int | None = None

    @property
    def present_certificate_id(self) -> str | None:
        """The certificate that may ask for the next one: the active one, or the vendor certificate if there is none."""
        return self.active.certificate_id if self.active else self.vendor_certificate_id

    @property
    def present_not_after(self) -> int | None:
        """When the present certificate expires; None if there is none, or if that is not known."""
        return self.active.not_after if self.active else self.vendor_not_after

    def readmitted(self, now: int) -> bool:
        """Whether the device may start again with a vendor certificate now."""
        return self.readmit_until is not None and now < self.readmit_until

    def certificate_ids(self) -> set[str]:
        """Return every certificate in the record, in any role."""
        leaving = {one.certificate_id for one in self.retiring}
        coming = {one.certificate_id for one in self.returning}
        issued = {held.certificate_id for held in (self.pending, self.active) if held}
        vendors = {self.vendor_certificate_id} if self.vendor_certificate_id else set()
        return {*leaving, *coming, *issued, *vendors, *self.quarantined}

    def knows(self, certificate_id: str) -> bool:
        """Whether this certificate is in the record, in any role."""
        return certificate_id in self.certificate_ids()

    def holds(self, certificate_id: str) -> bool:
        """Whether this is one of the certificates the device may use now."""
        return any(held.certificate_id == certificate_id for held in (self.pending, self.active) if held)
