"""Modes and owners of everything the agent relies on."""

import grp
import os
from pathlib import Path

from iot_agent.core.settings import Settings
from iot_agent.doctor.rules.files import Agent, File, Kind
from iot_agent.storage import layout
from iot_agent.storage.identities import IdentityDirectories


def look(config: Path, settings: Settings, active: str | None) -> list[File]:
    """See what is there; a file of the settings that is missing is told as well."""
    state = settings.state_directory
    shared = settings.identity_group is not None and active is not None
    way = Kind.WAY if shared else Kind.STATE
    wanted = {state: way, config: Kind.INPUT, settings.endpoint_ca_file: Kind.INPUT}
    wanted[settings.bootstrap_certificate] = Kind.INPUT
    if isinstance(settings.bootstrap_key, Path):
        wanted[settings.bootstrap_key] = Kind.DELIVERED_KEY
    if settings.manufacturer_ca is not None:
        wanted[settings.manufacturer_ca] = Kind.INPUT
    optional = {state / layout.RECORD: Kind.STATE, state / layout.IDENTITIES: way}
    identities = IdentityDirectories(state)
    for label in _labels(identities):
        directory = identities.root / label
        mine, key = (Kind.SHARED, Kind.SHARED_KEY) if shared and label == active else (Kind.STATE, Kind.KEY)
        optional |= {directory: mine, directory / layout.KEY: key}
    return [_look(path, kind) for path, kind in wanted.items()] + [
        _look(path, kind) for path, kind in optional.items() if os.path.lexists(path)
    ]


def agent(settings: Settings) -> Agent:
    """Name who looks, which is the agent's user, and the group that applications have in common."""
    try:
        shared = None if settings.identity_group is None else grp.getgrnam(settings.identity_group).gr_gid
    except KeyError:
        shared = None
    return Agent(os.geteuid(), os.getegid(), shared)


def _labels(identities: IdentityDirectories) -> list[str]:
    try:
        return sorted(identities.labels())
    except OSError:
        return []  # that the directory cannot be read is told by its own entry


def _look(path: Path, kind: Kind) -> File:
    try:
        seen = path.stat() if kind is Kind.INPUT else path.lstat()
        with path.open("rb") if path.is_file() else os.scandir(path):
            pass  # the agent's own user, which this runs as, can read it
    except OSError as error:
        return File(str(path), kind, problem=error.strerror or str(error))
    return File(str(path), kind, seen.st_mode & 0o7777, seen.st_uid, seen.st_gid)
