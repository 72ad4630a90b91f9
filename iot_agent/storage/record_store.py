"""The record on disk: `state.json`, written durably by the daemon alone, with version, checksum and a way back.

Reading tries, in this order: `state.json`; `state.json.previous`, the one before it; the identity directories, from
which a record is rebuilt. Whatever keeps a file from being read (damage, a directory or a link in its place, an error
of the disk) leads on to the next; the file is kept beside, named `.bad`, for a person to look at. The record that is
found may be behind the disk, so `reconcile` brings it up to date before anything is done. A file of a later format is
refused without touching anything: an older agent must not guess.
"""

import logging
import os
from pathlib import Path

from iot_agent.core import journal_events
from iot_agent.core.codec import Damaged, decode_record, encode_record
from iot_agent.core.ports import Identities
from iot_agent.core.reconcile import OnDisk, rebuild
from iot_agent.core.record import Record
from iot_agent.storage import atomic, layout

log = logging.getLogger(__name__)


class RecordStore:
    """The `StateStore` on a state directory."""

    def __init__(self, state: Path, identities: Identities, serial: str) -> None:
        self._path = state / layout.RECORD
        self._previous = state / layout.PREVIOUS_RECORD
        self._identities = identities
        self._serial = serial

    def load(self) -> Record:
        """Make durable what a process before us renamed, then read the record, or fall back; raises `LaterFormat`."""
        try:
            atomic.sync_tree(self._path.parent)
        except OSError as error:
            log.warning("%s cannot be synced: %s", self._path.parent, error)
        for path in (self._path, self._previous):
            try:
                return decode_record(atomic.read(path))
            except FileNotFoundError:
                continue
            except (Damaged, OSError) as trouble:
                aside = _put_aside(path)
                about = journal_events.of("record-damaged", serial=self._serial)
                log.warning("%s cannot be used (%s); %s, falling back", path, trouble, aside, extra=about)
        disk = self.disk()
        if disk.complete:
            about = journal_events.of("record-rebuilt", serial=self._serial)
            log.warning("the record is lost; rebuilt from %d identities on disk", len(disk.complete), extra=about)
        return rebuild(self._serial, disk)

    def disk(self) -> OnDisk:
        """Tell what identities the disk holds; what cannot be read now is left out."""
        try:
            return OnDisk(self._identities.complete(), self._identities.orphans(), self._identities.current())
        except OSError as error:
            log.warning("the identities cannot be looked at now: %s", error)
            return OnDisk((), frozenset(), None)

    def save(self, record: Record) -> None:
        """Write the record durably and point `current` at the active identity; raises `OSError`."""
        if self._path.exists():
            self._path.replace(self._previous)
        atomic.write(self._path, encode_record(record))
        if record.active is not None:
            self._point_current(record.active.label)

    def _point_current(self, label: str) -> None:
        """Do it for the applications; the device itself does not need it, so nothing waits for it."""
        try:
            self._identities.point_current(label)
        except OSError as error:
            log.warning("cannot point `current` at %s: %s", label, error)


def _put_aside(path: Path) -> str:
    """Rename what cannot be read, so that the next save does not take it for the record before."""
    for name in (f"{path.name}.bad", f"{path.name}.bad-{os.urandom(4).hex()}"):
        try:
            path.rename(path.with_name(name))
        except OSError:
            continue
        return f"kept as {name}"
    return "it cannot be renamed"
