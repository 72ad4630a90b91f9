"""The directories of the identities, `identities/<label>/`: one for each key, with all that belongs to it.

An identity is complete when its key, its certificate and its facts are there; the facts are written last. The link
`current` leads applications to the active identity. If the record is lost, it is rebuilt from these directories, and
`current` tells which identity is active.
"""

import json
import shutil
from pathlib import Path

from iot_agent.core import typed_json
from iot_agent.core.record import Certificate, Identity
from iot_agent.storage import atomic, layout

KEYS = (layout.KEY, layout.KEY_ON_TOKEN)


class IdentityDirectories:
    """The `Identities` port on a state directory."""

    def __init__(self, state: Path) -> None:
        self._root = state / layout.IDENTITIES
        self._current = state / layout.CURRENT

    @property
    def root(self) -> Path:
        """The directory that holds them all."""
        return self._root

    def create(self, label: str, csr: str) -> None:
        """Durably make the directory of a new key, with its CSR: for people, and for version 0.1.0, which sends it."""
        atomic.make_directory(self._root)
        atomic.make_directory(self._path(label))
        atomic.write(self._path(label) / layout.CSR, csr.encode())

    def store(self, identity: Identity, pem: str, chain: str | None) -> None:
        """Durably add the certificate; `identity.json` comes last and says that all of it is there."""
        directory = self._path(identity.label)
        if chain is not None:
            atomic.write(directory / layout.CHAIN, chain.encode(), layout.PUBLIC_FILE_MODE)
        atomic.write(self.certificate(identity.label), pem.encode(), layout.PUBLIC_FILE_MODE)
        facts = directory / layout.FACTS
        try:
            atomic.write(facts, json.dumps(vars(identity.certificate)).encode())
        except OSError:
            facts.unlink(missing_ok=True)  # if the sync of the directory failed, a power cut may undo the rename
            raise

    def complete(self) -> tuple[Identity, ...]:
        """Find every complete identity that can be read now, in no order."""
        return tuple(filter(None, map(self._facts, self.labels())))

    def _facts(self, label: str) -> Identity | None:
        directory = self._path(label)
        try:
            certificate = typed_json.parse(Certificate, atomic.read(directory / layout.FACTS))
        except (OSError, ValueError):
            return None
        whole = any(_holds_something(directory / key) for key in KEYS) and _holds_something(self.certificate(label))
        return Identity(label, certificate) if whole else None

    def orphans(self) -> frozenset[str]:
        """Name those that never became complete, or are partly removed: without facts or key. Raises `OSError`."""
        return frozenset(label for label in self.labels() if self._is_orphan(self._path(label)))

    def _is_orphan(self, directory: Path) -> bool:
        try:
            return not _is_there(directory / layout.FACTS) or not any(_is_there(directory / key) for key in KEYS)
        except OSError:
            return False  # what cannot be read now must not be removed

    def certificate(self, label: str) -> Path:
        """Say where the certificate is."""
        return self._path(label) / layout.CERTIFICATE

    def labels(self) -> frozenset[str]:
        """Name all identities on disk, complete or not."""
        if not self._root.exists():
            return frozenset()
        return frozenset(path.name for path in self._root.iterdir() if layout.is_label(path.name))

    def remove(self, label: str) -> None:
        """Durably remove an identity, its facts first: what a crash leaves is then incomplete, and is removed later."""
        directory = self._path(label)
        if not _is_there(directory):
            return
        if directory.is_dir() and not directory.is_symlink():
            (directory / layout.FACTS).unlink(missing_ok=True)
            for path in directory.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            directory.rmdir()
        else:
            directory.unlink()
        atomic.sync_directory(self._root)

    def point_current(self, label: str) -> None:
        """Make `current` lead to this identity, in one rename."""
        atomic.point(self._current, f"{layout.IDENTITIES}/{label}")

    def current(self) -> str | None:
        """Name the identity that `current` points at; None if it is no link."""
        return self._current.readlink().name if self._current.is_symlink() else None

    def _path(self, label: str) -> Path:
        if not layout.is_label(label):
            raise ValueError(f"{label!r} is not a label of ours")
        return self._root / label


def _is_there(path: Path) -> bool:
    """Say whether anything has that name; raises `OSError` if that cannot be found out now."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _holds_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
