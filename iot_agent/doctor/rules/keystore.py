"""The key store: present, its PIN not about to be locked, and the needed keys in it. Pure.

A token counts wrong PINs, and a TPM or a smart card locks after a few. So the doctor does not log in if an attempt may
have failed: when the token reports failed attempts, or when the agent's own last failure was of the key store.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from iot_agent.core.errors import REMEDIES, Code
from iot_agent.core.record import Record
from iot_agent.doctor.findings import Finding, error, fine, skipped, warning

BUSY = "the agent is in the middle of a step, which may be using the token"
SUSPECT = frozenset({Code.KEY_STORE, Code.PIN_REFUSED, Code.PIN_LOCKED})  # failures after which a PIN is not tried


class Pin(Enum):
    """What is known about a PIN without a login, from the token's flags (PKCS #11 v3.0, section 4.4, CK_TOKEN_INFO)."""

    NOT_NEEDED = "none is needed"
    GOOD = "no attempt has failed"
    LOW = "attempts have failed"
    FINAL_TRY = "one attempt is left"
    LOCKED = "it is locked"
    UNKNOWN = "the token does not say"


@dataclass(frozen=True)
class Store:
    """A key store without a login: `problem` is why it cannot be used (the token is missing), None if it can."""

    description: str
    pin: Pin = Pin.NOT_NEEDED
    problem: str | None = None


@dataclass(frozen=True)
class Keys:
    """The store, and for each label that is needed its public key (DER), or why there is none.

    `withheld` says why no login was tried for the other labels, None if all were looked at.
    """

    store: Store
    found: Mapping[str, bytes | str] = field(default_factory=dict)
    withheld: str | None = None


def withhold(store: Store, record: Record, *, lock_held: bool) -> str | None:
    """Say why a login must not be tried now; None if it may."""
    if store.pin is Pin.NOT_NEEDED:
        return None
    if not lock_held:
        return BUSY
    if store.pin in (Pin.LOW, Pin.FINAL_TRY, Pin.LOCKED):
        return str(store.pin.value)
    failure = record.failure
    if failure is not None and failure.code in SUSPECT:
        return f"the agent's last failure was of the key store: {failure.message}"
    return None


def judge(seen: Keys) -> Iterator[Finding]:
    """Judge the store, its PIN, then each key."""
    store = seen.store
    if store.problem is not None:
        yield error("keys.store", f"{store.description}: {store.problem}", REMEDIES[Code.KEY_STORE])
        return
    yield fine("keys.store", f"{store.description} is present")
    if store.pin is Pin.LOCKED:
        yield error(
            "keys.pin", "the PIN is locked", "Unlock it with the security officer's PIN, then correct the agent's PIN."
        )
    elif store.pin in (Pin.LOW, Pin.FINAL_TRY):
        remedy = "Correct the PIN before another attempt is made; one successful login resets the count."
        yield error("keys.pin", f"the PIN: {store.pin.value}", remedy)
    elif store.pin is not Pin.NOT_NEEDED:
        yield fine("keys.pin", f"the PIN: {store.pin.value}")
    if seen.withheld == BUSY:
        yield skipped("keys", f"not looked at: {BUSY}")
    elif seen.withheld is not None:
        yield skipped("keys", f"not looked at, because a login with a wrong PIN would count: {seen.withheld}")
        if store.pin in (Pin.GOOD, Pin.UNKNOWN):
            yield warning("keys.pin", "the PIN may be wrong: no login was tried", REMEDIES[Code.KEY_STORE])
    for label, key in seen.found.items():
        if isinstance(key, str):
            yield error(f"keys.{label}", key, REMEDIES[Code.BAD_CREDENTIALS])
