"""The record on disk: `state.json`, written durably by the daemon only.

Reading tries, in this order: `state.json`; `state.json.previous`, which is the record before; the identity directories,
from which a record is rebuilt. If a file cannot be read (damage, a directory or a link in its place, an error of the
disk), the next is tried, and the file is renamed to `.bad`, for a person to look at. The record may be older than the
identities on the disk, so `reconcile` brings it up to date before anything is done. A file of a later format is refused
and left as it is: an older agent cannot know what it means.
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
        """Make durable what an earlier process renamed, then read the record or rebuild it; raises `LaterFormat`."""
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
                kept = _keep_as_bad(path)
                about = journal_events.of("record-damaged", serial=self._serial)
                log.warning("%s cannot be used (%s); %s; trying the next copy", path, trouble, kept, extra=about)
        disk = self.disk()
        if disk.complete:
            about = journal_events.of("record-rebuilt", serial=self._serial)
            log.warning("the record is lost; rebuilt from %d identities on the disk", len(disk.complete), extra=about)
        return rebuild(self._serial, disk)

    def disk(self) -> OnDisk:
        """List the identities on the disk, without those that cannot be read now."""
        try:
            return OnDisk(self._identities.complete(), self._identities.orphans(), self._identities.current())
        except OSError as error:
            log.warning("the identities cannot be listed now: %s", error)
            return OnDisk((), frozenset(), None)

    def save(self, record: Record) -> None:
        """Write the record durably and point `current` at the active identity; raises `OSError`."""
        if self._path.exists():
            self._path.replace(self._previous)
        atomic.write(self._path, encode_record(record))
        if record.active is not None:
            self._point_current(record.active.label)

    def _point_current(self, label: str) -> None:
        """Do this for the applications; the agent does not need `current`, so a failure is only logged."""
        try:
            self._identities.point_current(label)
        except OSError as error:
            log.warning("cannot point `current` at %s: %s", label, error)


def _keep_as_bad(path: Path) -> str:
    """Rename a file that cannot be read, so that the next save does not make it `state.json.previous`."""
    for name in (f"{path.name}.bad", f"{path.name}.bad-{os.urandom(4).hex()}"):
        try:
            path.rename(path.with_name(name))
        except OSError:
            continue
        return f"kept as {name}"
    return "it cannot be renamed"
