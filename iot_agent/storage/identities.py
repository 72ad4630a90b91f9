"""One directory for each key ever made: `identities/<label>/` with its CSR, then its certificate, chain and facts.

An identity is complete when its facts are there, which are written last. `current` is a link to the identity in force,
for applications; the record is rebuilt with its help, should the record ever be lost.
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
            atomic.write(directory / layout.CHAIN, chain.encode(), layout.PUBLIC_FILE)
        atomic.write(self.certificate(identity.label), pem.encode(), layout.PUBLIC_FILE)
        atomic.write(directory / layout.FACTS, json.dumps(vars(identity.certificate)).encode())

    def complete(self) -> tuple[Identity, ...]:
        """Find every identity that has its key and its certificate, in no order, as far as they can be read now."""
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
        """Name what never became an identity, or is half removed: it has no facts, or no key. Raises `OSError`."""
        return frozenset(label for label in self.labels() if self._is_orphan(self._path(label)))

    def _is_orphan(self, directory: Path) -> bool:
        try:
            return not _is_there(directory / layout.FACTS) or not any(_is_there(directory / key) for key in KEYS)
        except OSError:
            return False  # that cannot be told now, so nothing may be removed

    def certificate(self, label: str) -> Path:
        """Say where the certificate is."""
        return self._path(label) / layout.CERTIFICATE

    def labels(self) -> frozenset[str]:
        """Name all identities on disk, complete or not."""
        if not self._root.exists():
            return frozenset()
        return frozenset(path.name for path in self._root.iterdir() if layout.is_label(path.name))

    def remove(self, label: str) -> None:
        """Durably remove an identity, its facts first, so that what a crash leaves is visibly incomplete."""
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
        """Flip `current` to this identity, in one rename."""
        atomic.point(self._current, f"{layout.IDENTITIES}/{label}")

    def current(self) -> str | None:
        """Name the identity that `current` points at; None if it is no link."""
        return self._current.readlink().name if self._current.is_symlink() else None

    def _path(self, label: str) -> Path:
        if not layout.is_label(label):
            raise ValueError(f"{label!r} is not a label of ours")
        return self._root / label


def _is_there(path: Path) -> bool:
    """Say whether there is anything of that name; raises `OSError` where that cannot be told."""
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
