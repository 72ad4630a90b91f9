"""The file systems that devices have, each as small as it can be made: what is written to it is kept and copied."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileSystem:
    """How to make one and mount it; `atom` is the bytes that it needs a disk to write whole or not at all.

    For ext4 these are the 1,024 bytes of its superblock: if they are torn, their checksum is wrong and it cannot be
    mounted, whatever the agent wrote.
    """

    name: str
    kind: str
    megabytes: int
    maker: tuple[str, ...]
    options: str = ""
    atom: int = 1024

    def make(self, image: Path) -> None:
        """Make an empty one in a file, which is created."""
        with image.open("wb") as file:
            file.truncate(self.megabytes * 1024 * 1024)
        subprocess.run([*self.maker, image], check=True, stdout=subprocess.DEVNULL, env=os.environ | TINY_XFS)


TINY_XFS = {
    "TEST_DIR": "1",
    "TEST_DEV": "1",
    "QA_CHECK_FS": "1",
}  # mkfs.xfs makes less than 300 MB only for its own tests
EXT4 = ("mkfs.ext4", "-q", "-F")
ALL = (
    FileSystem("ext4", "ext4", 16, EXT4),
    FileSystem("ext4-1k", "ext4", 8, (*EXT4, "-b", "1024")),
    FileSystem("ext4-writeback", "ext4", 16, EXT4, "data=writeback,noauto_da_alloc"),
    FileSystem("xfs", "xfs", 20, ("mkfs.xfs", "-q"), atom=4096),
    FileSystem("btrfs", "btrfs", 128, ("mkfs.btrfs", "-q"), "nodiscard", atom=4096),
    FileSystem("f2fs", "f2fs", 64, ("mkfs.f2fs", "-q"), atom=4096),
)


def why_not(system: FileSystem) -> str | None:
    """Say in a line why this file system cannot be cut here; None if it can."""
    if system.kind not in Path("/proc/filesystems").read_text().split():
        return f"{system.name}: this kernel has no {system.kind}"
    if shutil.which(system.maker[0]) is None:
        return f"{system.name}: {system.maker[0]} is missing: run make packages"
    return None


def nothing_can_be_cut() -> str | None:
    """Say in a line what this machine or this user lacks to cut even ext4, which every machine is to have; or None."""
    if os.geteuid() != 0:
        return "only root may mount file systems; run it as root or with sudo"
    for device, module in (("/dev/fuse", "fuse"), ("/dev/loop-control", "loop")):
        if not Path(device).exists():
            return f"{device} is missing: modprobe {module}"
    return next(filter(None, (why_not(system) for system in ALL if system.kind == "ext4")), None)


def of_this_machine() -> tuple[FileSystem, ...]:
    """Give those that can be made and mounted here."""
    return tuple(system for system in ALL if why_not(system) is None)
