"""Brings the record up to date with the disk. Pure; the cycle applies it at boot and after each failure.

A record may be older than the disk: the power failed after a certificate was stored, a damaged record was replaced by
the one before, or a backup was restored. Then

- a certificate that is stored for the pending key is used, and not requested again: the cloud may have committed to it;
- a complete identity that the record does not know is kept as unconfirmed, and gets its turn (`fallback`);
- a directory without a certificate was left by a crash, and is removed;
- if the active identity is no longer complete, a check-in is due now, so that the failure is noticed;
- a record that is lost is rebuilt from the identities: the one that `current` names is active, else the newest.
"""

from dataclasses import dataclass, replace

from iot_agent.core.lifecycle import MOST_TO_DELETE, MOST_UNCONFIRMED, ApplyContext, note
from iot_agent.core.record import Certificate, Identity, Record, State
from iot_agent.core.schedule import renewal_instant


@dataclass(frozen=True)
class OnDisk:
    """The identities that are complete, the labels of those that have no certificate, and the one `current` names."""

    complete: tuple[Identity, ...]
    orphans: frozenset[str]
    current: str | None


def reconcile(record: Record, disk: OnDisk, context: ApplyContext) -> Record:
    """Give the record that agrees with the disk: the same one, if it is up to date."""
    record = _take_up_stored(record, disk, context)
    record = _keep_unknown(record, disk, context)
    left = sorted(disk.orphans - record.protected_labels - set(record.to_delete))
    record = replace(record, to_delete=(*record.to_delete, *left)[-MOST_TO_DELETE:])
    if record.active is not None and record.active.label not in {identity.label for identity in disk.complete}:
        record = replace(record, check_in_at=0)
    return record


def rebuild(serial: str, disk: OnDisk) -> Record:
    """Make a record from the disk alone; `reconcile` adds the other identities."""
    newest_last = _by_age(disk.complete)
    active = next((one for one in newest_last if one.label == disk.current), newest_last[-1] if newest_last else None)
    return Record(serial, State.UNPROVISIONED if active is None else State.ACKED, active=active)


def _take_up_stored(record: Record, disk: OnDisk, context: ApplyContext) -> Record:
    pending = record.pending
    if pending is None or pending.certificate is not None or record.state not in (State.JITP, State.ACKED):
        return record
    stored = next((identity for identity in disk.complete if identity.label == pending.label), None)
    if stored is None:
        return record
    found = replace(pending, generated=True, certificate=_with_instant(stored.certificate, context))
    record = replace(record, state=State.ROTATED, pending=found, proof_failures=0, problem="", failures=0, fallbacks=0)
    return note(record, context.now, "found-on-disk", stored.certificate.certificate_id)


def _keep_unknown(record: Record, disk: OnDisk, context: ApplyContext) -> Record:
    known = record.protected_labels | set(record.to_delete)
    room = MOST_UNCONFIRMED - len(record.unconfirmed)
    unknown = [identity for identity in _by_age(disk.complete) if identity.label not in known]
    for identity in unknown[-room:] if room > 0 else ():
        kept = replace(identity, certificate=_with_instant(identity.certificate, context))
        record = replace(record, unconfirmed=_by_age((*record.unconfirmed, kept)))
        record = note(record, context.now, "found-on-disk", identity.certificate.certificate_id)
    if record.active is not None and not record.active.certificate.renew_at:
        certificate = _with_instant(record.active.certificate, context)
        record = replace(record, active=replace(record.active, certificate=certificate))
    return record


def _with_instant(certificate: Certificate, context: ApplyContext) -> Certificate:
    """Draw the renewal instant of a certificate that was stored before it was drawn."""
    if certificate.renew_at:
        return certificate
    start, end = certificate.not_before, certificate.not_after
    return replace(certificate, renew_at=renewal_instant(start, end, context.now, context.policy, context.jitter))


def _by_age(identities: tuple[Identity, ...]) -> tuple[Identity, ...]:
    """Order by the cloud's clock, the oldest first; a label has the time of the device, which may be wrong."""
    return tuple(sorted(identities, key=lambda identity: (identity.certificate.not_before, identity.label)))
