"""Lets the applications on the device use the active identity: a group may read it, and a file names it.

The agent itself does not need this, so whatever goes wrong here is logged, and the record is saved all the same. The
files of the active identity get the group `identity.group` and the modes that `layout` names; every other key stays
private. The group can read an identity before `current` points at it, so that a program that follows the link can read
what it finds. It can read the previous identity until that is removed, or until the next start.
"""

import grp
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iot_agent.core.ports import Identities
from iot_agent.core.record import Record
from iot_agent.core.settings import Settings
from iot_agent.storage import atomic, layout
from iot_agent.storage.announcement import announcement

log = logging.getLogger(__name__)


class ApplicationAccess:
    """The `Applications` port: permissions for the group `identity.group`, and the file `identity.json`."""

    def __init__(self, identities: Identities, settings: Settings) -> None:
        self._identities, self._settings = identities, settings
        self._group = settings.identity_group
        self._published: Record | None = None

    def begin(self, record: Record) -> None:
        """At start: take from the group what it should not read any more, give it what it should, and tell."""
        with _logged("a group may be able to read identities that it should not read"):
            for label in self._identities.labels():
                if self._group is None or record.active is None or label != record.active.label:
                    self._close(self._identities.certificate(label).parent)
            if self._group is None:
                for directory in filter(Path.exists, self._way()):
                    _set(directory, layout.PRIVATE_DIRECTORY_MODE, os.getegid())
        self.prepare(record)
        self.publish(record)

    def reload(self, settings: Settings) -> None:
        """Tell what changed with the settings; not the group, which can only change with a restart."""
        self._settings = settings
        if self._published is not None:
            self.publish(self._published)

    def prepare(self, record: Record) -> None:
        """Give the active identity to the group."""
        if self._group is None or record.active is None:
            return
        problem = (
            f"group {self._group} cannot be given the identity; is the agent's user in it, and does the unit let it be "
            "seen (PrivateUsers=)? See docs/applications.md"
        )
        with _logged(problem):
            directory = self._identities.certificate(record.active.label).parent
            gid = grp.getgrnam(self._group).gr_gid
            if (directory / layout.KEY).exists():  # a key in a token has the token's own protection
                _set(directory / layout.KEY, layout.GROUP_KEY_MODE, gid)
            _set(directory, layout.GROUP_DIRECTORY_MODE, gid)
            for above in self._way():
                _set(above, layout.GROUP_WAY_MODE, gid)

    def publish(self, record: Record) -> None:
        """Write the file if its content changes: a program that watches it is not woken for nothing."""
        self._published = record
        path = self._settings.run_directory / layout.ANNOUNCEMENT
        with _logged("applications could not be told which identity is active"):
            if record.active is None:
                path.unlink(missing_ok=True)
                return
            directory = self._identities.certificate(record.active.label).parent
            chain = (directory / layout.CHAIN).exists()
            news = announcement(self._settings, record.active, _key(directory), chain=chain)
            if not path.exists() or atomic.read(path) != news:
                atomic.write(path, news, layout.PUBLIC_FILE_MODE)

    def _close(self, directory: Path) -> None:
        if directory.stat().st_mode & 0o077:
            _set(directory, layout.PRIVATE_DIRECTORY_MODE, os.getegid())
            if (directory / layout.KEY).exists():
                _set(directory / layout.KEY, layout.KEY_MODE, os.getegid())

    def _way(self) -> tuple[Path, Path]:
        return self._settings.state_directory / layout.IDENTITIES, self._settings.state_directory


@contextmanager
def _logged(problem: str) -> Iterator[None]:
    """Log what goes wrong with files, groups or names, and go on."""
    try:
        yield
    except (OSError, KeyError, ValueError) as error:
        log.warning("%s: %s", problem, error)


def _key(directory: Path) -> str:
    """Name the key of an identity: its file, or what `key.uri` says of where it is on a token (RFC 7512)."""
    reference = directory / layout.KEY_ON_TOKEN
    return atomic.read(reference).decode().strip() if reference.exists() else str(directory / layout.KEY)


def _set(path: Path, mode: int, gid: int) -> None:
    """Give a file or directory of ours its group and mode, never through a link; nothing is done if it has them."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        seen = os.fstat(descriptor)
        if seen.st_gid != gid:
            os.fchmod(descriptor, mode & 0o700)  # not even for a moment open to the group before
            os.fchown(descriptor, -1, gid)
        if seen.st_gid != gid or seen.st_mode & 0o7777 != mode:
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
