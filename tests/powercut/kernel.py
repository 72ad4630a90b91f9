"""The few system calls that Python lacks: a private mount namespace, mounts, loop devices. All need root."""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_REC, MS_PRIVATE = 0x1, 0x2, 0x4, 0x20, 0x4000, 0x40000
MNT_DETACH = 0x2
PR_SET_PDEATHSIG = 1

# linux/loop.h
LOOP_CTL_GET_FREE, LOOP_CONFIGURE, LOOP_CLR_FD = 0x4C82, 0x4C0A, 0x4C01
LOOP_CONFIG = struct.Struct("II232s64x")  # struct loop_config: descriptor, block size, loop_info64, reserved
LO_FLAGS_AT = 52  # offset of lo_flags in struct loop_info64
LO_FLAGS_AUTOCLEAR = 4  # the device lets go of its file at the last close, whatever becomes of us
LOOP_MAJOR = 7

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def private_mounts() -> None:
    """Give this process mounts of its own: no other program sees them or keeps them alive, and they end with it."""
    _call("unshare", CLONE_NEWNS)
    _call("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)


def die_with(signal: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _call("prctl", PR_SET_PDEATHSIG, ctypes.c_ulong(signal))


def mount(source: str, target: Path, kind: str, options: str = "", flags: int = MS_NOSUID | MS_NODEV) -> None:
    """Mount a file system; `source` is a device, or a name."""
    _call("mount", source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())


def remount(target: Path, *, read_only: bool) -> None:
    """Make a mounted file system read-only, or writable again; raises `OSError` while a file is open for writing."""
    flags = MS_REMOUNT | (MS_RDONLY if read_only else 0)
    _call("mount", None, os.fsencode(target), None, ctypes.c_ulong(flags), None)


def unmount(target: Path, flags: int = 0) -> None:
    """Unmount it, as umount2(2) does."""
    _call("umount2", os.fsencode(target), flags)


def sync(target: Path) -> None:
    """Sync this file system, and no other of the machine's: syncfs(2)."""
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _call("syncfs", descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def mounted(source: str, target: Path, kind: str, options: str = "") -> Iterator[None]:
    """Mount for a while. At the end of a failure the file system is detached even if something still uses it."""
    mount(source, target, kind, options)
    try:
        yield
    except BaseException:
        unmount(target, MNT_DETACH)
        raise
    unmount(target)


@contextlib.contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """Make a file a block device; gives the device's path, for one use: after its last close it is free again."""
    with contextlib.ExitStack() as stack:
        backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, backing)
        name, device = _attach(backing)
        stack.callback(os.close, device)
        yield name


def _attach(backing: int) -> tuple[str, int]:
    """Attach to a free device; others on the machine look for one too, so the one found may be gone already."""
    info = bytearray(232)
    struct.pack_into("I", info, LO_FLAGS_AT, LO_FLAGS_AUTOCLEAR)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            name = f"/dev/loop{number}"
            with contextlib.suppress(FileExistsError):  # devtmpfs has made it, as a rule
                os.mknod(name, stat.S_IFBLK | 0o600, os.makedev(LOOP_MAJOR, number))
            device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, LOOP_CONFIG.pack(backing, 0, bytes(info)))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
                continue
            return name, device
    finally:
        os.close(control)
