"""The device's half of the contract in tests/contract."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from iot_agent.core import protocol
from iot_agent.core.protocol import Advice, CheckInResponse, Malformed, Topics
from iot_agent.keys import certificates
from tests.device.evil_text import EVIL, obeyed

CONTRACT = Path(__file__).parent.parent / "contract"
REQUESTS: dict[str, Callable[..., Any]] = {
    "create-request": protocol.CreateRequest,
    "ack-request": protocol.AckRequest,
    "check-in-request": protocol.CheckInRequest,
}
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "create-response": protocol.parse_create_response,
    "ack-response": protocol.parse_ack_response,
    "check-in-response": protocol.parse_check_in_response,
    "error-response": protocol.parse_create_response,
}


def load(name: str) -> dict[str, Any]:
    contract: dict[str, Any] = json.loads((CONTRACT / f"{name}.json").read_text())
    return contract


def cases(part: str, names: dict[str, Any]) -> list[Any]:
    return [pytest.param(name, case, id=f"{name}: {case['name']}") for name in names for case in load(name)[part]]


def test_every_contract_file_is_used() -> None:
    assert {path.stem for path in CONTRACT.glob("*.json")} == {*REQUESTS, *PARSERS}


@pytest.mark.parametrize(("name", "case"), cases("sends", REQUESTS))
def test_a_request_is_written_as_agreed(name: str, case: dict[str, Any]) -> None:
    assert json.loads(protocol.encode(REQUESTS[name](**case["message"]))) == case["payload"]


@pytest.mark.parametrize(("name", "case"), cases("sends", PARSERS) + cases("accepts", PARSERS))
def test_a_reply_is_read_as_agreed(name: str, case: dict[str, Any]) -> None:
    assert asdict(PARSERS[name](json.dumps(case["payload"]).encode())) == case["message"]


@pytest.mark.parametrize(("name", "case"), cases("refuses", PARSERS))
def test_a_bad_reply_is_refused(name: str, case: dict[str, Any]) -> None:
    payload = case["raw"].encode() if "raw" in case else json.dumps(case["payload"]).encode()
    with pytest.raises(Malformed):
        PARSERS[name](payload)


@pytest.mark.parametrize(
    ("name", "field", "limit"),
    [(name, field, limit) for name in PARSERS for field, limit in load(name)["limits"].items()],
)
def test_a_field_one_byte_too_long_is_refused(name: str, field: str, limit: int) -> None:
    payload = load(name)["sends"][0]["payload"]
    holder = payload["error"] if field in payload.get("error", {}) else payload
    for length, accepted in ((limit, True), (limit + 1, False)):
        holder[field] = (holder[field] + "x" * length)[:length]
        if accepted:
            PARSERS[name](json.dumps(payload).encode())
        else:
            with pytest.raises(Malformed):
                PARSERS[name](json.dumps(payload).encode())


@pytest.mark.parametrize("extra", [0, 1, 20_000])
@pytest.mark.parametrize(
    ("name", "holder", "field"), [("error-response", "error", "message"), ("check-in-response", "renew", "reason")]
)
def test_text_for_people_is_cut_and_its_message_stands(name: str, holder: str, field: str, extra: int) -> None:
    limit = load(name)["cuts"][field]
    payload = next(case["payload"] for case in load(name)["sends"] if holder in case["payload"])
    payload[holder][field] = "ü" * (limit + extra)
    read = PARSERS[name](json.dumps(payload, ensure_ascii=False).encode())
    assert getattr(read if holder == "error" else read.renew, field) == "ü" * limit


ENORMOUS = [2**53 + 1, 10**399, -(10**399), 1e300, True, "1", [1]]


@pytest.mark.parametrize("number", ENORMOUS, ids=lambda number: str(number)[:12])
def test_no_number_is_larger_than_what_may_be_reckoned_with(number: object) -> None:
    """Times and spans are added, divided and made into dates: none of that may overflow later."""
    for name in ("create-response", "ack-response", "check-in-response"):
        payload = {**load(name)["sends"][0]["payload"], "time": number}
        with pytest.raises(Malformed, match="time is not a whole number"):
            PARSERS[name](json.dumps(payload).encode())
    refused = {"error": {"code": "x", "message": "y", "retry_after_s": number}}
    with pytest.raises(Malformed, match="retry_after_s"):
        protocol.parse_ack_response(json.dumps(refused).encode())
    for window in ({"start": number, "end": 2**52}, {"start": 0, "end": number}):
        advised = {"request_id": "r-3", "time": 1, "renew": {**window, "reason": "x"}}
        assert protocol.parse_check_in_response(json.dumps(advised).encode()).renew is None  # type: ignore[union-attr]


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**400), 10**400) | st.text(st.characters(), max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "cert_id",
    "chain",
    "code",
    "end",
    "error",
    "message",
    "pem",
    "reason",
    "renew",
    "request_id",
    "retry_after_s",
    "start",
    "time",
)
KNOWN = st.recursive(
    st.dictionaries(st.sampled_from(FIELDS), HOSTILE),
    lambda inner: st.dictionaries(st.sampled_from(("error", "renew")), inner | HOSTILE),
    max_leaves=4,
)


def swallow(parse: Callable[[bytes], Any], payload: bytes) -> None:
    """Read a payload; whatever comes of it is `Malformed`, or fit to be shown, stored and reckoned with."""
    try:
        read = asdict(parse(payload))
    except Malformed as problem:
        read = {"problem": str(problem)}
    values = [*read.values(), *(read.get("renew") or {}).values()]
    for number in (value for value in values if isinstance(value, int)):
        assert 0 <= number <= protocol.MAX_NUMBER
    for text in (value for value in values if isinstance(value, str) and not value.startswith("-----BEGIN")):
        assert text.isprintable()
        assert len(text) <= protocol.MAX_TEXT


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(PARSERS)), KNOWN | HOSTILE)
def test_whatever_comes_is_malformed_or_harmless(name: str, value: object) -> None:
    good = load(name)["sends"][0]["payload"]
    mixed = {**good, **value} if isinstance(value, dict) else value
    for payload in (value, mixed):
        swallow(PARSERS[name], json.dumps(payload).encode())


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=200))
def test_whatever_bytes_come_are_malformed_or_harmless(name: str, payload: bytes) -> None:
    swallow(PARSERS[name], payload)


PLANTED: dict[str, tuple[str, Callable[..., Any], dict[str, Any]]] = {
    "numbers without a bound": ("_whole", lambda value, _most=0: value >= 0, {"retry_after_s": 10**399}),
    "text that is neither cut nor cleaned": ("_text", lambda value: value, {"message": "y" * 2000}),
    "text that is cut but not cleaned": ("printable", lambda value: value, {"message": "\x1b[2J"}),
}


@pytest.mark.parametrize(("name", "bug", "said"), PLANTED.values(), ids=PLANTED)
def test_bug_planted_a_bound_that_is_missing(
    name: str, bug: Callable[..., Any], said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, name, bug)
    with pytest.raises(AssertionError):
        swallow(protocol.parse_ack_response, json.dumps({"error": {"code": "x", "message": "y", **said}}).encode())


@pytest.mark.parametrize("parse", PARSERS.values())
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"[" * 60_000, id="60,000 arrays deep"),
        pytest.param(b'{"a":' * 17 + b"1" + b"}" * 17, id="17 objects deep"),
        pytest.param(b'{"a":"' + b"x" * 70_000 + b'"}', id="over 64 KiB"),
        pytest.param(b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param(b'{"time": 1e999}', id="infinite"),
        pytest.param(b'{"time": 1' + b"0" * 5000 + b"}", id="a number of 5,001 digits"),
        pytest.param(b'{"cert_id": "\\ud800", "pem": "\\ud800"}', id="half of a UTF-16 pair"),
    ],
)
def test_a_hostile_payload_is_refused(parse: Callable[[bytes], Any], payload: bytes) -> None:
    with pytest.raises(Malformed):
        parse(payload)


def test_topics_follow_the_contract() -> None:
    topics = Topics("cert-rotation", "SN-0001")
    assert topics.request(protocol.CREATE) == load("create-request")["topic"]
    assert topics.response(protocol.CREATE) == load("create-response")["topic"]
    assert topics.request(protocol.ACK) == load("ack-request")["topic"]
    assert topics.response(protocol.ACK) == load("ack-response")["topic"]
    assert topics.request(protocol.CHECK_IN) == load("check-in-request")["topic"]


def test_the_samples_topics_have_a_slash_before_them() -> None:
    topics = Topics("/cert-rotation", "SN-0001")
    assert topics.request(protocol.CREATE) == "/" + load("create-request")["topic"]
    assert topics.response(protocol.CREATE) == "/" + load("create-response")["topic"]
    assert topics.request(protocol.ACK) == "/" + load("ack-request")["topic"]
    assert topics.response(protocol.ACK) == "/" + load("ack-response")["topic"]


def accepted(name: str, what: str) -> dict[str, Any]:
    (payload,) = (case["payload"] for case in load(name)["accepts"] if what in case["name"])
    return dict(payload)


@pytest.mark.parametrize("name", ["create-request", "ack-request"])
def test_what_the_sample_reads_is_in_every_request(name: str) -> None:
    for case in load(name)["sends"]:
        assert accepted(name, "required fields only").keys() <= case["payload"].keys()


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # zero is against RFC 5280, and is what the sample gives
def test_the_samples_certificate_is_fit_to_be_used() -> None:
    asked = x509.load_pem_x509_csr(accepted("create-request", "openssl")["csr"].encode()).public_key()
    der = asked.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    reply = PARSERS["create-response"](json.dumps(accepted("create-response", "for that request")).encode())
    certificate = x509.load_pem_x509_certificate(reply.pem.encode())
    assert (certificate.version, certificate.serial_number) == (x509.Version.v1, 0)
    now = certificate.not_valid_before_utc.timestamp()
    found = certificates.check_fit(reply.pem, reply.chain, certificates.Expectation(der, "SN-0001", None, now))
    assert found.certificate_id == reply.cert_id


def test_the_reason_of_advice_is_made_printable_where_it_enters() -> None:
    renew = {"start": 1, "end": 2, "reason": EVIL}
    reply = protocol.parse_check_in_response(json.dumps({"request_id": "r", "time": 1, "renew": renew}).encode())
    assert isinstance(reply, CheckInResponse)
    assert isinstance(reply.renew, Advice)
    assert obeyed(reply.renew.reason) == set()
    assert "\n" not in reply.renew.reason
