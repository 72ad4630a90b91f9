"""Lets the applications on the device use the identity in force: a group may read it, and a file names it.

Convenience, never a condition: whatever goes wrong here is logged, and the record is saved all the same. With
`identity.group` set, the way to the identity in force is 0710, its directory 0750 and its key 0640, all of that group;
every other key stays 0600. The identity is opened before `current` flips to it, so that whoever follows the link can
read what it finds; the previous one stays open until it is removed.
"""

import grp
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iot_agent.core.ports import Identities, StateStore
from iot_agent.core.reconcile import OnDisk
from iot_agent.core.record import Record
from iot_agent.core.settings import Settings
from iot_agent.storage import atomic, layout
from iot_agent.storage.announcement import announcement

log = logging.getLogger(__name__)


class PublishingStore:
    """The `StateStore` that, around each save, lets applications have what became the identity in force."""

    def __init__(self, store: StateStore, identities: Identities, settings: Settings) -> None:
        self._store, self._identities, self._settings = store, identities, settings
        self._group = settings.identity_group
        self._record: Record | None = None

    def begin(self, record: Record) -> None:
        """At start: close what should not be open any more, open what should, and tell."""
        with _never_in_the_way("identities may be open to a group that should not read them"):
            for label in self._identities.labels():
                if self._group is None or record.active is None or label != record.active.label:
                    self._close(self._identities.certificate(label).parent)
            if self._group is None:
                for directory in filter(Path.exists, self._way()):
                    _set(directory, layout.PRIVATE_DIRECTORY, os.getegid())
        self._open(record)
        self._tell(record)

    def disk(self) -> OnDisk:
        """Tell what the store tells."""
        return self._store.disk()

    def save(self, record: Record) -> None:
        """Save; raises `OSError` only if that fails."""
        if self._record is None or record.active != self._record.active:
            self._open(record)
        self._store.save(record)
        self._tell(record)

    def reload(self, settings: Settings) -> None:
        """Take over changed settings; the group stays, it changes only with a restart."""
        self._settings = settings
        if self._record is not None:
            self._tell(self._record)

    def _open(self, record: Record) -> None:
        if self._group is None or record.active is None:
            return
        problem = (
            f"group {self._group} cannot be given the identity; is the agent's user in it, and does the unit let it be "
            "seen (PrivateUsers=)? See docs/applications.md"
        )
        with _never_in_the_way(problem):
            directory = self._identities.certificate(record.active.label).parent
            gid = grp.getgrnam(self._group).gr_gid
            if (directory / layout.KEY).exists():  # a key in a token has the token's own protection
                _set(directory / layout.KEY, layout.GROUP_KEY, gid)
            _set(directory, layout.GROUP_DIRECTORY, gid)
            for above in self._way():
                _set(above, layout.GROUP_WAY, gid)

    def _close(self, directory: Path) -> None:
        if directory.stat().st_mode & 0o077:
            _set(directory, layout.PRIVATE_DIRECTORY, os.getegid())
            if (directory / layout.KEY).exists():
                _set(directory / layout.KEY, layout.KEY_MODE, os.getegid())

    def _way(self) -> tuple[Path, Path]:
        return self._settings.state_directory / layout.IDENTITIES, self._settings.state_directory

    def _tell(self, record: Record) -> None:
        """Write the announcement, if it is news: whoever watches the file is woken for nothing else."""
        self._record = record
        path = self._settings.run_directory / layout.ANNOUNCEMENT
        with _never_in_the_way("applications could not be told of the identity in force"):
            if record.active is None:
                path.unlink(missing_ok=True)
                return
            directory = self._identities.certificate(record.active.label).parent
            chain = (directory / layout.CHAIN).exists()
            news = announcement(self._settings, record.active, _key(directory), chain=chain)
            if not path.exists() or atomic.read(path) != news:
                atomic.write(path, news, layout.PUBLIC_FILE)


@contextmanager
def _never_in_the_way(problem: str) -> Iterator[None]:
    """Log whatever goes wrong with files, groups or names on the disk, and go on."""
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
