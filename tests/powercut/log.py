"""What a disk was told to do, in order: writes and flushes. A position in it is a count of bytes, and an instant."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ENTRY = struct.Struct("<QQQ")  # kind, offset on the disk, length of the content that follows
WRITE, FLUSH = 0, 1


@dataclass(frozen=True)
class Entry:
    """One order to the disk; `end` is the position after it, and content None a flush."""

    end: int
    offset: int
    content: bytes | None


def read_log(path: Path) -> Iterator[Entry]:
    """Read a whole log."""
    with path.open("rb") as file:
        while header := file.read(ENTRY.size):
            kind, offset, length = ENTRY.unpack(header)
            content = file.read(length)
            yield Entry(file.tell(), offset, content if kind == WRITE else None)
