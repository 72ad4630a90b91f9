"""All keys of a device. A new one is made where agent.yaml says; an old one is used where it was made.

So moving from file to token, or back, is a rotation like any other: the identity in force keeps its key where it is
until the next one, made in the other place, has been proven.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from iot_agent.core.errors import Code, Fatal, Retryable
from iot_agent.core.ports import Credentials, KeyStore
from iot_agent.core.settings import Token
from iot_agent.keys import pkcs11_uri
from iot_agent.keys.file import FileKeys
from iot_agent.keys.token import TokenKeys
from iot_agent.storage import atomic, layout


class KeyRing:
    """The `KeyStore` over both backends; `token` is what agent.yaml says of it, `backend` where new keys are made."""

    def __init__(self, state: Path, backend: str, token: Token | None, on_token: Callable[[Token], TokenKeys]) -> None:
        self.backend = backend
        self._root = state / layout.IDENTITIES
        self._files = FileKeys(self._root)
        self._token = token
        self._on_token = on_token

    def generate(self, label: str, algorithm: str) -> None:
        """Make a key. What another backend has begun under this label, before the settings changed, is dropped."""
        with _alone(self._root):
            if self.backend == FileKeys.backend:
                _forget(self._root / label / layout.KEY_ON_TOKEN)
                self._files.generate(label, algorithm)
            elif self._token is not None:
                self._files.remove(label)
                self._on_token(self._token).generate(label, algorithm)
            else:
                raise Fatal(Code.KEY_STORE, f"keys.backend is {self.backend}, and keys.token names no token")

    def csr(self, label: str, serial: str) -> str:
        """Build the CSR (PEM)."""
        return self._keeper(label).csr(label, serial)

    def public_key(self, label: str) -> bytes:
        """Give the DER SubjectPublicKeyInfo."""
        return self._keeper(label).public_key(label)

    def credentials(self, label: str, certificate: Path) -> Credentials:
        """Say how a TLS client uses this key."""
        return self._keeper(label).credentials(label, certificate)

    def labels(self) -> frozenset[str]:
        """Name the keys that have a directory, and what else of ours is on the token where new keys are made."""
        listed = self._files.labels() | {path.parent.name for path in self._root.glob(f"*/{layout.KEY_ON_TOKEN}")}
        if self.backend == FileKeys.backend or self._token is None:
            return listed
        return listed | self._on_token(self._token).labels()

    def remove(self, label: str) -> None:
        """Destroy a key; what has no directory can only be on the token of agent.yaml."""
        if self._token is not None and not (self._root / label).exists():
            self._on_token(self._token).remove(label)
        else:
            self._keeper(label).remove(label)

    def _keeper(self, label: str) -> KeyStore:
        """Find who keeps this key: what its directory says. What agent.yaml says of that token is newer, and wins."""
        path = self._root / label / layout.KEY_ON_TOKEN
        try:
            token = pkcs11_uri.read(atomic.read(path).decode().strip()).token
        except FileNotFoundError:
            return self._files
        except (OSError, ValueError) as error:
            raise Fatal(Code.KEY_STORE, f"cannot tell from {path} where the key is: {error}") from error
        if self._token is not None and self._token.label == token.label:
            token = self._token
        return self._on_token(token)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one process at a time make keys: two at once would make two under one label."""
    try:
        atomic.make_directory(root)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Retryable(Code.KEY_STORE, f"cannot use {root}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _forget(reference: Path) -> None:
    if reference.exists():
        reference.unlink()
        atomic.sync_directory(reference.parent)
