"""A device that is upgraded, or goes back: 0.1.0, as it was released, and this version on one state directory."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from iot_agent.core import codec, typed_json
from iot_agent.core.record import Advised, Certificate, Event, Failure, Identity, Kind, Pending, Record, State
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.record_store import RecordStore

HERE = Path(__file__).parent
RELEASED = HERE / "iot_agent-0.1.0.zip"
SERIAL = "SN-0001"
OLD_CODE = """
import json, sys
from dataclasses import asdict, replace
from pathlib import Path
from iot_agent.identities import IdentityDirectories
from iot_agent.store import RecordStore
state = Path(sys.argv[1])
store = RecordStore(state, IdentityDirectories(state), "SN-0001")
record = store.load()
print(json.dumps(asdict(record)))
store.save(replace(record, attempt=record.attempt + 1))
"""
CERTIFICATE = Certificate("a" * 64, 1_790_000_000, 1_797_000_000, 1_795_000_000)
ACTIVE, NEWER = Identity("iot-agent-1", CERTIFICATE), Identity("iot-agent-3", replace(CERTIFICATE, not_before=10))
PENDING = Pending("iot-agent-2", "r", generated=True)
ACKED = Record(
    SERIAL,
    State.ACKED,
    active=ACTIVE,
    rotations=7,
    advised=Advised(1, 2, 1),
    last_contact=5,
    time_floor=9,
    check_in_at=11,
    history=(Event(1, "issued", "x"),),
)
FAILURE = Failure(Kind.REQUEST, "no-reply", "nobody answered", "look", 17)
LIVES = {
    "new": Record(SERIAL),
    "known": Record(SERIAL, State.JITP, pending=PENDING),
    "in service": ACKED,
    "asking": replace(
        ACKED, pending=PENDING, failure=FAILURE, attempt=3, waiting_since=100, wait=20, problem="no-reply"
    ),
    "proving": replace(
        ACKED, state=State.ROTATED, pending=replace(PENDING, certificate=CERTIFICATE, refusals=2), proof_failures=4
    ),
    "rolled back": replace(ACKED, unconfirmed=(NEWER,), to_delete=("iot-agent-4",), rollbacks=1),
}


def on_disk(state: Path, record: Record) -> RecordStore:
    identities = IdentityDirectories(state)
    for identity in (record.active, *record.unconfirmed):
        if identity is not None:
            identities.create(identity.label, "csr")
            (state / "identities" / identity.label / "key.pem").write_text("key")
            identities.store(identity, "pem", None)
    store = RecordStore(state, identities, SERIAL)
    store.save(record)
    return store


def with_the_released_code(state: Path) -> dict[str, object]:
    """Load and save the record as 0.1.0 does; gives what it read."""
    done = subprocess.run(
        [sys.executable, "-c", OLD_CODE, str(state)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(RELEASED)},
        cwd=state,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, object] = json.loads(done.stdout)
    return read


@pytest.mark.parametrize("life", LIVES)
def test_going_back_and_coming_again_loses_nothing(life: str, tmp_path: Path) -> None:
    record = LIVES[life]
    store = on_disk(tmp_path, record)
    before = json.loads(codec.encode_record(record))["record"]
    old = with_the_released_code(tmp_path)
    assert {name: old[name] for name in old} == {name: before[name] for name in old}
    assert old["set_aside"] == before["set_aside"]
    again = store.load()
    kept = {"state", "active", "pending", "unconfirmed", "to_delete", "rotations", "failure", "history", "time_floor"}
    assert {name: getattr(again, name) for name in kept} == {name: getattr(record, name) for name in kept}
    assert again.attempt == record.attempt + 1
    assert not list(tmp_path.glob("*.bad*"))


GOLDEN = sorted((HERE.parent / "device" / "golden").glob("record-*.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_record_of_every_released_version_is_read_whole(path: Path) -> None:
    record = codec.decode_record(path.read_bytes())
    assert record.state is State.ROTATED
    assert record.active is not None
    assert record.pending is not None
    assert record.pending.certificate is not None
    assert len(record.unconfirmed) == 1
    assert len(record.to_delete) == 1
    assert (record.rotations, record.attempt, record.time_floor) == (12, 3, 1_790_000_000)
    assert len(record.history) == 2
    assert codec.decode_record(codec.encode_record(record)) == record


def test_every_format_has_a_golden_file() -> None:
    told = {json.loads(path.read_bytes())["format"] for path in GOLDEN}
    assert told == set(range(1, codec.FORMAT + 1))


def test_a_record_of_a_later_version_with_more_in_it_is_read(tmp_path: Path) -> None:
    later = json.loads(codec.encode_record(ACKED))["record"]
    later["invented_later"] = {"x": 1}
    later["active"]["certificate"]["also_later"] = True
    body = json.dumps(later, separators=(",", ":"))
    wrapper = f'{{"format": 1, "crc32": "{codec._checksum(body)}", "record": {body}}}'
    assert codec.decode_record(wrapper.encode()) == ACKED
    identities = IdentityDirectories(tmp_path)
    on_disk(tmp_path, ACKED)
    facts = tmp_path / "identities" / "iot-agent-1" / "identity.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "also_later": 1}))
    assert identities.complete() == (ACTIVE,)


def test_bug_planted_a_decoder_that_wants_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(kind: type[Record], value: dict[str, object]) -> Record:
        return kind(**{name: value[name] for name in kind.__dataclass_fields__})  # type: ignore[arg-type]  # as it was

    monkeypatch.setattr(typed_json, "read", strict)
    with pytest.raises(codec.Damaged):
        test_the_record_of_every_released_version_is_read_whole(GOLDEN[0])
