"""Bugs of storage to be found: each breaks one thing that a durable write, or its place in a step, must do."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from iot_agent.core.codec import encode_record
from iot_agent.core.record import Identity, Kind, Record, Success
from iot_agent.storage import atomic, layout
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.record_store import RecordStore
from iot_agent.worker import steps

Patch = pytest.MonkeyPatch


def put(path: Path, content: bytes, mode: int, *, sync: bool = True, temporary: str = "") -> None:
    """Write a file, or another in its place that is then renamed; each planted write leaves something out of this."""
    written = path.with_name(temporary) if temporary else path
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.fchmod(descriptor, mode)
        os.write(descriptor, content)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if temporary:
        written.replace(path)


# ---- the durable write -----------------------------------------------------------------------------------------------


def no_sync_of_the_file(patch: Patch) -> None:
    def write(path: Path, content: bytes, mode: int = layout.PRIVATE_FILE_MODE) -> None:
        put(path, content, mode, sync=False, temporary=f".{path.name}.new")
        atomic.sync_directory(path.parent)

    patch.setattr(atomic, "write", write)


def no_sync_of_the_directory(patch: Patch) -> None:
    patch.setattr(atomic, "sync_directory", lambda _path: None)


def written_in_place(patch: Patch) -> None:
    def write(path: Path, content: bytes, mode: int = layout.PRIVATE_FILE_MODE) -> None:
        put(path, content, mode)
        atomic.sync_directory(path.parent)

    patch.setattr(atomic, "write", write)


def renamed_before_it_is_synced(patch: Patch) -> None:
    def write(path: Path, content: bytes, mode: int = layout.PRIVATE_FILE_MODE) -> None:
        put(path, content, mode, sync=False, temporary=f".{path.name}.new")
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        atomic.sync_directory(path.parent)

    patch.setattr(atomic, "write", write)


def readable_by_all_at_first(patch: Patch) -> None:
    def write(path: Path, content: bytes, mode: int = layout.PRIVATE_FILE_MODE) -> None:
        temporary = f".{path.name}.new"
        put(path.with_name(temporary), content, layout.PUBLIC_FILE_MODE)
        path.with_name(temporary).chmod(mode)
        path.with_name(temporary).replace(path)
        atomic.sync_directory(path.parent)

    patch.setattr(atomic, "write", write)


def a_new_temporary_each_time(patch: Patch) -> None:
    """Leave the one of a write that was interrupted where it is."""

    def write(path: Path, content: bytes, mode: int = layout.PRIVATE_FILE_MODE) -> None:
        put(path, content, mode, temporary=f".{path.name}.{secrets.token_hex(4)}")
        atomic.sync_directory(path.parent)

    patch.setattr(atomic, "write", write)


def current_is_removed_and_made_again(patch: Patch) -> None:
    def point(link: Path, target: str) -> None:
        if not link.is_symlink() or link.readlink() != Path(target):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            atomic.sync_directory(link.parent)

    patch.setattr(atomic, "point", point)


def nothing_synced_at_boot(patch: Patch) -> None:
    patch.setattr(atomic, "sync_tree", lambda _path: None)


# ---- one file --------------------------------------------------------------------------------------------------------


def unsynced(patch: Patch, name: str) -> None:
    """Write files of one name without any sync."""
    honest = atomic.write

    def write(path: Path, content: bytes, mode: int = layout.PRIVATE_FILE_MODE) -> None:
        if path.name == name:
            put(path, content, mode, sync=False, temporary=f".{path.name}.new")
        else:
            honest(path, content, mode)

    patch.setattr(atomic, "write", write)


def key_not_synced(patch: Patch) -> None:
    unsynced(patch, "key.pem")


def certificate_not_synced(patch: Patch) -> None:
    unsynced(patch, "certificate.pem")


def record_without_the_one_before(patch: Patch) -> None:
    """Remove the record, then write the new one."""

    def save(store: RecordStore, record: Record) -> None:
        store._path.unlink(missing_ok=True)
        atomic.write(store._path, encode_record(record))
        if record.active is not None:
            store._point_current(record.active.label)

    patch.setattr(RecordStore, "save", save)


# ---- the order of a step ---------------------------------------------------------------------------------------------


def record_before_the_certificate(patch: Patch) -> None:
    """Keep a new certificate in memory until it is to be proven; the record says meanwhile that it is stored."""
    honest_store, honest_prove = IdentityDirectories.store, steps.STEPS[Kind.PROVE]

    def store(identities: IdentityDirectories, identity: Identity, pem: str, chain: str | None) -> None:
        vars(identities)["held"] = (identity, pem, chain)  # gone with the process, as memory is

    def prove(record: Record, now: float, context: steps.StepContext) -> Success:
        held = vars(context.identities).pop("held", None)
        if held is not None:
            honest_store(context.identities, *held)  # type: ignore[arg-type]  # the production adapter
        return honest_prove(record, now, context)

    patch.setattr(IdentityDirectories, "store", store)
    patch.setitem(steps.STEPS, Kind.PROVE, prove)


def removed_before_it_is_recorded(patch: Patch) -> None:
    """Remove what a proof supersedes before the record says that it is superseded."""
    honest = steps.STEPS[Kind.PROVE]

    def prove(record: Record, now: float, context: steps.StepContext) -> Success:
        proven = honest(record, now, context)
        if record.active is not None:
            context.identities.remove(record.active.label)
        return proven

    patch.setitem(steps.STEPS, Kind.PROVE, prove)


@dataclass(frozen=True)
class Plant:
    """A planted bug, and where it is found soonest: the kind of life, and the file system, by their names."""

    break_it: Callable[[Patch], None]
    life: str
    system: str

    @property
    def name(self) -> str:
        """What the bug is called."""
        return self.break_it.__name__


PLANTS = (
    Plant(no_sync_of_the_file, "undisturbed", "ext4"),
    Plant(no_sync_of_the_directory, "undisturbed", "ext4"),
    Plant(written_in_place, "undisturbed", "ext4"),
    Plant(renamed_before_it_is_synced, "undisturbed", "ext4"),
    Plant(readable_by_all_at_first, "undisturbed", "ext4"),
    Plant(a_new_temporary_each_time, "undisturbed", "ext4"),
    Plant(current_is_removed_and_made_again, "undisturbed", "ext4"),
    Plant(nothing_synced_at_boot, "killed_before_a_sync", "ext4"),
    Plant(key_not_synced, "undisturbed", "ext4"),
    Plant(certificate_not_synced, "undisturbed", "ext4"),
    Plant(record_without_the_one_before, "undisturbed", "ext4"),
    Plant(record_before_the_certificate, "undisturbed", "ext4"),
    Plant(removed_before_it_is_recorded, "undisturbed", "ext4"),
)
