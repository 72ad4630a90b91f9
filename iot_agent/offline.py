"""The status report of a device whose daemon is down: what its disk says."""

import time
from pathlib import Path
from typing import Any

from iot_agent import durable, status
from iot_agent.codec import Damaged, LaterFormat, decode_record


def report(state: Path) -> dict[str, Any] | None:
    """Report on the record in a state directory; None if there is none to read. Raises `PermissionError`."""
    for name in ("state.json", "state.json.previous"):
        try:
            record = decode_record(durable.read(state / name))
        except (FileNotFoundError, NotADirectoryError, Damaged, LaterFormat):
            continue
        about = {
            "daemon": "not running; this is what the disk says",
            "version": None,
            "key": None,
            "configuration": {"error": None},
            "trouble": None,
            "clock_trusted": time.time() >= record.time_floor,
        }
        return status.report(record, None, time.time(), about)
    return None
