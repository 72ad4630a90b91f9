"""Durable writes, and reads that cannot hang or follow a link.

After a power cut a file is the old one or the new one, never a part of it. A write makes a temporary file in the same
directory, with its final mode, writes and fsyncs it, renames it over the old file, and fsyncs the directory (without
that, a power cut may undo the rename: POSIX and ext4 promise nothing else). No function follows a symbolic link that
somebody may have put into the state directory.
"""

import os
from pathlib import Path

from iot_agent.storage import layout

MAX_READ = 1024 * 1024


def write(path: Path, content: bytes, mode: int = layout.PRIVATE_FILE_MODE) -> None:
    """Replace `path` durably; `mode` holds from the first byte on, whatever the umask. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read(path: Path) -> bytes:
    """Read a file that we wrote: a regular one, not through a link, of at most 1 MiB. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(MAX_READ + 1)
    if len(content) > MAX_READ:
        raise OSError(f"{path} is larger than {MAX_READ} bytes")
    return content


def make_directory(path: Path) -> None:
    """Create a private directory durably; fine if it is there."""
    path.mkdir(mode=layout.PRIVATE_DIRECTORY_MODE, exist_ok=True)
    if path.is_symlink() or not path.is_dir():
        raise OSError(f"{path} is not a directory")
    sync_directory(path.parent)


def point(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target`, in one step: a reader sees the old target or the new one.

    A directory in its place, as a copy that followed links leaves it, is renamed to `.bad`.
    """
    if link.is_symlink() and link.readlink() == Path(target):
        return
    if link.is_dir() and not link.is_symlink():
        link.rename(link.with_name(f"{link.name}.bad-{os.urandom(4).hex()}"))
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_directory(link.parent)


def sync_directory(path: Path) -> None:
    """Make what was renamed, created and removed in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Sync a directory and those below it: what an earlier process renamed may not be on the disk yet."""
    for directory, _, _ in os.walk(path):
        sync_directory(Path(directory))
