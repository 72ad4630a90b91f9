"""What must hold on a disk that lost its power, and what must become of the device on it.

1. Before the recovery: nothing secret can be read by others; the cloud accepts an identity that is there; `current`
   leads to an identity that is whole, once it has led to one.
2. A save that has returned is not lost: the record found is the last one saved, or one whose save had begun since. Each
   certificate that it knows is there with its key, and the key that it says is made; production code opens them. The
   cloud accepts one of them, and if the record says `acked`, that is the one which the cloud has acknowledged.
3. Production code recovers: no file is found damaged; the device comes to rest `acked`, with the one certificate that
   is ACTIVE, and leaves nothing beside it.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from iot_agent.core.errors import AgentError
from iot_agent.core.record import Record, State
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.record_store import RecordStore
from tests.powercut.life import empty
from tests.powercut.moments import Ledger, Moment, put_back
from tests.simulator.cloud import Faults
from tests.simulator.device import SERIAL, NoProgress, SimulatedDevice
from tests.simulator.fuse import Fuse

PATIENCE = 20  # turns of the device until what could not be removed is gone
PUBLIC = ("certificate.pem", "chain.pem", ".certificate.pem.new", ".chain.pem.new", "vendor.pem")


def judge(device: SimulatedDevice, ledger: Ledger, moment: Moment, root: Path) -> None:
    """Recover the device on the file system at `root`, at a moment of its life; `AssertionError` says what is wrong."""
    device.disk = root / "iot-agent"
    device.vendor_key = device.disk / "vendor.key"
    device.bootstrap = type(device.bootstrap)(device.disk / "vendor.pem", device.vendor_key)
    device.fuse, device.faults = Fuse(), Faults()
    put_back(device, moment.told)
    check_private(device.disk)
    device.check_never_bricked()
    check_current(device, ledger.begun[moment.saved])
    check_record(device, ledger.may_be_found(moment))
    with mock.patch.object(os, "fsync"):  # the power does not go again: half the time is saved
        recover(device, root)
    device.check_settled()
    strays = [path.name for path in device.disk.rglob(".*")]
    assert not strays, f"left over: {strays}"


def recover(device: SimulatedDevice, root: Path) -> None:
    """Boot, and live on until the device has come to rest and nothing waits to be removed."""
    device.boot()
    damaged = [path.name for path in device.disk.iterdir() if ".bad" in path.name]
    assert not damaged, f"found damaged: {damaged}"
    device.check_never_bricked()
    empty(root)
    try:
        device.life(max(1, device.record.rotations))
        for _ in range(PATIENCE):
            if device.record.to_delete:  # removing it failed before the power went: it is tried again later
                device.turn()
        device.life(device.record.rotations)
    except NoProgress as stuck:
        raise AssertionError(f"never came to rest: {stuck}") from stuck


def check_private(disk: Path) -> None:
    """Only the device's user can read what it made, certificates excepted."""
    for path in disk.rglob("*"):
        if not path.is_symlink() and path.name not in PUBLIC:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode & 0o077 == 0, f"{path.name} has mode {mode:o}"


def check_current(device: SimulatedDevice, saved: Record) -> None:
    """Applications find an identity that is whole, since the first one was saved as the one in force."""
    if saved.active is not None:
        current = device.disk / "current"
        whole = {path.parent for path in device.complete_identities().values()}
        assert current.is_symlink(), "`current` is gone"
        assert current.resolve() in whole, f"`current` leads to {current.readlink()}, which is not whole"


def check_record(device: SimulatedDevice, allowed: list[Record]) -> None:
    """Check that the record is one that was saved, and that all that it names is on the disk."""
    found = RecordStore(device.disk, IdentityDirectories(device.disk), SERIAL).load()
    assert found in allowed, f"a save that had returned is lost; found is {found}"
    whole = device.complete_identities()
    found_whole = {identity.label for identity in IdentityDirectories(device.disk).complete()}
    for label, certificate_id in promised(found):
        assert certificate_id in whole, f"{label} is in the record, and not whole on the disk"
        assert label in found_whole, f"{label} is in the record, and production code does not find it whole"
        check_key(device, label)
    if found.pending is not None and found.pending.generated:
        check_key(device, found.pending.label)
    check_against_the_cloud(device, found)


def check_key(device: SimulatedDevice, label: str) -> None:
    """Production code can use the key of an identity that the record knows."""
    try:
        device._context().keys.public_key(label)
    except AgentError as error:
        raise AssertionError(f"the record says that {label} has a key: {error}") from error


def check_against_the_cloud(device: SimulatedDevice, found: Record) -> None:
    """Check that the cloud accepts an identity of the record, and that `acked` is what the cloud says too."""
    known = {certificate_id for _, certificate_id in promised(found)}
    if found.active is not None:
        assert any(map(device.cloud.accepts, known)), f"the cloud accepts none of those in the record: {sorted(known)}"
    if found.state is State.ACKED:
        in_force = device.cloud.table.items[SERIAL].active
        assert in_force is not None, "the record says acked, and the cloud has acknowledged nothing"
        assert in_force.certificate_id in known, (
            f"the record says acked; the cloud acknowledged {in_force.certificate_id}"
        )


def promised(record: Record) -> Iterator[tuple[str, str]]:
    """Give label and certificate id of each identity that must be there."""
    for identity in (record.active, *record.unconfirmed, record.pending):
        if identity is not None and identity.certificate is not None:
            yield identity.label, identity.certificate.certificate_id
