"""What the disk says of a device whose daemon is down, or has no configuration yet."""

import time
from pathlib import Path
from typing import Any

from iot_agent.core.codec import Damaged, LaterFormat, decode_record
from iot_agent.core.record import Record
from iot_agent.status.report import compose
from iot_agent.storage import atomic, layout


def record(state: Path) -> Record | None:
    """Read the record in a state directory; None if there is none to read. Raises `PermissionError`."""
    for name in (layout.RECORD, layout.PREVIOUS_RECORD):
        try:
            return decode_record(atomic.read(state / name))
        except (FileNotFoundError, NotADirectoryError, Damaged, LaterFormat):
            continue
    return None


def report(state: Path) -> dict[str, Any] | None:
    """Report on it, as `agentctl status` does; None if there is none to read. Raises `PermissionError`."""
    found = record(state)
    if found is None:
        return None
    about = {
        "daemon": "not running; this is what the disk says",
        "version": None,
        "key": None,
        "configuration": {"error": None},
        "trouble": None,
        "clock_trusted": time.time() >= found.time_floor,
    }
    return compose(found, None, time.time(), about)
