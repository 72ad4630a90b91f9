"""The ports: the interfaces between steps and cycle and their adapters. The simulator implements them, too."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from iot_agent.core.errors import Retryable
from iot_agent.core.reconcile import OnDisk
from iot_agent.core.record import Certificate, Identity, Outcome, Record
from iot_agent.core.settings import Token, TokenKey

T = TypeVar("T")


@dataclass(frozen=True)
class Credentials:
    """What a TLS client shows and signs with: a certificate (PEM file, perhaps with its chain), and its key."""

    certificate: Path
    key: Path | TokenKey


class Pins(Protocol):
    """The PINs of tokens. A PIN that a token has refused is not given out again: tokens lock after a few attempts."""

    def read(self, token: Token) -> str:
        """Give the PIN; raises `Retryable("pin-refused")`, or `Retryable("pin")` if it cannot be read."""

    def refused(self, token: Token, pin: str) -> Retryable:
        """Remember durably that the token has refused this PIN; gives the error to raise."""


class KeyStore(Protocol):
    """Keys by label. Every call is idempotent, so that a step may be run again after a crash anywhere in it.

    All raise `Retryable` ("key-store", "token", "token-full", "pin", "pin-refused", "pin-locked") or
    `Fatal("key-store")`: the key is not there, or this store cannot make such a key.
    """

    backend: str

    def generate(self, label: str, algorithm: str) -> None:
        """Make a key durably; a complete key that is already under this label is kept."""

    def csr(self, label: str, serial: str) -> str:
        """Build the certificate signing request (PEM) of this key, with subject CN = serial."""

    def public_key(self, label: str) -> bytes:
        """Give the public key as DER SubjectPublicKeyInfo."""

    def credentials(self, label: str, certificate: Path) -> Credentials:
        """Say how a TLS client uses this key with that certificate."""

    def labels(self) -> frozenset[str]:
        """List the labels of our keys; keys of other programs are left out."""

    def remove(self, label: str) -> None:
        """Destroy a key; fine if it is not there."""


class Session(Protocol):
    """One MQTT connection over mutual TLS, as one identity."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe with QoS 1; `Retryable("not-permitted")` if any is denied."""

    def exchange(self, topic: str, payload: bytes, reply_topic: str, accept: Callable[[bytes], T | None]) -> T:
        """Publish (QoS 1) and wait until `accept` gives a result; it gives None for a message that is not the reply."""


class Cloud(Protocol):
    """The way to the broker."""

    def session(self, credentials: Credentials) -> AbstractContextManager[Session]:
        """Open a session as this identity; raises `Retryable` ("unreachable", "untrusted-server", "refused")."""


class Identities(Protocol):
    """The identity directories on disk. All raise `OSError`."""

    def create(self, label: str, csr: str) -> None:
        """Durably make the directory of a new key, with its CSR."""

    def store(self, identity: Identity, pem: str, chain: str | None) -> None:
        """Durably add the certificate that was issued for this key, and its facts."""

    def certificate(self, label: str) -> Path:
        """Say where the certificate of this identity is."""

    def labels(self) -> frozenset[str]:
        """Name all identities on disk, complete or not."""

    def remove(self, label: str) -> None:
        """Durably remove an identity; fine if it is not there."""

    def complete(self) -> tuple[Identity, ...]:
        """Find every identity that has its key and its certificate, in no order."""

    def orphans(self) -> frozenset[str]:
        """Name the identities that have no certificate: what a crash has left."""

    def current(self) -> str | None:
        """Name the identity that the link `current` points at."""

    def point_current(self, label: str) -> None:
        """Make `current` lead to this identity, in one rename."""


class StateStore(Protocol):
    """Where the record is stored."""

    def disk(self) -> OnDisk:
        """List the identities on the disk that can be read now."""

    def save(self, record: Record) -> None:
        """Write it durably; raises `OSError`."""


class Applications(Protocol):
    """The programs on this device that use the active identity. The agent does not need them, so nothing raises."""

    def prepare(self, record: Record) -> None:
        """Let them read the active identity, before `current` points at it."""

    def publish(self, record: Record) -> None:
        """Tell them which identity is active, after the record that says so was saved."""


class Clock(Protocol):
    """The wall clock, and a clock that nobody can set."""

    def now(self) -> float:
        """Give seconds since the epoch, never below the floor."""

    def elapsed(self) -> float:
        """Give seconds since some moment, the machine's sleep included; setting the wall clock does not change them."""

    @property
    def trusted(self) -> bool:
        """Whether the wall clock is not below the floor."""

    def lift(self, floor: int) -> None:
        """Raise the floor to this time."""


class ServiceManager(Protocol):
    """The service manager."""

    def ready(self) -> None:
        """Say that starting or reloading is over."""

    def status(self, text: str) -> None:
        """Show one line."""

    def alive(self) -> None:
        """Restart the watchdog's timer."""

    def reloading(self) -> None:
        """Say that a reload has begun."""

    def stopping(self) -> None:
        """Say that the end has begun."""


class Work(Protocol):
    """A step that runs in a child process."""

    def fileno(self) -> int:
        """Give a descriptor that becomes readable when there may be an outcome."""

    @property
    def seconds_left(self) -> float:
        """Seconds until it is stopped."""

    def poll(self) -> Outcome | None:
        """Give the outcome if there is one."""

    def kill(self) -> None:
        """End it now."""


class Examiner(Protocol):
    """The check that an issued certificate is fit."""

    def __call__(self, pem: str, chain: str | None, public_key: bytes) -> Certificate:
        """Give its facts, or raise `Retryable("unfit-certificate")` saying which check failed."""
