"""What is in the key store. Each backend has an `Inspector`; `inspect` uses it, and spends no PIN attempt in vain."""

from collections.abc import Callable
from typing import Protocol

from iot_agent.core.errors import AgentError
from iot_agent.core.ports import KeyStore
from iot_agent.core.record import Record
from iot_agent.core.settings import Settings, Token
from iot_agent.doctor.rules.keystore import Keys, Pin, Store, withhold
from iot_agent.keys.keyring import KeyRing
from iot_agent.keys.token import TokenKeys

TOKEN_LIMIT = 30.0  # seconds for one operation of a token

PIN_FLAGS = {  # CK_TOKEN_INFO's, the worst first
    "USER_PIN_LOCKED": Pin.LOCKED,
    "USER_PIN_FINAL_TRY": Pin.FINAL_TRY,
    "USER_PIN_COUNT_LOW": Pin.LOW,
}


class Inspector(Protocol):
    """What the doctor asks a key store."""

    def store(self) -> Store:
        """Give what the store tells without a login; never raises `AgentError`."""

    def public_key(self, label: str) -> bytes:
        """Give a key's public half (DER); may log in, once. Raises `AgentError`."""


class FileInspector:
    """The files under `identities/`: no token, no PIN."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys

    def store(self) -> Store:
        """Check that the directory can be listed."""
        try:
            self._keys.labels()
        except OSError as error:
            return Store("the key directory", problem=str(error))
        return Store("the key directory")

    def public_key(self, label: str) -> bytes:
        """Read the key file."""
        return self._keys.public_key(label)


class TokenInspector:
    """Keys on a token, and perhaps older ones in files; `look` gives the token's flags without a login."""

    def __init__(self, keys: KeyStore, description: str, look: Callable[[], list[str]]) -> None:
        self._keys, self._description, self._look = keys, description, look

    def store(self) -> Store:
        """Check that the token is present, and whether its PIN has attempts left."""
        try:
            flags = self._look()
        except AgentError as error:
            return Store(self._description, problem=str(error))
        pin = next((pin for flag, pin in PIN_FLAGS.items() if flag in flags), Pin.GOOD)
        return Store(self._description, pin)

    def public_key(self, label: str) -> bytes:
        """Ask the token, or read the file."""
        return self._keys.public_key(label)


def inspector(settings: Settings) -> Inspector:
    """Give the inspector for where new keys are made; it finds a key that is still elsewhere, too."""
    state, token = settings.state_directory, settings.keys_token

    def on_token(which: Token) -> TokenKeys:
        return TokenKeys(state, which, TOKEN_LIMIT)

    ring = KeyRing(state, settings.keys_backend, token, on_token)
    if token is None:
        return FileInspector(ring)
    return TokenInspector(ring, f"token {token.label!r} of {token.module}", on_token(token).look)


def inspect(asked: Inspector, labels: list[str], record: Record, *, lock_held: bool) -> Keys:
    """Look at the store, then at each of these keys, unless a login might fail (`withhold`).

    Where there is a PIN, the first failure is the last attempt: the labels after it are not tried.
    """
    store = asked.store()
    if store.problem is not None:
        return Keys(store)
    withheld = withhold(store, record, lock_held=lock_held)
    found: dict[str, bytes | str] = {}
    for label in labels:
        if withheld is not None:
            break
        try:
            found[label] = asked.public_key(label)
        except AgentError as error:
            found[label] = f"{label}: {error}"
            withheld = withhold(asked.store(), record, lock_held=lock_held)
    return Keys(store, found, withheld)
