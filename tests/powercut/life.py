"""The lives whose disks are cut: a device's whole life, disturbed in one way or another, with each moment written down.

Between two effects another file is now and then written and synced, as other programs do: that commits what the device
itself has not synced yet, half-way through whatever it does.
"""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import fsync  # ours: the device's goes through its fuse
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from iot_agent.core.record import Record
from tests.powercut import kernel
from tests.powercut.disk import LoggedDisk
from tests.powercut.moments import Ledger, Moment, told
from tests.powercut.renames import Renames
from tests.simulator.device import SERIAL, NoProgress, SimulatedDevice
from tests.simulator.fuse import DISK_CALLS, Crash, Fuse

NOISE = 0.1  # another file is synced before one effect in ten
BEFORE_A_LINK = 9  # times as often before a link is made, because few are
KILLED, FAILED = 0.04, 0.04  # of the effects, in lives with such faults
KILLED_BEFORE_A_SYNC = 0.5
RESTARTS = 400
CODES = (errno.EIO, errno.ENOSPC, errno.EROFS)


class Interrupted(Fuse):
    """A fuse that also counts the calls between making a file and syncing it, and knows the name of the next effect.

    A process that is killed in a write has written the half of it.
    """

    next = ""

    def burn(self, name: str) -> None:
        self.next = name
        super().burn(name)

    @contextmanager
    def on_disk(self, directory: str) -> Iterator[None]:
        real = os.fchmod

        def fchmod(descriptor: int, mode: int) -> None:
            self.burn("fchmod")
            real(descriptor, mode)

        def fdopen(descriptor: int, mode: str) -> Any:  # noqa: ANN401 - as os.fdopen
            return io.BufferedWriter(_Raw(descriptor, self)) if mode == "wb" else real_fdopen(descriptor, mode)

        real_fdopen = os.fdopen
        with super().on_disk(directory), mock.patch.multiple(os, fchmod=fchmod, fdopen=fdopen):
            yield


class _Raw(io.FileIO):
    """A file whose writes pass through a fuse."""

    def __init__(self, descriptor: int, fuse: Fuse) -> None:
        super().__init__(descriptor, "wb")
        self._fuse, self._ended = fuse, False

    def write(self, content: Any, /) -> int:  # noqa: ANN401 - whatever can be written
        if self._ended:
            return len(content)  # what was not written before the end is gone
        try:
            self._fuse.burn("write")
        except BaseException:
            self._ended = True
            super().write(bytes(content)[: len(content) // 2])
            raise
        return super().write(content) or 0


class Failing(Interrupted):
    """A fuse that fails calls on the disk instead of ending the process."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance

    def burn(self, name: str) -> None:
        super().burn(name)
        if name in (*DISK_CALLS, "open", "fchmod", "write") and self._chance.random() < FAILED:
            code = self._chance.choice(CODES)
            raise OSError(code, os.strerror(code))


@dataclass
class Life:
    """A life under way on a disk, and what is known of it afterwards."""

    disk: LoggedDisk
    device: SimulatedDevice
    chance: Random
    renames: Renames
    ledger: Ledger = field(default_factory=Ledger)
    moments: list[Moment] = field(default_factory=list)
    noise: float = NOISE

    def watch(self) -> None:
        """Write the moment down; then, sometimes, make noise."""
        assert isinstance(self.device.fuse, Interrupted)
        self.note(self.device.fuse.next)
        if self.chance.random() < self.noise * (BEFORE_A_LINK if self.device.fuse.next == "symlink" else 1):
            with suppress(OSError), (self.disk.root / "noise").open("wb") as file:
                file.write(self.chance.randbytes(self.chance.randrange(1, 6000)))
                file.flush()
                fsync(file.fileno())

    def note(self, effect: str) -> None:
        """Write down what is true now."""
        ledger, unsynced = self.ledger, self.renames.unsynced
        moment = Moment(self.disk.position(), effect, told(self.device), len(ledger.begun), ledger.saved, unsynced)
        self.moments.append(moment)

    def live(self, rotations: int, turns: int = 300) -> None:
        """Live on until so many rotations are done, restarting whatever ends the process."""
        for _ in range(RESTARTS):
            with suppress(Crash):
                self.device.life(rotations, turns)
                return
        raise NoProgress(f"killed {RESTARTS} times")

    def fuse(self, fuse: Fuse) -> None:
        """Have every effect from now on pass through this one."""
        self.device.fuse, fuse.watch = fuse, self.watch

    @property
    def rotations(self) -> int:
        """How many are done."""
        return self.device.record.rotations


@contextmanager
def begun(disk: LoggedDisk, chance: Random, noise: float = NOISE) -> Iterator[Life]:
    """Prepare a device on a disk, as a manufacturer does: its bootstrap identity is there, and synced."""
    state = disk.root / "iot-agent"
    state.mkdir(mode=0o700)
    device = SimulatedDevice(state)
    (state / "state.json").unlink()
    device.vendor_key.chmod(0o600)
    kernel.sync(disk.root)
    life = Life(disk, device, chance, Renames(disk.root), Ledger([Record(SERIAL)], saved=0), noise=noise)
    life.fuse(Interrupted())
    with life.ledger.kept(), life.renames.watched():
        yield life
        life.note("the end")


# ---- the kinds of lives ----------------------------------------------------------------------------------------------


def roll_back(life: Life) -> None:
    """Get a certificate that may not publish, give it up, with a restart now and then, and get another."""
    before, device = life.rotations, life.device
    device.cloud.register.mute_new = True
    while not device.record.rollbacks:
        with suppress(Crash, NoProgress):
            device.life(before + 1, turns=3)
    device.cloud.register.mute_new = False
    life.live(before + 1)


def undisturbed(life: Life) -> None:
    life.live(2)
    roll_back(life)
    life.live(life.rotations + 1)


def killed(life: Life) -> None:
    life.fuse(Interrupted(lambda _count, _name: life.chance.random() < KILLED))
    undisturbed(life)


def killed_before_a_sync(life: Life) -> None:
    """Kill the process between a rename and the sync of its directory; the power stays on until later."""

    def between(_count: int, name: str) -> bool:
        renamed = life.device.fuse.names[-2:-1] == ["replace"]
        return renamed and name == "fsync" and life.chance.random() < KILLED_BEFORE_A_SYNC

    life.fuse(Interrupted(between))
    life.live(3)


def failing_calls(life: Life) -> None:
    """Have single calls on the disk fail, with every error that a disk gives."""
    life.live(1)
    life.fuse(Failing(life.chance))
    with suppress(NoProgress, OSError):
        life.live(life.rotations + 2, turns=80)
    life.fuse(Interrupted())
    life.live(life.rotations + 1)


def full_disk(life: Life) -> None:
    """Renew on a full disk, in vain; then there is room again."""
    life.live(1)
    fill(life.disk.root)
    struggle(life)
    empty(life.disk.root)
    life.live(life.rotations + 1)


def read_only(life: Life) -> None:
    """Renew on a disk that is read-only, in vain; then it can be written again."""
    life.live(1)
    kernel.remount(life.disk.root, read_only=True)
    struggle(life)
    kernel.remount(life.disk.root, read_only=False)
    life.live(life.rotations + 1)


def failing_disk(life: Life) -> None:
    """Have the disk itself fail each write and flush, half-way through a renewal; only a restart can help."""
    life.live(1)
    effects = life.device.fuse.count
    last = effects + life.chance.randrange(5, 60)

    def fail(count: int, _name: str) -> bool:
        if count == last:
            life.disk.fail()
        return False

    life.fuse(Interrupted(fail))
    life.device.fuse.count = effects
    with suppress(NoProgress, OSError):
        life.live(life.rotations + 1, turns=12)


def struggle(life: Life) -> None:
    """Live on for a while in vain: the identity in force serves, and no other is asked for."""
    before = life.rotations
    with suppress(NoProgress, OSError):
        life.live(before + 1, turns=12)
    life.device.check_never_bricked()


KINDS: tuple[Callable[[Life], Any], ...] = (
    undisturbed,
    killed,
    killed_before_a_sync,
    failing_calls,
    full_disk,
    read_only,
    failing_disk,
)


# ---- a full disk -----------------------------------------------------------------------------------------------------


def fill(root: Path) -> None:
    """Take all room, down to the last block, without writing to it."""
    filler = os.open(root / "filler", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        size, piece = 0, 1 << 27
        while piece >= 512:
            try:
                os.posix_fallocate(filler, size, piece)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EFBIG):
                    raise
                piece //= 2
            else:
                size += piece
        fsync(filler)
    finally:
        os.close(filler)


def empty(root: Path) -> None:
    """Make room again."""
    (root / "filler").unlink(missing_ok=True)
