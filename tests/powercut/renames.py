"""Which renames a file system may still lose: those in a directory that has not been synced since.

The file systems here sync more than they are asked to: the sync of a file or a directory takes what came before along.
Others need not, and POSIX promises nothing of the kind. So a disk can also be judged with these renames undone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

Held = bytes | Path | None  # a file's content, where a link leads, or nothing


@dataclass(frozen=True)
class Rename:
    """One name that a rename changed: its path below the root of the disk, and what it named before."""

    path: str
    before: Held


class Renames:
    """Watches renames, and syncs of directories, below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._before: dict[Path, Held] = {}

    @property
    def unsynced(self) -> tuple[Rename, ...]:
        """Each name that may be as it was before."""
        return tuple(Rename(str(path.relative_to(self._root)), before) for path, before in self._before.items())

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch this process."""
        real_replace, real_fsync = os.replace, os.fsync

        def replace(source: Path, target: Path) -> None:
            before = {path: _held(path) for path in (source, target)}
            real_replace(source, target)
            self._before = before | self._before  # of several renames of a name, all may be lost

        def fsync(descriptor: int) -> None:
            real_fsync(descriptor)
            synced = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._before = {path: before for path, before in self._before.items() if path.parent != synced}

        calls: dict[str, Any] = {"replace": replace, "fsync": fsync}
        with mock.patch.multiple(os, **calls):
            yield


def _held(path: Path) -> Held:
    if path.is_symlink():
        return path.readlink()
    return path.read_bytes() if path.exists() else None


def lose(root: Path, unsynced: tuple[Rename, ...]) -> None:
    """Undo renames on the disk that is mounted at `root`, where their directories are still there."""
    for rename in unsynced:
        path = root / rename.path
        if not path.parent.is_dir():
            continue
        path.unlink(missing_ok=True)
        if isinstance(rename.before, Path):
            path.symlink_to(rename.before)
        elif rename.before is not None:
            path.touch(mode=0o600)
            path.write_bytes(rename.before)
