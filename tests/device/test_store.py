import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from iot_agent import codec, durable
from iot_agent.codec import Damaged, LaterFormat, decode_outcome, decode_record, encode_outcome, encode_record
from iot_agent.identities import IdentityDirectories
from iot_agent.messages import Advice
from iot_agent.record import (
    Advised,
    Certificate,
    CheckedIn,
    Event,
    Failed,
    Failure,
    Generated,
    Identity,
    Introduced,
    Issued,
    Kind,
    Outcome,
    Pending,
    Proven,
    Record,
    Retired,
    State,
)
from iot_agent.store import RecordStore

CERTIFICATE = Certificate("a" * 64, 1, 1000, 700)
FULL = Record(
    "SN-1",
    State.ROTATED,
    active=Identity("iot-agent-1", CERTIFICATE),
    pending=Pending("iot-agent-2", "r", generated=True, certificate=CERTIFICATE, refusals=2),
    set_aside=Identity("iot-agent-3", CERTIFICATE),
    leftovers=("iot-agent-4",),
    attempt=3,
    failure=Failure(Kind.PROVE, "no-reply", "nobody answered", "look", 17),
    advised=Advised(1, 2, 1),
    history=(Event(1, "issued", "x"),),
)


def store_in(directory: Path) -> RecordStore:
    return RecordStore(directory, IdentityDirectories(directory), "SN-1")


def an_identity(directory: Path, label: str, certificate: Certificate = CERTIFICATE) -> Identity:
    identities = IdentityDirectories(directory)
    identities.create(label, "csr")
    identities.store(Identity(label, certificate), "pem", "chain")
    return Identity(label, certificate)


def test_a_record_survives_its_form_on_disk() -> None:
    assert decode_record(encode_record(FULL)) == FULL
    assert repr(decode_record(encode_record(FULL))) == repr(FULL), "a word for a member of an enumeration: `is` fails"
    assert decode_record(encode_record(Record("SN-1"))) == Record("SN-1")


@pytest.mark.parametrize(
    "outcome",
    [
        Introduced(),
        Generated(),
        Issued(CERTIFICATE, 5),
        Proven(None),
        Retired(("a", "b")),
        CheckedIn(5, Advice(1, 2, "x")),
        CheckedIn(5, None),
        Failed("no-reply", "m", "r", fatal=True, retry_after=5),
    ],
)
def test_an_outcome_survives_the_way_from_the_worker(outcome: Outcome) -> None:
    assert decode_outcome(encode_outcome(outcome)) == outcome


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 512, b"{}", b"[]", b'{"outcome": "Nonsense"}', b'{"outcome": "Issued"}']
)
def test_nonsense_is_neither_record_nor_outcome(content: bytes) -> None:
    with pytest.raises(Damaged):
        decode_record(content)
    with pytest.raises(Damaged):
        decode_outcome(content)


def test_every_flipped_bit_in_a_record_is_noticed() -> None:
    content = encode_record(FULL)
    for position in range(len(content) - 1):
        flipped = bytearray(content)
        flipped[position] ^= 1
        try:
            read = decode_record(bytes(flipped))
        except (Damaged, LaterFormat):
            continue
        assert read == FULL, f"byte {position} changed the record unnoticed"


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


def test_a_lost_record_is_rebuilt_from_the_identities(tmp_path: Path) -> None:
    old, _middle, new = (an_identity(tmp_path, f"iot-agent-{number}") for number in (1, 2, 3))
    IdentityDirectories(tmp_path).point_current(old.label)
    (tmp_path / "identities" / "iot-agent-4").mkdir()
    record = store_in(tmp_path).load()
    assert (record.state, record.active, record.set_aside) == (State.ACKED, old, new)


def test_a_lost_record_with_no_current_identity_goes_back_to_jitp_with_what_may_be_in_force(tmp_path: Path) -> None:
    only = an_identity(tmp_path, "iot-agent-1")
    record = store_in(tmp_path).load()
    assert (record.state, record.active, record.set_aside) == (State.JITP, None, only)


def test_a_later_format_is_refused_and_not_touched(tmp_path: Path) -> None:
    later = json.dumps({"format": codec.FORMAT + 1, "crc32": "", "record": {}}).encode()
    (tmp_path / "state.json").write_bytes(later)
    with pytest.raises(LaterFormat, match="upgrade the agent"):
        store_in(tmp_path).load()
    assert (tmp_path / "state.json").read_bytes() == later


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
        durable.write(tmp_path / "secret", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(modes[0]) == 0o600
    assert stat.S_ISDIR(modes[-1]), "the directory is synced last"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.write(tmp_path / "file", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        durable.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "state.json").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        durable.read(tmp_path / "state.json")
    (tmp_path / ".file.new").symlink_to(victim)
    durable.write(tmp_path / "file", b"new")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()


def test_a_label_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a label"):
        IdentityDirectories(tmp_path).remove("../../etc")
