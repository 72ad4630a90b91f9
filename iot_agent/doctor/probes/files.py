"""Modes and owners of the files and directories that the agent relies on."""

import grp
import os
from pathlib import Path

from iot_agent.core.settings import Settings
from iot_agent.doctor.rules.files import Agent, File, FileKind
from iot_agent.storage import layout
from iot_agent.storage.identities import IdentityDirectories


def look(config: Path, settings: Settings, active: str | None) -> list[File]:
    """Look at each; a file that the settings name and that is missing is among them."""
    state = settings.state_directory
    shared = settings.identity_group is not None and active is not None
    passage = FileKind.PASSAGE if shared else FileKind.STATE
    wanted = {state: passage, config: FileKind.INPUT, settings.endpoint_ca_file: FileKind.INPUT}
    wanted[settings.bootstrap_certificate] = FileKind.INPUT
    if isinstance(settings.bootstrap_key, Path):
        wanted[settings.bootstrap_key] = FileKind.DELIVERED_KEY
    if settings.manufacturer_ca is not None:
        wanted[settings.manufacturer_ca] = FileKind.INPUT
    optional = {state / layout.RECORD: FileKind.STATE, state / layout.IDENTITIES: passage}
    identities = IdentityDirectories(state)
    for label in _labels(identities):
        directory = identities.root / label
        readable = shared and label == active
        optional[directory] = FileKind.SHARED if readable else FileKind.STATE
        optional[directory / layout.KEY] = FileKind.SHARED_KEY if readable else FileKind.KEY
    return [_look(path, kind) for path, kind in wanted.items()] + [
        _look(path, kind) for path, kind in optional.items() if os.path.lexists(path)
    ]


def agent(settings: Settings) -> Agent:
    """Give the user and group that this runs as, which are the agent's, and the id of `identity.group`."""
    try:
        shared = None if settings.identity_group is None else grp.getgrnam(settings.identity_group).gr_gid
    except KeyError:
        shared = None
    return Agent(os.geteuid(), os.getegid(), shared)


def _labels(identities: IdentityDirectories) -> list[str]:
    try:
        return sorted(identities.labels())
    except OSError:
        return []  # the directory has an entry of its own, which says so


def _look(path: Path, kind: FileKind) -> File:
    try:
        seen = path.stat() if kind is FileKind.INPUT else path.lstat()
        with path.open("rb") if path.is_file() else os.scandir(path):
            pass  # this runs as the agent's user, so the agent can read it
    except OSError as error:
        return File(str(path), kind, problem=error.strerror or str(error))
    return File(str(path), kind, seen.st_mode & 0o7777, seen.st_uid, seen.st_gid)
