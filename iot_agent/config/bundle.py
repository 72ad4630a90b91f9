"""Checks the files that agent.yaml names: each exists, the agent can read it, and it contains what it should.

A device without an identity of its own needs all of them, and waits until they are right: without them every step
would fail. A device with an identity does not need the bootstrap identity, and starts whatever is wrong with the files:
its identity still works. But a configuration that a person checks or reloads is refused if its CA files are unfit.
"""

import grp
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from iot_agent.core.errors import REMEDIES, Code, Retryable
from iot_agent.core.settings import Settings, Token
from iot_agent.keys import certificates
from iot_agent.keys.pin import PinSources
from iot_agent.storage.identities import IdentityDirectories

LARGEST = 1024 * 1024  # bytes; all CAs of the web together need a quarter of that
CERTIFICATE, KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"
ELF = b"\x7fELF"
LIBRARY = "install the PKCS #11 library of the token, and name it in keys.module"
RESTORE = "replace it with the file that was made for this device"
CONFIGURATION = Path("/etc/iot-agent")  # the package's tmpfiles.d lets the agent's group read what is in it


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, and what to do about it."""

    path: Path
    wrong: str
    remedy: str

    def __str__(self) -> str:
        """Give both in one line."""
        return f"{self.wrong}; {self.remedy}"


def problems(given: Settings, *, starting: bool) -> list[Problem]:
    """Check the files that this device needs; `starting`: the agent starts, so it is no check or reload by a person."""
    named: dict[str, tuple[Path, bytes]] = {"endpoint.ca_file": (given.endpoint_ca_file, CERTIFICATE)}
    if given.manufacturer_ca is not None:
        named["manufacturer_ca"] = (given.manufacturer_ca, CERTIFICATE)
    if not has_identity(given.state_directory):
        named["bootstrap.certificate"] = (given.bootstrap_certificate, CERTIFICATE)
        if isinstance(given.bootstrap_key, Path):
            named["bootstrap.key"] = (given.bootstrap_key, KEY)
    elif starting:
        return []
    found = list(_problems(named))
    if given.keys_token is not None and not starting:
        found += _token_problems(given.keys_token, given.state_directory)
    return found


def has_identity(state: Path) -> bool:
    """Say whether there is a complete identity on the disk, whatever the record says."""
    with suppress(OSError):
        return bool(IdentityDirectories(state).complete())
    return False


def issuers(path: Path | None) -> str | None:
    """Read the manufacturer's CAs (PEM); None where none are given. Raises `Retryable("unfit-certificate")`.

    A file that is given and cannot be used is not the same as none: then no certificate is accepted.
    """
    if path is None:
        return None
    try:
        text = _read(path).decode()
        certificates.load_issuers(text)
    except (OSError, ValueError) as error:
        said = f"no certificate is accepted without the manufacturer's CA, and {path} cannot be used: {error}"
        raise Retryable(Code.UNFIT_CERTIFICATE, said) from error
    return text


def _problems(named: dict[str, tuple[Path, bytes]]) -> Iterator[Problem]:
    for key, (path, mark) in named.items():
        try:
            flaw = _flaw(_read(path), mark, parsed=key == "manufacturer_ca")
        except (FileNotFoundError, NotADirectoryError):
            remedy = "copy it there from the bundle that was made for this device"
            yield Problem(path, f"{path}: {key}: does not exist", remedy)
        except PermissionError:
            yield Problem(path, f"{path}: {key}: the agent's user cannot read it", _permit(path))
        except OSError as error:
            yield Problem(path, f"{path}: {key}: cannot be read: {error}", RESTORE)
        else:
            if flaw is not None:
                yield Problem(path, f"{path}: {key}: {flaw}", RESTORE)


def _token_problems(token: Token, state: Path) -> Iterator[Problem]:
    """Check the token's library and the file with its PIN; only the service can read a credential."""
    module = Path(token.module)
    try:
        with os.fdopen(os.open(module, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if file.read(len(ELF)) != ELF:
                yield Problem(module, f"{module}: keys.module: is not a library", LIBRARY)
    except OSError as error:
        yield Problem(module, f"{module}: keys.module: {error.strerror}", LIBRARY)
    scheme, _, path = token.pin_source.partition(":")
    if scheme == "file":
        try:
            PinSources(state).read(token)
        except Retryable as error:
            yield Problem(Path(path), f"{path}: keys.pin: {error}", REMEDIES[error.code])


def _flaw(content: bytes, mark: bytes, *, parsed: bool) -> str | None:
    """Say what is wrong with the content; a file that is still being copied may be empty."""
    if mark not in content:
        return f"contains no {'certificate' if mark is CERTIFICATE else 'private key'} in PEM"
    try:
        if parsed:
            certificates.load_issuers(content.decode())
    except ValueError as error:
        return f"contains a certificate that cannot be read: {error}"
    return None


def _read(path: Path) -> bytes:
    """Read a file that somebody else wrote; it may be a link, and a FIFO does not block us. Raises `OSError`."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        content = file.read(LARGEST + 1) or b""  # None: a FIFO into which nothing has been written
    if len(content) > LARGEST:
        raise OSError(f"larger than {LARGEST} bytes")
    return content


def _permit(path: Path) -> str:
    """Give the command that lets the agent's user read a file: for the outermost directory that stops it, or it."""
    if path.parent == CONFIGURATION / "bootstrap" or (path.parent == CONFIGURATION and path.suffix == ".pem"):
        return "run: sudo systemd-tmpfiles --create iot-agent.conf"
    try:
        group = grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        group = str(os.getegid())
    closed = [above for above in reversed(path.parents) if not os.access(above, os.X_OK, effective_ids=True)]
    where, mode = (closed[0], "0750") if closed else (path, "0640")
    return f"run: sudo chown root:{group} {where} && sudo chmod {mode} {where}"
