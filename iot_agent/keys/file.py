"""Keys as files: `identities/<label>/key.pem`, mode 0600 from the first byte on, PKCS #8, not encrypted.

They are not encrypted because the encryption key would have to be on the same disk. If others may read the disk, use a
token.
"""

from pathlib import Path

from iot_agent.core.errors import Code, Fatal, Retryable
from iot_agent.core.ports import Credentials
from iot_agent.keys import certificates
from iot_agent.storage import atomic, layout


class FileKeys:
    """The `KeyStore` whose keys are files under the directory `root`."""

    backend = "file"

    def __init__(self, root: Path) -> None:
        self._root = root

    def generate(self, label: str, algorithm: str) -> None:
        """Make a key durably, unless there is one."""
        try:
            atomic.make_directory(self._root)
            atomic.make_directory(self._root / label)
            if not self._path(label).exists():
                atomic.write(self._path(label), certificates.generate_key(algorithm), layout.KEY_MODE)
        except OSError as error:
            raise Retryable(Code.KEY_STORE, f"cannot store a new key: {error}") from error

    def csr(self, label: str, serial: str) -> str:
        """Build the CSR (PEM)."""
        return certificates.build_csr(self._key(label), serial)

    def public_key(self, label: str) -> bytes:
        """Give the DER SubjectPublicKeyInfo."""
        return certificates.public_key(self._key(label))

    def credentials(self, label: str, certificate: Path) -> Credentials:
        """Point at the certificate and the key file."""
        return Credentials(certificate, self._path(label))

    def labels(self) -> frozenset[str]:
        """List the labels of our keys."""
        return frozenset(filter(layout.is_label, (path.parent.name for path in self._root.glob(f"*/{layout.KEY}"))))

    def remove(self, label: str) -> None:
        """Remove the key file; its directory is the identity's."""
        try:
            self._path(label).unlink(missing_ok=True)
            if self._path(label).parent.exists():
                atomic.sync_directory(self._path(label).parent)
        except OSError as error:
            raise Retryable(Code.KEY_STORE, f"cannot remove {self._path(label)}: {error}") from error

    def _path(self, label: str) -> Path:
        return self._root / label / layout.KEY

    def _key(self, label: str) -> certificates.PrivateKey:
        try:
            return certificates.load_key(atomic.read(self._path(label)))
        except OSError as error:
            raise Fatal(Code.KEY_STORE, f"cannot read {self._path(label)}: {error}") from error
