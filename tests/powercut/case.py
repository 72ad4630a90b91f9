"""One image and all that is needed to judge it: what a lab finds wrong can be judged again in another process."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from tests.powercut.cuts import Cut, Left
from tests.powercut.disk import mounted_image
from tests.powercut.filesystems import FileSystem
from tests.powercut.images import Image
from tests.powercut.judge import judge
from tests.powercut.life import empty
from tests.powercut.moments import Ledger
from tests.powercut.plants import PLANTS
from tests.powercut.renames import lose
from tests.powercut.words import held
from tests.simulator import cloud
from tests.simulator.authority import Authority
from tests.simulator.device import SimulatedDevice


@dataclass(frozen=True)
class Problem:
    """Why a recovery is wrong, and what the disk held when it was found to be."""

    why: str
    held: str = ""


@dataclass(frozen=True)
class Case:
    """An image of a disk, and the cut that left it. `plant` names the planted bug at work, "" none."""

    life: str
    system: FileSystem
    plant: str
    cut: Cut
    left: Left
    image: Image
    ledger: Ledger
    authorities: tuple[Authority, Authority]

    def judge_again(self) -> Problem | None:
        """Judge the image with a new device that is told what the first one's cloud had been told."""
        kept = dict(zip(("Vendor CA", "Manufacturer CA"), self.authorities, strict=True))
        born = Path("born")
        born.mkdir(exist_ok=True)
        with planted(self.plant):
            with mock.patch.object(cloud, "Authority", lambda name, _now: kept[name]):
                device = SimulatedDevice(born)
            return examine(device, self.ledger, self.cut, self.system, self.image)


def examine(device: SimulatedDevice, ledger: Ledger, cut: Cut, system: FileSystem, image: Image) -> Problem | None:
    """Say what is wrong with a device that comes up on this image, if anything; the working directory is used."""
    try:
        with mounted_image(Path.cwd(), system, image) as root:
            if cut.forgetful:
                empty(root)  # to undo takes room
                lose(root, cut.moment.unsynced)
            try:
                judge(device, ledger, cut.moment, root)
            except Exception as error:  # noqa: BLE001 - whatever a boot raises is what was looked for
                return Problem(_said(error), held(root))
    except OSError as error:
        return Problem(f"the file system cannot be mounted, or not be left: {error}")
    return None


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, AssertionError) and str(error) else f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a planted bug at work, none if its name is ""; the metrics that the Lambda prints are not shown."""
    with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        for plant in PLANTS:
            if plant.name == name:
                plant.break_it(patch)
        yield
