"""A rename may be lost until its directory is synced, and not any longer."""

import os
from pathlib import Path

import pytest

from iot_agent.storage import atomic
from tests.powercut.renames import Renames, lose


@pytest.fixture
def renames(tmp_path: Path) -> Renames:
    return Renames(tmp_path.resolve())


def test_renames_without_a_sync_are_undone(tmp_path: Path, renames: Renames, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_bytes(b"first")
    (tmp_path / "link").symlink_to("first")
    monkeypatch.setattr(atomic, "sync_directory", lambda _path: None)
    with renames.watched():
        for content in (b"second", b"third"):
            atomic.write(tmp_path / "old", content)
        atomic.write(tmp_path / "new", b"new")
        atomic.point(tmp_path / "link", "second")
    lose(tmp_path, renames.unsynced)
    assert (tmp_path / "old").read_bytes() == b"first"
    assert not (tmp_path / "new").exists()
    assert (tmp_path / ".new.new").read_bytes() == b"new"
    assert (tmp_path / "link").readlink() == Path("first")


def test_nothing_is_lost_of_a_directory_that_was_synced(tmp_path: Path, renames: Renames) -> None:
    for name in ("synced", "not-synced", "removed"):
        (tmp_path / name).mkdir()
    with renames.watched():
        atomic.write(tmp_path / "synced" / "file", b"kept")
        for name in ("not-synced", "removed"):
            (tmp_path / name / "temporary").write_bytes(b"lost")
            os.replace(tmp_path / name / "temporary", tmp_path / name / "file")  # noqa: PTH105 - what is watched
    assert {one.path for one in renames.unsynced} == {
        f"{directory}/{name}" for directory in ("not-synced", "removed") for name in ("temporary", "file")
    }
    (tmp_path / "removed" / "file").unlink()
    (tmp_path / "removed").rmdir()
    lose(tmp_path, renames.unsynced)
    assert (tmp_path / "synced" / "file").read_bytes() == b"kept"
    assert [path.name for path in (tmp_path / "not-synced").iterdir()] == ["temporary"]
    assert not (tmp_path / "removed").exists()
