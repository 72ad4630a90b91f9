"""The record on disk: `state.json`, written durably by the daemon alone, with version, checksum and a way back.

Reading tries, in this order: `state.json`; `state.json.previous`, the one before it; the identity directories, from
which a record is rebuilt. Falling back is safe because every step may be run again. A file that does not read is kept
beside, named `.bad`, for a person to look at. A file of a later format is refused without touching anything: an older
agent must not guess.
"""

import logging
from pathlib import Path

from iot_agent import durable, events
from iot_agent.codec import Damaged, decode_record, encode_record
from iot_agent.ports import Identities
from iot_agent.record import Record, State

log = logging.getLogger(__name__)


class RecordStore:
    """The `StateStore` on a state directory."""

    def __init__(self, state: Path, identities: Identities, serial: str) -> None:
        self._path = state / "state.json"
        self._previous = state / "state.json.previous"
        self._identities = identities
        self._serial = serial

    def load(self) -> Record:
        """Read the record, or fall back; raises `LaterFormat` or `OSError`."""
        for path in (self._path, self._previous):
            try:
                record = decode_record(durable.read(path))
            except FileNotFoundError:
                continue
            except Damaged as damage:
                aside = path.with_name(path.name + ".bad")
                path.replace(aside)
                about = events.of("record-damaged", serial=self._serial)
                log.warning("%s is damaged (%s); kept as %s, falling back", path, damage, aside.name, extra=about)
                continue
            return record
        return self._rebuild()

    def save(self, record: Record) -> None:
        """Write the record durably and point `current` at the active identity; raises `OSError`."""
        if self._path.exists():
            self._path.replace(self._previous)
        durable.write(self._path, encode_record(record))
        if record.active is not None:
            self._identities.point_current(record.active.label)

    def _rebuild(self) -> Record:
        """Make a record from what is on disk: `current` is in force; the newest other complete identity may be."""
        complete = self._identities.complete()
        current = self._identities.current()
        active = next((identity for identity in complete if identity.label == current), None)
        others = [identity for identity in complete if identity != active]
        if active is None and not others:
            return Record(self._serial)
        about = events.of("record-rebuilt", serial=self._serial)
        log.warning("the record is lost; rebuilt from %d identities on disk", len(complete), extra=about)
        state = State.JITP if active is None else State.ACKED
        return Record(self._serial, state, active=active, set_aside=others[-1] if others else None)
