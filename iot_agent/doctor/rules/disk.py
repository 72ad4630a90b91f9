"""The state directory's file system: room for the next rotation, writable, and kept after a reboot. Pure.

A rotation briefly needs about 64 KiB and eight inodes: a key, its directory, four small files, the record twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from iot_agent.doctor.findings import Finding, error, fine, warning

ROTATION_BYTES, COMFORT_BYTES = 256 * 1024, 8 * 1024 * 1024
ROTATION_INODES, COMFORT_INODES = 16, 256
VOLATILE = frozenset({"tmpfs", "ramfs", "devtmpfs"})
REMEDY = "Free space there, or give the state directory a file system of its own. Without room no step begins."


@dataclass(frozen=True)
class Disk:
    """`inodes` is None where they are not counted; `problem` is why a durable write failed, if it did."""

    path: str
    kind: str
    free: int
    inodes: int | None
    read_only: bool
    problem: str | None


def judge(seen: Disk) -> Iterator[Finding]:
    """Judge the free room, then a durable write, then whether a reboot keeps the files."""
    yield _room("disk.space", f"{_size(seen.free)} free", seen.free, ROTATION_BYTES, COMFORT_BYTES)
    if seen.inodes is not None:
        yield _room("disk.inodes", f"{seen.inodes} inodes free", seen.inodes, ROTATION_INODES, COMFORT_INODES)
    if seen.read_only:
        yield error("disk.write", f"{seen.path} is mounted read-only", "Mount it read-write; dmesg may say why.")
    elif seen.problem is not None:
        yield error("disk.write", f"a durable write to {seen.path} failed: {seen.problem}", REMEDY)
    else:
        yield fine("disk.write", f"a durable write to {seen.path} works")
    if seen.kind in VOLATILE:
        yield warning(
            "disk.kind",
            f"{seen.path} is on {seen.kind}: the next reboot deletes this device's keys and certificates",
            "Put paths.state on a disk; else the device starts over with its bootstrap certificate after each reboot.",
        )
    else:
        yield fine("disk.kind", f"{seen.path} is on {seen.kind or 'a file system of unknown kind'}")


def _size(octets: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if octets >= size:
            return f"{octets / size:.0f} {unit}"
    return f"{octets // 1024} KiB"


def _room(check: str, what: str, there: int, needed: int, comfortable: int) -> Finding:
    if there < needed:
        return error(check, f"{what}: not enough for a rotation", REMEDY)
    if there < comfortable:
        return warning(check, f"{what}: enough for now, but little", REMEDY)
    return fine(check, what)
