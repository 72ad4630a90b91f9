"""A mounted file system on a disk that keeps a log, and the same for an image of it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.powercut import kernel
from tests.powercut.filesystems import FileSystem
from tests.powercut.images import BLOCK, EMPTY, Image


class LoggedDisk:
    """`root` is where its file system is mounted, `base` what the disk held before, `log` what it was told since."""

    def __init__(self, root: Path, log: Path, base: Image, server: "subprocess.Popen[bytes]") -> None:
        self.root, self.log, self.base, self._server = root, log, base, server

    def position(self) -> int:
        """Say where in the log we are."""
        return self.log.stat().st_size

    def fail(self) -> None:
        """Have each write and flush fail from now on."""
        assert self._server.stdin is not None
        self._server.stdin.write(b"f")
        self._server.stdin.flush()
        _hear(self._server)


@contextlib.contextmanager
def logged_disk(place: Path, system: FileSystem) -> Iterator[LoggedDisk]:
    """Make a disk with an empty file system, mounted; all of it lies in the directory `place`."""
    image, log, file, root = place / "image", place / "log", place / "disk", place / "root"
    system.make(image)
    base = _read(image)
    for path in (log, file):
        path.write_bytes(b"")
    root.mkdir(exist_ok=True)
    with _serving(image, log, file) as server, kernel.loop_device(file) as device:
        kernel.mount(device, root, system.kind, system.options)
        try:
            yield LoggedDisk(root, log, base, server)
        finally:
            kernel.unmount(root, kernel.MNT_DETACH)  # of a disk that failed, nothing more can be written


@contextlib.contextmanager
def _serving(image: Path, log: Path, file: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "tests.powercut.server", str(image), str(log), str(file)]
    server = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: kernel.die_with(signal.SIGKILL),  # noqa: PLW1509 - one thread, and there is no other way
    )
    try:
        _hear(server)
        yield server
    finally:
        kernel.unmount(file, kernel.MNT_DETACH)
        server.communicate()


def _hear(server: "subprocess.Popen[bytes]") -> None:
    assert server.stdout is not None
    assert server.stdout.read(1) == b".", "the disk's server has ended"


@contextlib.contextmanager
def mounted_image(place: Path, system: FileSystem, image: Image) -> Iterator[Path]:
    """Mount an image as a machine does that comes up after the power was gone; gives where."""
    file, root = place / "crashed", place / "recovered"
    root.mkdir(exist_ok=True)
    with file.open("wb", buffering=0) as disk:
        disk.truncate(image.size)
        for offset, content in image.blocks:
            os.pwrite(disk.fileno(), content, offset)
    with kernel.loop_device(file) as device, kernel.mounted(device, root, system.kind, system.options):
        yield root


def _read(path: Path) -> Image:
    """Read an image; the holes of a sparse file take no time."""
    image = Image(path.stat().st_size)
    with path.open("rb") as file:
        for start, end in _data(file.fileno()):
            for offset in range(start - start % BLOCK, end, BLOCK):
                content = os.pread(file.fileno(), BLOCK, offset)
                if content != EMPTY:
                    image.write(offset, content)
    return image


def _data(descriptor: int) -> Iterator[tuple[int, int]]:
    end = 0
    with contextlib.suppress(OSError):  # ENXIO: there is no more
        while True:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            yield start, end
