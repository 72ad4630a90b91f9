"""The PIN of a token: read from a systemd credential or a private file, and not used again after the token refused it.

A token counts wrong PINs and locks itself after a few: a daemon that tries again by itself would lock it. So a refusal
is stored durably in the state directory, with a salted scrypt digest of the refused PIN (never of an accepted one). The
PIN is used again only when it has changed, or when the modification time of its file has.
"""

import hashlib
import json
import os
import stat
from pathlib import Path

from iot_agent.core.errors import Code, Retryable
from iot_agent.core.settings import Token
from iot_agent.storage import atomic, layout

LONGEST_PIN = 4096  # bytes
SCRYPT = {"n": 2**14, "r": 8, "p": 1}


class PinSources:
    """The `Pins` port; refusals are kept in the directory `state`."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def read(self, token: Token) -> str:
        """Give the PIN, unless it is the one that this token has refused."""
        pin = _read(token.pin_source)
        try:
            known = json.loads(atomic.read(self._path(token)))
            seen = known == _fingerprint(token, pin, bytes.fromhex(known["salt"]))
        except FileNotFoundError:
            return pin
        except OSError as error:
            raise Retryable(Code.PIN, f"cannot tell whether the PIN was refused: {error}") from error
        except (ValueError, KeyError, TypeError, RecursionError):
            return pin  # the stored refusal is damaged: one more attempt is better than a device without its key
        if seen:
            raise _error(token)
        return pin

    def refused(self, token: Token, pin: str) -> Retryable:
        """Store that the token has refused this PIN; give the error to raise."""
        try:
            fingerprint = _fingerprint(token, pin, os.urandom(16))
            atomic.write(self._path(token), json.dumps(fingerprint).encode())
        except OSError as error:
            return Retryable(Code.PIN_REFUSED, f"{_error(token)}; this could not be stored: {error}")
        return _error(token)

    def _path(self, token: Token) -> Path:
        return self._state / layout.pin_refusal(token.label)


def _error(token: Token) -> Retryable:
    said = f"the token {token.label!r} refused the PIN of {token.pin_source}; it is not tried again"
    return Retryable(Code.PIN_REFUSED, said)


def _fingerprint(token: Token, pin: str, salt: bytes) -> dict[str, str | int]:
    """Tell one PIN from another. systemd makes a credential's file anew at each start, so its time does not count."""
    digest = hashlib.scrypt(pin.encode(), salt=salt, **SCRYPT)
    scheme, _, path = token.pin_source.partition(":")
    touched = Path(path).stat().st_mtime_ns if scheme == "file" else 0
    return {"salt": salt.hex(), "digest": digest.hex(), "touched": touched}


def _read(source: str) -> str:
    scheme, _, name = source.partition(":")
    try:
        path = Path(name) if scheme == "file" else _credential(name)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if scheme == "file":  # systemd protects a credential, partly with an ACL that the mode does not show
                _check_private(path, os.fstat(descriptor))
            pin = file.read(LONGEST_PIN).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Retryable(Code.PIN, f"cannot read the PIN from {source}: {error}") from error
    if not pin:
        raise Retryable(Code.PIN, f"{source} holds no PIN")
    return pin


def _check_private(path: Path, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode) or about.st_mode & 0o077 or about.st_uid not in (0, os.geteuid()):
        found = f"mode {stat.S_IMODE(about.st_mode):04o}, user {about.st_uid}"
        raise Retryable(
            Code.PIN, f"{path} must be a file that only the agent's user can read (mode 0600); it has {found}"
        )


def _credential(name: str) -> Path:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise Retryable(
            Code.PIN, f"there is no credential {name}: the unit loads none (LoadCredential=, systemd.exec(5))"
        )
    return Path(directory) / name
