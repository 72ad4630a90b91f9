"""Which renames a file system may still lose: those in a directory that nobody has synced since.

The file systems here sync more than they are asked for: a sync of one file or directory takes what came before along.
POSIX promises nothing of the kind, so that another need not. An image can therefore also be judged with these renames
undone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

Undo = tuple[tuple[str, bytes | None], ...]  # path below the root of the disk, what it held before, None for nothing


class Renames:
    """Watches renames and syncs of directories below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._before: dict[Path, bytes | None] = {}

    def undo(self) -> Undo:
        """Say what undoes all that may be lost."""
        return tuple((str(path.relative_to(self._root)), content) for path, content in self._before.items())

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch this process."""
        real_replace, real_fsync = os.replace, os.fsync

        def replace(source: Path, target: Path) -> None:
            link = Path(source).is_symlink()  # `current`, which the next save makes again
            paths = () if link else map(Path, (source, target))
            before = {path: path.read_bytes() if path.exists() else None for path in paths}
            real_replace(source, target)
            self._before = before | self._before

        def fsync(descriptor: int) -> None:
            real_fsync(descriptor)
            synced = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._before = {path: content for path, content in self._before.items() if path.parent != synced}

        calls: dict[str, Any] = {"replace": replace, "fsync": fsync}
        with mock.patch.multiple(os, **calls):
            yield


def lose(root: Path, undo: Undo) -> None:
    """Undo renames on a disk that is mounted at `root`, where their directories are still there."""
    for name, content in undo:
        path = root / name
        if content is None:
            path.unlink(missing_ok=True)
        elif path.parent.is_dir():
            path.write_bytes(content)
            path.chmod(0o600)
