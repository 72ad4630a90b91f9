"""Records, outcomes and requests as JSON, to the letter: other versions read and write them, too."""

import json
import zlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from iot_agent.core import typed_json
from iot_agent.core.codec import (
    FORMAT,
    Damaged,
    LaterFormat,
    Request,
    decode_outcome,
    decode_record,
    decode_request,
    encode_outcome,
    encode_record,
    encode_request,
)
from iot_agent.core.protocol import Advice
from iot_agent.core.record import (
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
from iot_agent.core.schedule import Policy
from iot_agent.core.settings import Settings, Token, TokenKey

CERTIFICATE = Certificate("a" * 64, 1, 1000, 700)
OLDER, MIDDLE, NEWER = (Identity(f"iot-agent-{day}", replace(CERTIFICATE, not_before=day)) for day in (3, 4, 5))
RECORD = Record(
    "SN-1",
    State.ACKED,
    active=Identity("iot-agent-1", CERTIFICATE),
    pending=Pending("iot-agent-2", "r"),
    unconfirmed=(OLDER, MIDDLE, NEWER),
    to_delete=("iot-agent-0",),
    waiting_since=100,
    wait=20,
)
FULL = replace(
    RECORD,
    state=State.ROTATED,
    pending=Pending("iot-agent-2", "r", generated=True, certificate=CERTIFICATE, refusals=2),
    attempt=3,
    cleanup=Failure(Kind.RETIRE, "token", "away", "plug it in", 18),
    problem="no-reply",
    failures=2,
    failure=Failure(Kind.PROVE, "no-reply", "nobody answered", "look", 17),
    advised=Advised(1, 2, 1),
    history=(Event(1, "issued", "x"),),
)


def wrapped(body: dict[str, Any]) -> bytes:
    text = json.dumps(body, separators=(",", ":"))
    return json.dumps({"format": 1, "crc32": f"{zlib.crc32(text.encode()):08x}", "record": body}).encode()


def body_of(record: Record) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_record(record))["record"]
    return body


# ---- a record ------------------------------------------------------------------------------------------------------


def test_a_record_is_one_line_with_its_format_outside_and_inside_and_a_checksum_of_its_compact_text() -> None:
    content = encode_record(RECORD)
    head, _, rest = content.decode().partition('"record": ')
    text = rest.removesuffix("}\n")
    assert head == f'{{"format": 1, "crc32": "{zlib.crc32(text.encode()):08x}", '
    assert text.startswith('{"format":1,"serial":"SN-1","state":"acked","active":{"label":"iot-agent-1",')


def test_a_checksum_has_eight_digits_whatever_its_value() -> None:
    small = next(one for one in (Record(f"SN-{n}") for n in range(999)) if b'"crc32": "0' in encode_record(one))
    assert decode_record(encode_record(small)) == small


def test_what_0_1_0_calls_otherwise_is_told_by_its_old_name_too() -> None:
    body = body_of(RECORD)
    newest = json.loads(json.dumps(body["unconfirmed"][-1]))
    assert (body["set_aside"], body["leftovers"], body["retry_at"]) == (newest, ["iot-agent-0"], 120)
    assert newest["label"] == "iot-agent-5"
    assert body_of(Record("SN-1"))["set_aside"] is None


def test_a_record_of_0_1_0_is_read_by_its_old_names() -> None:
    old = body_of(RECORD)
    for name in ("format", "unconfirmed", "to_delete", "waiting_since", "wait"):
        del old[name]
    assert decode_record(wrapped(old)) == replace(RECORD, unconfirmed=(NEWER,), waiting_since=0, wait=0)
    assert decode_record(wrapped({**old, "set_aside": None})).unconfirmed == ()
    assert decode_record(wrapped({**old, "leftovers": ["x", "y"]})).to_delete == ("x", "y")


def test_the_new_names_outrank_the_old_ones() -> None:
    assert decode_record(wrapped({**body_of(RECORD), "set_aside": None, "leftovers": ["x"]})) == RECORD


def test_a_later_format_is_told_apart_from_damage() -> None:
    with pytest.raises(LaterFormat, match=rf"format {FORMAT + 1}, not {FORMAT}"):
        decode_record(wrapped({**body_of(RECORD), "format": FORMAT + 1}))
    assert decode_record(wrapped({**body_of(RECORD), "format": FORMAT})) == RECORD


def test_a_wrong_checksum_is_damage() -> None:
    with pytest.raises(Damaged, match="checksum"):
        decode_record(encode_record(RECORD).replace(b"SN-1", b"SN-2"))


@pytest.mark.parametrize("content", [b"{}", b"[]", b"7", b"\xff", b'{"crc32": "0", "record": 1}'])
def test_damage_is_told_with_what_is_wrong(content: bytes) -> None:
    with pytest.raises(Damaged, match=r"not a record: \w|its checksum"):
        decode_record(content)
    with pytest.raises(Damaged, match=r"not an outcome: \w"):
        decode_outcome(content)


# ---- an outcome and a request ----------------------------------------------------------------------------------------


def test_an_outcome_is_one_line_with_its_kind() -> None:
    assert encode_outcome(Proven(5)) == b'{"outcome": "Proven", "cloud_time": 5}\n'


SETTINGS = Settings(
    serial="SN-1",
    endpoint_host="iot.example",
    endpoint_port=8883,
    endpoint_ca_file=Path("/etc/ca.pem"),
    client_id="SN-1",
    topic_prefix="fleet",
    manufacturer_ca=None,
    bootstrap_certificate=Path("/etc/b.pem"),
    bootstrap_key=TokenKey(Token("/lib/m.so", "t", "file:/pin"), "k"),
    keys_backend="file",
    keys_algorithm="ec-p256",
    keys_token=None,
    policy=Policy(retry_cap=7),
    step_limit=60.5,
    key_limit=30,
    identity_group="apps",
    state_directory=Path("/var/lib/iot-agent"),
    run_directory=Path("/run/iot-agent"),
    log_level="info",
)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_request_reaches_the_worker_as_one_line(*, trusted: bool) -> None:
    request = Request(Kind.PROVE, RECORD, 1_790_000_000.5, trusted, SETTINGS)
    line = encode_request(request)
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert sorted(json.loads(line)) == ["clock_trusted", "now", "record", "settings", "step"]
    read = decode_request(line)
    assert read == request
    assert read.step is Kind.PROVE


@pytest.mark.parametrize("line", [b"{}", b"[", b'{"step": "prove"}'])
def test_a_request_that_cannot_be_read_is_told_with_what_is_wrong(line: bytes) -> None:
    with pytest.raises(Damaged, match=r"not a request: \w"):
        decode_request(line)


# ---- there and back, and nonsense ------------------------------------------------------------------------------------


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
        Issued(CERTIFICATE, None, answers_once=True),
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
    "content",
    [
        b"",
        b"\0" * 512,
        b"{}",
        b"[]",
        b"null",
        b"7",
        b"[" * 100_000,
        b'{"outcome": []}',
        b'{"outcome": "Nonsense"}',
        b'{"outcome": "Issued"}',
        b'{"outcome": "Proven", "cloud_time": "soon"}',
        b'{"outcome": "Proven", "cloud_time": ' + b"9" * 400 + b"}",
        b'{"outcome": "Proven", "cloud_time": ' + b"9" * 5000 + b"}",
        b'{"outcome": "Retired", "labels": [[]]}',
        b'{"outcome": "Failed", "code": 1, "message": "m", "remedy": "r", "fatal": false}',
    ],
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


# ---- dataclasses from JSON -------------------------------------------------------------------------------------------


class Colour(StrEnum):
    """A word."""

    RED = "red"


@dataclass(frozen=True)
class Inner:
    """What is inside another."""

    name: str
    size: int = 3


@dataclass(frozen=True)
class Outer:
    """A field of every kind."""

    number: int
    share: float
    sure: bool
    where: Path
    colour: Colour
    maybe: int | None
    either: Path | Inner
    many: tuple[Inner, ...] = field(default=())


WHOLE = {
    "number": 7, "share": 0.5, "sure": True, "where": "/a", "colour": "red", "maybe": None, "either": "/b",
    "many": [{"name": "x"}, {"name": "y", "size": 2**53}],
}  # fmt: skip


def test_every_type_of_field_is_read_as_it_is_annotated() -> None:
    read = typed_json.read(Outer, WHOLE)
    assert read == Outer(7, 0.5, True, Path("/a"), Colour.RED, None, Path("/b"), (Inner("x"), Inner("y", 2**53)))  # noqa: FBT003 - a row of fields
    assert read.colour is Colour.RED
    assert isinstance(read.where, Path)


def test_a_choice_is_told_apart_by_its_own_type() -> None:
    assert typed_json.read(Outer, {**WHOLE, "either": {"name": "x"}, "maybe": 5}).either == Inner("x")
    assert typed_json.read(Outer, {**WHOLE, "maybe": 5}).maybe == 5


def test_a_whole_number_may_stand_for_a_float_and_not_the_other_way() -> None:
    assert typed_json.read(Outer, {**WHOLE, "share": 1}).share == 1
    with pytest.raises(ValueError, match=r"0\.5 is not int"):
        typed_json.read(Outer, {**WHOLE, "number": 0.5})


def test_what_is_nested_too_deep_is_refused_with_that_reason() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        typed_json.parse(Inner, "[" * 100_000)


def test_the_largest_numbers_are_those_that_every_reader_of_json_holds() -> None:
    for number in (2**53, -(2**53)):
        assert typed_json.read(Outer, {**WHOLE, "number": number}).number == number
    for number in (2**53 + 1, -(2**53) - 1):
        for name in ("number", "share", "maybe"):
            with pytest.raises(ValueError, match="too large"):
                typed_json.read(Outer, {**WHOLE, name: number})


def test_what_is_not_known_is_passed_over_and_what_is_absent_takes_its_default() -> None:
    assert typed_json.read(Outer, {**WHOLE, "later": 1}) == typed_json.read(Outer, WHOLE)
    assert typed_json.read(Inner, {"name": "x"}).size == 3


def test_every_field_that_is_absent_without_a_default_is_named() -> None:
    with pytest.raises(ValueError, match=r"Outer lacks number, share$"):
        typed_json.read(Outer, {name: value for name, value in WHOLE.items() if name not in ("number", "share")})


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("number", "7", "'7' is not int"),
        ("number", True, "True is not int"),
        ("number", None, "None is not int"),
        ("sure", 1, "1 is not bool"),
        ("share", True, "True is not float"),
        ("where", 5, "5 is not str"),
        ("colour", 5, "5 is not str"),
        ("colour", "blue", "'blue' is not a valid Colour"),
        ("maybe", "x", "'x' is not int"),
        ("maybe", {}, "{} is none of"),
        ("either", None, "None is not str"),
        ("many", "xy", "'xy' is not a list"),
        ("many", {"name": "x"}, "is not a list"),
        ("many", [5], "5 is not an object"),
        ("many", [{"size": 1}], "Inner lacks name"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        typed_json.read(Outer, {**WHOLE, name: value})
