"""The directory of the vendor CA's key on this machine: one for each account, region and stack.

A file in it names these three. So a directory that was chosen with --state, or copied, is refused for another place:
else `destroy --delete-vendor-key` of a test could delete the key of production.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud.common import certificates
from cloud.common.errors import SetupError
from cloud.setup import files
from cloud.setup.authorities import VendorKeys

if TYPE_CHECKING:
    from cloud.common.aws_session import Cloud

PLACE: Final = "place.json"


def path_for(here: Cloud, stack: str, chosen: Path | None, local: Path | None) -> Path:
    """Return the directory: the chosen one, in a local cloud's own directory, or by account, region and stack."""
    if chosen:
        return chosen.absolute()
    if local:
        return (local / "setup" / stack).absolute()
    return _base() / here.account / here.region / stack


def check(directory: Path, here: Cloud, stack: str) -> None:
    """Raise SetupError if the directory is that of another account, region or stack."""
    text = files.read(directory / PLACE)
    if text is None:
        return
    kept = json.loads(text)
    if kept != _place(here, stack):
        told = "stack {stack} in AWS {account} {region}".format(**kept)
        raise SetupError(
            f"{directory} has the vendor CA of {told}, not of stack {stack} in {here.place}",
            "leave out --state, or give the directory of this stack; or did you mean another account, region or stack?",
        )


def claim(directory: Path, here: Cloud, stack: str) -> None:
    """Make the directory this stack's, from now on. Raises SetupError as `check` does."""
    check(directory, here, stack)
    files.private_directory(directory)
    if files.read(directory / PLACE) is None:
        files.write(directory / PLACE, json.dumps(_place(here, stack)) + "\n")


def take_over(directory: Path, here: Cloud, stack: str, vendor_pem: str | None) -> str | None:
    """Move the directory of a version before 0.2.0 here, if its key is that of this stack; return what to tell.

    Those versions had one directory for all stacks of a name, in whatever account and region. `vendor_pem` is the
    vendor CA's certificate in this account and region: without one nothing shows whose the key is, and it stays.
    """
    former = _base() / stack
    if directory.exists() or directory != path_for(here, stack, None, None):
        return None
    key = VendorKeys(former).read()
    if key is None:
        return None
    if vendor_pem is None:
        return f"{former} has a vendor CA's key, perhaps of another account; to use it here: mv {former} {directory}"
    if not certificates.is_pair(vendor_pem, key):
        return None
    files.private_directory(directory.parent)
    former.rename(directory)
    return f"the vendor CA's key was moved from {former} to {directory}"


def _base() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "iot-agent-cloud"


def _place(here: Cloud, stack: str) -> dict[str, str]:
    return {"account": here.account, "region": here.region, "stack": stack}
