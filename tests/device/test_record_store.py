"""The record on the disk: what is read when something is damaged, and what a save leaves."""

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iot_agent.core import codec
from iot_agent.core.codec import LaterFormat
from iot_agent.core.record import (
    Advised,
    Certificate,
    Event,
    Failure,
    Identity,
    Kind,
    Pending,
    Record,
    State,
)
from iot_agent.storage import atomic
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.record_store import RecordStore

CERTIFICATE = Certificate("a" * 64, 1, 1000, 700)
FULL = Record(
    "SN-1",
    State.ROTATED,
    active=Identity("iot-agent-1", CERTIFICATE),
    pending=Pending("iot-agent-2", "r", generated=True, certificate=CERTIFICATE, refusals=2),
    unconfirmed=(Identity("iot-agent-3", CERTIFICATE),),
    to_delete=("iot-agent-4",),
    attempt=3,
    waiting_since=100,
    wait=20,
    cleanup=Failure(Kind.RETIRE, "token", "away", "plug it in", 18),
    problem="no-reply",
    failures=2,
    failure=Failure(Kind.PROVE, "no-reply", "nobody answered", "look", 17),
    advised=Advised(1, 2, 1),
    history=(Event(1, "issued", "x"),),
)


def store_in(directory: Path) -> RecordStore:
    return RecordStore(directory, IdentityDirectories(directory), "SN-1")


def an_identity(directory: Path, label: str, certificate: Certificate = CERTIFICATE) -> Identity:
    identities = IdentityDirectories(directory)
    identities.create(label, "csr")
    (directory / "identities" / label / "key.pem").write_text("key")
    identities.store(Identity(label, certificate), "pem", "chain")
    return Identity(label, certificate)


def test_a_saved_record_is_loaded_and_private(tmp_path: Path) -> None:
    an_identity(tmp_path, "iot-agent-1")
    store_in(tmp_path).save(FULL)
    assert store_in(tmp_path).load() == FULL
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    assert (tmp_path / "current").readlink() == Path("identities/iot-agent-1")


@pytest.mark.parametrize("damage", [b"", b"\0" * 4096, b'{"format": 1'])
def test_a_damaged_record_falls_back_to_the_one_before_and_is_kept_for_a_look(damage: bytes, tmp_path: Path) -> None:
    store, before = store_in(tmp_path), Record("SN-1", State.JITP)
    store.save(before)
    store.save(replace(before, attempt=1))
    (tmp_path / "state.json").write_bytes(damage)
    assert store.load() == before
    assert (tmp_path / "state.json.bad").read_bytes() == damage


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def far_too_much(path: Path) -> None:
    path.write_bytes(b" " * (atomic.MAX_READ + 1))


def another_format_outside(path: Path) -> None:
    """Flip one bit of the digit that tells the format, outside the checksum."""
    path.write_bytes(path.read_bytes().replace(b'{"format": 1', b'{"format": 3', 1))


SPOILT = [a_directory, a_link, a_fifo, far_too_much]


@pytest.mark.parametrize("spoil", SPOILT)
def test_whatever_keeps_a_record_from_being_read_the_one_before_serves(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    store, before = store_in(tmp_path), Record("SN-1", State.JITP)
    store.save(before)
    store.save(replace(before, attempt=1))
    spoil(tmp_path / "state.json")
    assert store.load() == before
    store.save(replace(before, attempt=2))
    assert store.load().attempt == 2
    spoil(tmp_path / "state.json")
    assert store.load() == before, "the good one before was not replaced by the spoilt one"


@pytest.mark.parametrize("spoil", SPOILT)
def test_without_any_record_that_can_be_read_it_is_rebuilt(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    store, only = store_in(tmp_path), an_identity(tmp_path, "iot-agent-1")
    for _ in range(3):  # and again, when there are `.bad` files already
        store.save(FULL)
        store.save(FULL)
        spoil(tmp_path / "state.json")
        spoil(tmp_path / "state.json.previous")
        assert store.load().active == only


def test_an_error_of_the_disk_leads_on_to_the_record_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, before = store_in(tmp_path), Record("SN-1", State.JITP)
    store.save(before)
    store.save(replace(before, attempt=1))
    real = atomic.read

    def read(path: Path) -> bytes:
        if path.name == "state.json":
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(atomic, "read", read)
    assert store.load() == before


def test_a_flipped_bit_in_the_format_outside_the_checksum_changes_nothing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.save(FULL)
    another_format_outside(tmp_path / "state.json")
    assert store.load() == FULL


def test_current_in_the_way_as_a_directory_is_put_aside_and_never_stops_a_save(tmp_path: Path) -> None:
    an_identity(tmp_path, "iot-agent-1")
    (tmp_path / "current").mkdir()
    (tmp_path / "current" / "key.pem").write_text("a copy that followed links")
    store_in(tmp_path).save(FULL)
    assert (tmp_path / "current").readlink() == Path("identities/iot-agent-1")
    assert len(list(tmp_path.glob("current.bad-*/key.pem"))) == 1


def test_current_that_cannot_be_set_is_logged_and_never_stops_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(atomic, "point", refuse)
    store_in(tmp_path).save(FULL)
    assert store_in(tmp_path).load() == FULL
    assert "cannot point `current`" in caplog.text


def test_what_a_start_finds_is_synced_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    an_identity(tmp_path, "iot-agent-1")
    store.save(FULL)
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_directory", synced.append)
    store.load()
    assert set(synced) >= {tmp_path, tmp_path / "identities", tmp_path / "identities" / "iot-agent-1"}


def test_a_later_format_is_refused_and_not_touched(tmp_path: Path) -> None:
    body = json.dumps({"format": codec.FORMAT + 1, "something": "else"}, separators=(",", ":"))
    later = f'{{"format": {codec.FORMAT + 1}, "crc32": "{codec._checksum(body)}", "record": {body}}}'.encode()
    (tmp_path / "state.json").write_bytes(later)
    with pytest.raises(LaterFormat, match="upgrade the agent"):
        store_in(tmp_path).load()
    assert (tmp_path / "state.json").read_bytes() == later
