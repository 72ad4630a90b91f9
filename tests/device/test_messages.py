"""The device's half of the contract in tests/contract."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from iot_agent import certificates, messages
from iot_agent.messages import Malformed, Topics

CONTRACT = Path(__file__).parent.parent / "contract"
REQUESTS: dict[str, Callable[..., Any]] = {
    "create-request": messages.CreateRequest,
    "ack-request": messages.AckRequest,
    "check-in-request": messages.CheckInRequest,
}
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "create-response": messages.parse_create_response,
    "ack-response": messages.parse_ack_response,
    "check-in-response": messages.parse_check_in_response,
    "error-response": messages.parse_create_response,
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
    assert json.loads(messages.encode(REQUESTS[name](**case["message"]))) == case["payload"]


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


@pytest.mark.parametrize("parse", PARSERS.values())
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"[" * 60_000, id="60,000 arrays deep"),
        pytest.param(b'{"a":' * 17 + b"1" + b"}" * 17, id="17 objects deep"),
        pytest.param(b'{"a":"' + b"x" * 70_000 + b'"}', id="over 64 KiB"),
        pytest.param(b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param(b'{"time": 1e999}', id="infinite"),
    ],
)
def test_a_hostile_payload_is_refused(parse: Callable[[bytes], Any], payload: bytes) -> None:
    with pytest.raises(Malformed):
        parse(payload)


def test_topics_follow_the_contract() -> None:
    topics = Topics("cert-rotation", "SN-0001")
    assert topics.request(messages.CREATE) == load("create-request")["topic"]
    assert topics.response(messages.CREATE) == load("create-response")["topic"]
    assert topics.request(messages.ACK) == load("ack-request")["topic"]
    assert topics.response(messages.ACK) == load("ack-response")["topic"]
    assert topics.request(messages.CHECK_IN) == load("check-in-request")["topic"]


def test_the_samples_topics_have_a_slash_before_them() -> None:
    topics = Topics("/cert-rotation", "SN-0001")
    assert topics.request(messages.CREATE) == "/" + load("create-request")["topic"]
    assert topics.response(messages.CREATE) == "/" + load("create-response")["topic"]
    assert topics.request(messages.ACK) == "/" + load("ack-request")["topic"]
    assert topics.response(messages.ACK) == "/" + load("ack-response")["topic"]


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
