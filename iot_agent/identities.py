"""One directory for each key ever made: `identities/<label>/` with its CSR, then its certificate, chain and facts.

`current` is a link to the identity in
force, for applications; it is also what the record is rebuilt from, should the record ever be lost.
"""

import json
import re
from pathlib import Path

from iot_agent import durable
from iot_agent.record import Certificate, Identity

FACTS = "identity.json"
LABEL = re.compile(r"iot-agent-[0-9A-Za-z-]{1,80}")


class IdentityDirectories:
    """The `Identities` port on a state directory."""

    def __init__(self, state: Path) -> None:
        self._root = state / "identities"
        self._current = state / "current"

    @property
    def root(self) -> Path:
        """The directory that holds them all."""
        return self._root

    def create(self, label: str, csr: str) -> None:
        """Durably make the directory of a new key, with its CSR."""
        durable.make_directory(self._root)
        durable.make_directory(self._path(label))
        durable.write(self._path(label) / "csr.pem", csr.encode())

    def csr(self, label: str) -> str:
        """Read the CSR back."""
        return durable.read(self._path(label) / "csr.pem").decode()

    def store(self, identity: Identity, pem: str, chain: str | None) -> None:
        """Durably add the certificate; `identity.json` comes last and says that all of it is there."""
        directory = self._path(identity.label)
        if chain is not None:
            durable.write(directory / "chain.pem", chain.encode(), durable.PUBLIC)
        durable.write(self.certificate(identity.label), pem.encode(), durable.PUBLIC)
        durable.write(directory / FACTS, json.dumps(vars(identity.certificate)).encode())

    def complete(self) -> tuple[Identity, ...]:
        """Find every identity that has its key's certificate, oldest first: what a lost record is rebuilt from."""
        return tuple(filter(None, map(self._facts, sorted(self.labels()))))

    def _facts(self, label: str) -> Identity | None:
        try:
            fields = json.loads(durable.read(self._path(label) / FACTS))
            return Identity(label, Certificate(**fields)) if self.certificate(label).stat().st_size else None
        except (OSError, ValueError, TypeError):
            return None  # incomplete or damaged: not an identity to rely on

    def certificate(self, label: str) -> Path:
        """Say where the certificate is."""
        return self._path(label) / "certificate.pem"

    def labels(self) -> frozenset[str]:
        """Name all identities on disk, complete or not."""
        if not self._root.exists():
            return frozenset()
        return frozenset(path.name for path in self._root.iterdir() if LABEL.fullmatch(path.name))

    def remove(self, label: str) -> None:
        """Durably remove an identity, its facts first, so that what a crash leaves is visibly incomplete."""
        if not self._path(label).exists():
            return
        (self._path(label) / FACTS).unlink(missing_ok=True)
        for path in self._path(label).iterdir():
            path.unlink()
        self._path(label).rmdir()
        durable.sync_directory(self._root)

    def point_current(self, label: str) -> None:
        """Flip `current` to this identity, in one rename."""
        durable.point(self._current, f"identities/{label}")

    def current(self) -> str | None:
        """Name the identity that `current` points at."""
        return self._current.readlink().name if self._current.is_symlink() else None

    def _path(self, label: str) -> Path:
        if not LABEL.fullmatch(label):
            raise ValueError(f"{label!r} is not a label of ours")
        return self._root / label
