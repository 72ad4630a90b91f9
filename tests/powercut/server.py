"""A disk that keeps a log: one file, served to the kernel over /dev/fuse, for a loop device to lie on.

`python -m tests.powercut.server IMAGE LOG FILE` mounts itself over FILE, whose content is then IMAGE's. Each write and
each flush is appended to LOG, in the order in which the kernel sent them, before it is answered; `log` reads them. It
is a process of its own, because a process that waits for a disk which it serves itself cannot even be killed.

Standard input takes commands, one byte each, answered by one: `f`, fail each write and flush from now on; `o`, fail no
more. When it is closed the disk ends, and the kernel answers what still waits for it with an error. The protocol is
linux/fuse.h, 7.31; a file system whose root is a file needs few of its messages.
"""

import contextlib
import errno
import os
import select
import stat
import struct
import sys
from pathlib import Path

from tests.powercut import kernel
from tests.powercut.log import ENTRY, FLUSH, WRITE

INODE, MOST = 1, 128 * 1024  # the root's inode number; the most bytes in one write
IN, OUT = struct.Struct("<IIQQIII4x"), struct.Struct("<IiQ")
INIT_IN, INIT_OUT = struct.Struct("<IIII"), struct.Struct("<IIIIHHIIHH32x")
ATTRIBUTES = struct.Struct("<QI4xQQQQQQIIIIIIIII4x")  # how long they hold, then struct fuse_attr
READ_IN, WRITE_IN = struct.Struct("<QQI"), struct.Struct("<QQI20x")
FOREVER = 1 << 30
GETATTR, SETATTR, OPEN, READ, WRITE_FILE, RELEASE, FSYNC, FORGET, FLUSH_FILE, INIT, INTERRUPT, DESTROY = (
    3, 4, 14, 15, 16, 18, 20, 2, 25, 26, 36, 38,
)  # fmt: skip
SILENT = (FORGET, INTERRUPT)


class Disk:
    """Answers the kernel's messages."""

    def __init__(self, image: Path, log: Path) -> None:
        self._image = os.open(image, os.O_RDWR)
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND)
        self._size = os.fstat(self._image).st_size
        self.failing = False

    def answer(self, message: bytes) -> bytes | None:
        """Give the reply to one message, None if it wants none."""
        _, code, unique, *_ = IN.unpack_from(message)
        if code in SILENT:
            return None
        try:
            body = self._serve(code, message)
        except OSError as error:
            return OUT.pack(OUT.size, -(error.errno or errno.EIO), unique)
        return OUT.pack(OUT.size + len(body), 0, unique) + body

    def _serve(self, code: int, message: bytes) -> bytes:
        if code == WRITE_FILE:
            _, offset, length = WRITE_IN.unpack_from(message, IN.size)
            return self._write(offset, message[IN.size + WRITE_IN.size :][:length])
        if code == READ:
            _, offset, length = READ_IN.unpack_from(message, IN.size)
            return os.pread(self._image, length, offset)
        if code == FSYNC:
            self._enter(FLUSH, 0, b"")
        elif code == INIT:
            major, minor, ahead, _ = INIT_IN.unpack_from(message, IN.size)
            return INIT_OUT.pack(major, min(minor, 31), ahead, 0, 16, 12, MOST, 1, 0, 0)
        elif code in (GETATTR, SETATTR):
            kind = stat.S_IFREG | 0o600
            return ATTRIBUTES.pack(FOREVER, 0, INODE, self._size, 0, 0, 0, 0, 0, 0, 0, kind, 1, 0, 0, 0, 4096)
        elif code == OPEN:
            return bytes(16)
        elif code not in (RELEASE, FLUSH_FILE, DESTROY):
            raise OSError(errno.ENOSYS, f"message {code}")
        return b""

    def _write(self, offset: int, content: bytes) -> bytes:
        self._enter(WRITE, offset, content)
        os.pwrite(self._image, content, offset)
        return struct.pack("<II", len(content), 0)

    def _enter(self, kind: int, offset: int, content: bytes) -> None:
        if self.failing:
            raise OSError(errno.EIO, "told to fail")
        os.writev(self._log, [ENTRY.pack(kind, offset, len(content)), content])


def main() -> None:
    """Mount, say so by one byte, and serve until standard input ends."""
    image, log, over = (Path(argument) for argument in sys.argv[1:])
    disk = Disk(image, log)
    device = os.open("/dev/fuse", os.O_RDWR)
    kernel.mount("powercut", over, "fuse", f"fd={device},rootmode=100600,user_id=0,group_id=0")
    os.write(1, b".")
    while True:
        ready, _, _ = select.select([device, 0], [], [])
        if 0 in ready:
            command = os.read(0, 1)
            if not command:
                return
            disk.failing = command == b"f"
            os.write(1, b".")
        if device in ready:
            try:
                reply = disk.answer(os.read(device, MOST + 4096))
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                raise
            if reply is not None:
                with contextlib.suppress(FileNotFoundError):  # nobody waits for it any more
                    os.write(device, reply)


if __name__ == "__main__":
    main()
