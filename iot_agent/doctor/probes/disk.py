"""The state directory's file system, and whether a durable write to it succeeds."""

import os
from pathlib import Path

from iot_agent.doctor.rules.disk import Disk
from iot_agent.storage import atomic

PROBE = "doctor.probe"


def look(state: Path) -> Disk:
    """Ask the kernel, then write one block and remove it; raises `OSError` if there is no such directory."""
    there = os.statvfs(state)
    read_only = bool(there.f_flag & os.ST_RDONLY)
    return Disk(
        path=str(state),
        kind=_kind(state),
        free=there.f_bavail * there.f_frsize,
        inodes=there.f_favail if there.f_files else None,
        read_only=read_only,
        problem=None if read_only else _problem(state / PROBE),
    )


def _problem(path: Path) -> str | None:
    try:
        atomic.write(path, b"x" * 4096)
        path.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _kind(path: Path) -> str:
    """Find the file system's type: that of the longest mount point above `path`, of two equal ones the later."""
    found = ("", "")
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, after = line.partition(" - ")
        point = Path(fields.split()[4].encode().decode("unicode_escape"))
        if path.resolve().is_relative_to(point) and len(str(point)) >= len(found[0]):
            found = (str(point), after.split()[0])
    return found[1]
