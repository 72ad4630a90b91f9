"""The contract files, run against the cloud's side of the wire, and the bounds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.rotation import csr, messages
from cloud.rotation.lifecycle import Event
from cloud.rotation.messages import Address, MalformedError
from cloud.rotation.record import Renewal

CONTRACT = Path(__file__).parent.parent / "contract"
READS = {
    "create-request": messages.parse_create,
    "ack-request": messages.parse_ack,
    "check-in-request": messages.parse_check_in,
}
SENDS = {
    "create-response": messages.CreateResponse,
    "ack-response": messages.AckResponse,
    "check-in-response": messages.CheckInResponse,
    "error-response": messages.ErrorResponse,
}


def contract(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CONTRACT / f"{name}.json").read_text())
    return loaded


def cases(names: dict[str, Any], *kinds: str) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['name']}")
        for name in names
        for kind in kinds
        for case in contract(name)[kind]
    ]


def raw(case: dict[str, Any]) -> bytes:
    text = case["raw"] if "raw" in case else json.dumps(case["payload"])
    return str(text).encode()


def test_every_contract_file_is_run() -> None:
    assert {path.stem for path in CONTRACT.glob("*.json")} == set(READS) | set(SENDS)


@pytest.mark.parametrize(("name", "case"), cases(READS, "sends", "accepts"))
def test_reads_what_a_device_may_send(name: str, case: dict[str, Any]) -> None:
    read: Any = READS[name](raw(case))
    assert asdict(read) == case["message"]


@pytest.mark.parametrize(("name", "case"), cases(READS, "refuses"))
def test_refuses_what_a_device_may_not_send(name: str, case: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        READS[name](raw(case))


@pytest.mark.parametrize(("name", "case"), cases(SENDS, "sends"))
def test_sends_exactly_what_is_pinned(name: str, case: dict[str, Any]) -> None:
    fields = dict(case["message"])
    if fields.get("renew"):
        fields["renew"] = Renewal(**fields["renew"])
    assert json.loads(messages.encode(SENDS[name](**fields))) == case["payload"]


@pytest.mark.parametrize("name", [*READS, *SENDS])
def test_reads_and_writes_the_pinned_topics(name: str) -> None:
    topic = contract(name)["topic"]
    address = messages.parse_address("cert-rotation", topic.replace("/rspn", "/rqst"))
    assert address.serial == "SN-0001"
    if topic.endswith("/rspn"):
        assert address.reply_to == topic


@pytest.mark.parametrize("name", [*READS, *SENDS])
def test_the_samples_topics_have_a_slash_before_them(name: str) -> None:
    topic = "/" + contract(name)["topic"]
    address = messages.parse_address("/cert-rotation", topic.replace("/rspn", "/rqst"))
    assert address.serial == "SN-0001"
    assert address.reply_to == topic.replace("/rqst", "/rspn")


def test_the_samples_request_is_fit_to_be_signed() -> None:
    (case,) = (case for case in contract("create-request")["accepts"] if "openssl" in case["name"])
    assert csr.check(messages.parse_create(raw(case)).csr, "SN-0001").key.key_size == 2048


@pytest.mark.parametrize("name", ["create-response", "ack-response"])
def test_what_the_sample_reads_is_in_every_answer(name: str) -> None:
    (pinned,) = (case["payload"] for case in contract(name)["accepts"] if "required fields only" in case["name"])
    for case in contract(name)["sends"]:
        assert pinned.keys() <= case["payload"].keys()


def sized(name: str, field: str, size: int) -> bytes:
    """Return the first pinned payload with a field of exactly `size` bytes."""
    payload = dict(contract(name)["sends"][0]["payload"])
    if field == "csr":
        head, tail = "-----BEGIN CERTIFICATE REQUEST-----\n", "\n-----END CERTIFICATE REQUEST-----\n"
        payload[field] = head + "A" * (size - len(head) - len(tail)) + tail
    elif field == "report":
        payload[field] = {"a": "x" * (size - len('{"a":""}'))}
    else:
        payload[field] = "a" * size
    return json.dumps(payload).encode()


LIMITS = [(name, field, limit) for name in READS for field, limit in contract(name)["limits"].items()]


@pytest.mark.parametrize(("name", "field", "limit"), LIMITS)
def test_a_field_of_the_greatest_length_is_read_and_one_byte_more_refused(name: str, field: str, limit: int) -> None:
    READS[name](sized(name, field, limit))
    with pytest.raises(MalformedError):
        READS[name](sized(name, field, limit + 1))


def test_a_long_error_message_is_cut_to_what_a_device_reads_and_stays_utf8() -> None:
    response = messages.ErrorResponse("bad-csr", "é" * 1000, None, None)
    sent = json.loads(messages.encode(response))["error"]["message"]
    assert sent == "é" * 512


@pytest.mark.parametrize(
    "data",
    [
        b'{"cert_id":"' + b"0" * 64 + b'","a":"' + b"x" * 65536 + b'"}',
        b"[" * 60000,
        b'{"a":' * 10000 + b"1" + b"}" * 10000,
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":-Infinity}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\\ud800"}',
        b"\xff\xfe",
        b'{"a":1}{',
    ],
    ids=["large", "deep array", "deep object", "NaN", "1e999", "Infinity", "long number", "surrogate", "utf-8", "tail"],
)
def test_hostile_payloads_are_refused(data: bytes) -> None:
    for parse in READS.values():
        with pytest.raises(MalformedError):
            parse(data)


def test_sixteen_deep_is_read_and_seventeen_refused() -> None:
    def nested(depth: int) -> bytes:
        return b'{"cert_id":"' + b"0" * 64 + b'","a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert messages.parse_ack(nested(16)).cert_id == "0" * 64
    with pytest.raises(MalformedError):
        messages.parse_ack(nested(17))


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_bytes_are_read_or_refused_and_never_anything_else(data: bytes) -> None:
    for parse in READS.values():
        try:
            parse(data)
        except MalformedError:
            continue


@pytest.mark.parametrize("prefix", ["cert-rotation", "/cert-rotation", "plant/line-1/rotation"])
def test_a_topic_is_read_under_any_prefix(prefix: str) -> None:
    address = messages.parse_address(prefix, f"{prefix}/ack-man-cert/SN:1_a-b/rqst")
    assert address == Address(Event.ACK, "SN:1_a-b", f"{prefix}/ack-man-cert/SN:1_a-b/rspn")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "cert-rotation",
        "cert-rotation/create-man-cert/SN-1",
        "cert-rotation/create-man-cert//rqst",
        "cert-rotation/create-man-cert/SN-1/rspn",
        "cert-rotation/create-man-cert/SN-1/rqst/more",
        "cert-rotation/create-man-cert/SN 1/rqst",
        "cert-rotation/create-man-cert/SN-1\n/rqst",
        "cert-rotation/create-man-cert/" + "a" * 65 + "/rqst",
        "cert-rotation/other/SN-1/rqst",
        "cert-rotationX/create-man-cert/SN-1/rqst",
        "/cert-rotation/create-man-cert/SN-1/rqst",
        "other/create-man-cert/SN-1/rqst",
    ],
)
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(MalformedError):
        messages.parse_address("cert-rotation", topic)


def test_the_registered_event_of_aws_is_read() -> None:
    event = {
        "certificateId": "a" * 64,
        "caCertificateId": "b" * 64,
        "timestamp": 1790000000000,
        "certificateStatus": "PENDING_ACTIVATION",
        "awsAccountId": "123456789012",
        "certificateRegistrationTimestamp": None,
    }
    assert messages.parse_registered(json.dumps(event).encode()).certificate_id == "a" * 64
