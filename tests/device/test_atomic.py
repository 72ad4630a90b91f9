"""The durable write: private from its first byte, all or nothing, never through a link."""

import os
import stat
from pathlib import Path

import pytest

from iot_agent.storage import atomic


def test_a_write_is_private_from_the_first_byte_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        modes.append(os.fstat(descriptor).st_mode)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    old = os.umask(0)
    try:
        atomic.write(tmp_path / "secret", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(modes[0]) == 0o600
    assert stat.S_ISDIR(modes[-1]), "the directory is synced last"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.write(tmp_path / "file", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "state.json").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        atomic.read(tmp_path / "state.json")
    (tmp_path / ".file.new").symlink_to(victim)
    atomic.write(tmp_path / "file", b"new")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()
