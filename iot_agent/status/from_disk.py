"""The report of a device whose daemon is not running or has no configuration yet, from the record on the disk."""

import time
from pathlib import Path
from typing import Any

from iot_agent.core.codec import Damaged, LaterFormat, decode_record
from iot_agent.core.record import Record
from iot_agent.status.report import compose
from iot_agent.storage import atomic, layout


def record(state: Path) -> Record | None:
    """Read the record in a state directory; None if there is no good one. Raises `PermissionError`."""
    for name in (layout.RECORD, layout.PREVIOUS_RECORD):
        try:
            return decode_record(atomic.read(state / name))
        except (FileNotFoundError, NotADirectoryError, Damaged, LaterFormat):
            continue
    return None


def report(state: Path) -> dict[str, Any] | None:
    """Give the report of docs/status.md; None if there is no good record. Raises `PermissionError`."""
    found = record(state)
    if found is None:
        return None
    about = {
        "daemon": "not running; this is from the record on the disk",
        "version": None,
        "key": None,
        "configuration": {"error": None},
        "trouble": None,
        "clock_trusted": time.time() >= found.time_floor,
    }
    return compose(found, None, time.time(), about)
