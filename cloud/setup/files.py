"""Durable files: each is complete or absent, and a secret is never readable by others, not even briefly."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def private_directory(path: Path) -> None:
    """Create the directory if it is missing; only its owner may read it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def write(path: Path, text: str, *, secret: bool = False) -> None:
    """Replace the file in one durable step: temporary file beside it, sync, rename, sync the directory."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created with mode 0600
    try:
        with open(handle, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor, not a path
            if not secret:
                os.fchmod(handle, 0o644)
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.rename(temporary, path)  # noqa: PTH104 - beside its descriptor-level kin
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 - likewise
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(path: Path) -> str | None:
    """Return the file's text, or None when there is no file."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
