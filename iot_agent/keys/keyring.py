"""All keys of a device. A new key is made where agent.yaml says; an older key is used where it was made.

So a move from file to token, or back, is a rotation like any other: the key of the active identity stays where it is
until the certificate for the next key, made in the other place, has been proven.
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
        """Make a key. What the other backend made under this label, before the settings changed, is deleted."""
        with _alone(self._root):
            if self.backend == FileKeys.backend:
                _remove_reference(self._root / label / layout.KEY_ON_TOKEN)
                self._files.generate(label, algorithm)
            elif self._token is not None:
                self._files.remove(label)
                self._on_token(self._token).generate(label, algorithm)
            else:
                raise Fatal(Code.KEY_STORE, f"keys.backend is {self.backend}, and keys.token names no token")

    def csr(self, label: str, serial: str) -> str:
        """Build the CSR (PEM)."""
        return self._backend_of(label).csr(label, serial)

    def public_key(self, label: str) -> bytes:
        """Give the DER SubjectPublicKeyInfo."""
        return self._backend_of(label).public_key(label)

    def credentials(self, label: str, certificate: Path) -> Credentials:
        """Say how a TLS client uses this key."""
        return self._backend_of(label).credentials(label, certificate)

    def labels(self) -> frozenset[str]:
        """List the keys that have a directory, and our other keys on the token where new keys are made."""
        listed = self._files.labels() | {path.parent.name for path in self._root.glob(f"*/{layout.KEY_ON_TOKEN}")}
        if self.backend == FileKeys.backend or self._token is None:
            return listed
        return listed | self._on_token(self._token).labels()

    def remove(self, label: str) -> None:
        """Delete a key; one that has no directory can only be on the token of agent.yaml."""
        if self._token is not None and not (self._root / label).exists():
            self._on_token(self._token).remove(label)
        else:
            self._backend_of(label).remove(label)

    def _backend_of(self, label: str) -> KeyStore:
        """Find the backend that has this key, by its directory; of that token, agent.yaml has the newer settings."""
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
    """Let one process at a time make keys: two at once would make two keys under one label."""
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


def _remove_reference(reference: Path) -> None:
    if reference.exists():
        reference.unlink()
        atomic.sync_directory(reference.parent)
