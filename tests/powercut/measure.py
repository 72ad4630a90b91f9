"""What a renewal costs the disk: how often it is flushed, how many bytes it writes. Counted, not timed."""

from pathlib import Path
from random import Random

from tests.powercut import kernel
from tests.powercut.case import planted
from tests.powercut.disk import LoggedDisk, logged_disk
from tests.powercut.filesystems import FileSystem
from tests.powercut.life import begun
from tests.powercut.log import read_log


def renewal(system: FileSystem) -> tuple[int, int]:
    """Give flushes and bytes of one renewal, from rest to rest, with what the file system writes until it is synced."""
    dice = Random(0)  # noqa: S311 - a test's; without noise nothing is drawn
    with planted(""), logged_disk(Path.cwd(), system) as disk, begun(disk, dice, noise=0) as life:
        life.live(1)
        start = _synced(disk)
        life.live(2)
        end = _synced(disk)
    entries = [entry for entry in read_log(disk.log) if start < entry.end <= end]
    return sum(entry.content is None for entry in entries), sum(len(entry.content or b"") for entry in entries)


def _synced(disk: LoggedDisk) -> int:
    kernel.sync(disk.root)
    return disk.position()
