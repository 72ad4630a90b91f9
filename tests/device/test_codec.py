"""Records and outcomes as JSON: read back as they were written, and nothing damaged is taken for one."""

import pytest

from iot_agent.core.codec import Damaged, LaterFormat, decode_outcome, decode_record, encode_outcome, encode_record
from iot_agent.core.protocol import Advice
from iot_agent.core.record import CheckedIn, Failed, Generated, Introduced, Issued, Outcome, Proven, Record, Retired
from tests.device.test_record_store import CERTIFICATE, FULL


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
