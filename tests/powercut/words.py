"""Says in words what was found wrong: where the power went, what it left, what the cloud knew, what the disk held."""

import stat
from collections.abc import Sequence
from pathlib import Path

from iot_agent.core.codec import Damaged, decode_record
from iot_agent.core.record import Identity, Pending, Record
from tests.powercut.cuts import Cut, Left
from tests.powercut.moments import Ledger, Moment, what_the_cloud_knew

SECTOR = 512
SHORT = 12  # characters of a certificate's id


def left_in_words(left: Left, cut: Cut) -> str:
    """Say which writes the disk dropped or tore, and which renames are lost."""
    lost = f"; lost are the renames of {_listed([one.path for one in cut.moment.unsynced])}" if cut.forgetful else ""
    if not left.writes:
        return f"after flush {left.flush}, with nothing written since{lost}"
    dropped = [_at(offset, length) for offset, length, kept in left.writes if kept == 0]
    torn = [f"{_at(offset, length)} after {kept} bytes" for offset, length, kept in left.writes if 0 < kept < length]
    return (
        f"after flush {left.flush}; of {len(left.writes)} writes since, the disk kept {cut.way}; "
        f"dropped: {_listed(dropped)}; torn: {_listed(torn)}{lost}"
    )


def _at(offset: int, length: int) -> str:
    first, last = offset // SECTOR, (offset + length - 1) // SECTOR
    return f"sectors {first}-{last}" if last > first else f"sector {first}"


def _listed(things: Sequence[str]) -> str:
    return ", ".join(things) or "none"


def known_in_words(moment: Moment) -> str:
    """Say what the cloud had been told."""
    device, listed = what_the_cloud_knew(moment.told)
    certificates = _listed([f"{name[:SHORT]} {entry.status}" for name, entry in listed.items()])
    in_force = device.active.certificate_id[:SHORT] if device.active else "none"
    pending = device.pending.certificate_id[:SHORT] if device.pending else "none"
    return f"{device.state}, acknowledged {in_force}, issued and not acknowledged {pending}; registered: {certificates}"


def saved_in_words(ledger: Ledger, moment: Moment) -> str:
    """Say what records may be found."""
    return "; or ".join(record_in_words(record) for record in ledger.may_be_found(moment))


def record_in_words(record: Record) -> str:
    """Say what matters of a record."""
    unconfirmed = _listed([_identity(one) for one in record.unconfirmed])
    return (
        f"{record.state}, active {_identity(record.active)}, pending {_identity(record.pending)}, "
        f"unconfirmed {unconfirmed}, to delete {_listed(record.to_delete)}, rotations {record.rotations}"
    )


def _identity(one: Identity | Pending | None) -> str:
    if one is None:
        return "none"
    return (
        f"{one.label} ({one.certificate.certificate_id[:SHORT]})"
        if one.certificate
        else f"{one.label} (no certificate)"
    )


def held(root: Path) -> str:
    """List what is on the disk, a line for each: mode, size, name; the record by its state."""
    lines = []
    for path in sorted((root / "iot-agent").rglob("*")):
        try:
            lines.append(f"{_file(path)}  {path.relative_to(root)}")
        except OSError as error:
            lines.append(f"unreadable ({error.strerror})  {path.relative_to(root)}")
    return "\n".join(lines)


def _file(path: Path) -> str:
    seen = path.lstat()
    if path.is_symlink():
        return f"link to {path.readlink()}"
    size = "directory" if path.is_dir() else f"{seen.st_size} bytes"
    return f"{stat.S_IMODE(seen.st_mode):04o}, {size}{_state(path)}"


def _state(path: Path) -> str:
    """Say which record a file of the record holds."""
    if "state.json" not in path.name:
        return ""
    try:
        record = decode_record(path.read_bytes())
    except Damaged:
        return ", damaged"
    return f": {record.state} after {record.rotations} rotations"
