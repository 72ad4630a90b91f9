"""Looking into a key store. A backend gives an `Inspector`; `inspect` is the one way to use it, for all of them."""

from collections.abc import Callable
from typing import Protocol

from iot_agent.core.errors import AgentError
from iot_agent.core.ports import KeyStore
from iot_agent.core.record import Record
from iot_agent.doctor.rules.keystore import Keys, Pin, Store, withhold

PIN_FLAGS = {  # CK_TOKEN_INFO's, the worst first
    "USER_PIN_LOCKED": Pin.LOCKED,
    "USER_PIN_FINAL_TRY": Pin.FINAL_TRY,
    "USER_PIN_COUNT_LOW": Pin.LOW,
}


class Inspector(Protocol):
    """What a key-store backend tells the doctor."""

    def store(self) -> Store:
        """Look at the store from outside, without logging in; never raises `AgentError`."""

    def public_key(self, label: str) -> bytes:
        """Give a key's public half (DER); may log in, once. Raises `AgentError`."""


class FileInspector:
    """The files under `identities/`: no token, no PIN."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys

    def store(self) -> Store:
        """See that the keys' directory can be listed."""
        try:
            self._keys.labels()
        except OSError as error:
            return Store("the key directory", problem=str(error))
        return Store("the key directory")

    def public_key(self, label: str) -> bytes:
        """Read the key."""
        return self._keys.public_key(label)


class TokenInspector:
    """Keys on a token, and perhaps some in files still; `look` gives the token's flags without logging in."""

    def __init__(self, keys: KeyStore, description: str, look: Callable[[], list[str]]) -> None:
        self._keys, self._description, self._look = keys, description, look

    def store(self) -> Store:
        """See that the token is there, and whether its PIN has attempts left."""
        try:
            flags = self._look()
        except AgentError as error:
            return Store(self._description, problem=str(error))
        pin = next((pin for flag, pin in PIN_FLAGS.items() if flag in flags), Pin.GOOD)
        return Store(self._description, pin)

    def public_key(self, label: str) -> bytes:
        """Have the token, or the file, give the key's public half."""
        return self._keys.public_key(label)


def inspect(inspector: Inspector, labels: list[str], record: Record) -> Keys:
    """Look at the store, then at each of these keys, unless that could cost a PIN attempt that must not be spent.

    The first failure is the last attempt where there is a PIN: the labels after it are not tried.
    """
    store = inspector.store()
    if store.problem is not None:
        return Keys(store)
    withheld = withhold(store, record)
    found: dict[str, bytes | str] = {}
    for label in labels:
        if withheld is not None:
            break
        try:
            found[label] = inspector.public_key(label)
        except AgentError as error:
            found[label] = f"{label}: {error}"
            withheld = withhold(inspector.store(), record)
    return Keys(store, found, withheld)
