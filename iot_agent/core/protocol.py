"""Topics and payloads, as frozen dataclasses: the device's half of docs/protocol.md. Pure; what is parsed is valid.

tests/contract/ checks it against the cloud's half.

- Required fields are few; unknown fields are ignored, so that either side may be upgraded first.
- A payload larger than 64 KiB or nested deeper than 16 is refused before anything looks at it.
- A number is at most 2**53, what every JSON reader has exactly (RFC 8259, 6); a time is before the year 10000.
- Text for people is made printable and cut; a message is never refused because of it.
- Any reply may be an error instead. Advice that is not valid is ignored; the rest of its message counts.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

from iot_agent.core.errors import printable

MAX_PAYLOAD = 64 * 1024
MAX_DEPTH = 16
MAX_CERTIFICATE = 16 * 1024
MAX_CHAIN = 32 * 1024
MAX_TEXT = 1024  # characters
MAX_NUMBER = 2**53
MAX_TIME = 253_402_300_799_999  # ms since the epoch: the end of the year 9999
CERTIFICATE_ID = re.compile(r"[0-9a-f]{64}")
WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Malformed(ValueError):
    """The payload is not the message it should be; the text says which field and why."""


@dataclass(frozen=True)
class Topics:
    """The topics of one device under a prefix, for example `cert-rotation`."""

    prefix: str
    serial: str

    def request(self, verb: str) -> str:
        """Device to cloud; `verb` is create-man-cert, ack-man-cert or check-in."""
        return f"{self.prefix}/{verb}/{self.serial}/rqst"

    def response(self, verb: str) -> str:
        """Cloud to device, for the same verbs."""
        return f"{self.prefix}/{verb}/{self.serial}/rspn"


CREATE, ACK, CHECK_IN = "create-man-cert", "ack-man-cert", "check-in"


@dataclass(frozen=True)
class CreateRequest:
    """Ask for a certificate for the key of this CSR (PEM)."""

    csr: str
    request_id: str


@dataclass(frozen=True)
class CreateResponse:
    """The certificate (PEM), its id (SHA-256 of its DER, hex), and the chain and time (ms) if the cloud gives them."""

    pem: str
    cert_id: str
    request_id: str | None
    chain: str | None
    time: int | None


@dataclass(frozen=True)
class AckRequest:
    """Sent over the new certificate: it works, the previous one may be retired."""

    cert_id: str
    request_id: str


@dataclass(frozen=True)
class AckResponse:
    """The cloud has committed to the certificate with this id."""

    cert_id: str
    request_id: str | None
    time: int | None


@dataclass(frozen=True)
class CheckInRequest:
    """What the device knows of itself, for the operator."""

    request_id: str
    report: dict[str, Any]


@dataclass(frozen=True)
class Advice:
    """A window (ms since the epoch) in which the cloud would like the device to rotate, and why."""

    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class CheckInResponse:
    """The cloud's clock (ms) and, perhaps, renewal advice (the idea of RFC 9773, for devices)."""

    request_id: str
    time: int
    renew: Advice | None


@dataclass(frozen=True)
class ErrorResponse:
    """The cloud cannot do this, or refuses it; `retry_after_s` is None when trying again will not help."""

    code: str
    message: str
    retry_after_s: int | None
    request_id: str | None


def encode(message: CreateRequest | AckRequest | CheckInRequest) -> bytes:
    """Turn a request into its payload."""
    return json.dumps(vars(message), separators=(",", ":")).encode()


def parse_create_response(payload: bytes) -> CreateResponse | ErrorResponse:
    """Read a reply to `CreateRequest`; raises `Malformed`."""
    fields = _object(payload)
    if "error" in fields:
        return _error(fields)
    chain = fields.get("chain")
    return CreateResponse(
        pem=_pem(fields.get("pem"), "pem", MAX_CERTIFICATE),
        cert_id=_certificate_id(fields),
        request_id=_request_id(fields),
        chain=None if chain is None else _pem(chain, "chain", MAX_CHAIN),
        time=_optional_time(fields),
    )


def parse_ack_response(payload: bytes) -> AckResponse | ErrorResponse:
    """Read a reply to `AckRequest`; raises `Malformed`."""
    fields = _object(payload)
    if "error" in fields:
        return _error(fields)
    return AckResponse(_certificate_id(fields), _request_id(fields), _optional_time(fields))


def parse_check_in_response(payload: bytes) -> CheckInResponse | ErrorResponse:
    """Read a reply to `CheckInRequest`; raises `Malformed`."""
    fields = _object(payload)
    if "error" in fields:
        return _error(fields)
    request_id, time = _request_id(fields), _optional_time(fields)
    if request_id is None or time is None:
        raise Malformed("request_id and time are required")
    return CheckInResponse(request_id, time, _advice(fields.get("renew")))


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_PAYLOAD:
        raise Malformed(f"payload is {len(payload)} bytes, more than {MAX_PAYLOAD}")
    try:
        value = json.loads(payload)
    except RecursionError:
        raise Malformed(f"nested deeper than {MAX_DEPTH}") from None  # the traceback would be thousands of frames
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    if _deeper_than(value, MAX_DEPTH):
        raise Malformed(f"nested deeper than {MAX_DEPTH}")
    return value


def _deeper_than(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    return any(_deeper_than(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value))


def _whole(value: object, most: int = MAX_NUMBER) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _text(value: str) -> str:
    """Cut it, then replace control characters and halves of UTF-16 pairs, which no terminal or log may get."""
    return printable(value[:MAX_TEXT])


def _pem(value: object, name: str, limit: int) -> str:
    if not isinstance(value, str) or not value.lstrip().startswith("-----BEGIN CERTIFICATE-----"):
        raise Malformed(f"{name} is not a PEM certificate")
    if not value.isascii():
        raise Malformed(f"{name} has characters that PEM has not")
    if len(value) > limit:
        raise Malformed(f"{name} is longer than {limit} bytes")
    return value


def _certificate_id(fields: dict[str, Any]) -> str:
    value = fields.get("cert_id")
    if not isinstance(value, str) or not CERTIFICATE_ID.fullmatch(value):
        raise Malformed("cert_id is not 64 lower-case hex digits")
    return value


def _request_id(fields: dict[str, Any]) -> str | None:
    value = fields.get("request_id")
    if value is not None and not (isinstance(value, str) and WORD.fullmatch(value)):
        raise Malformed("request_id is not a word of 1 to 64 letters, digits, - or _")
    return value


def _optional_time(fields: dict[str, Any]) -> int | None:
    value = fields.get("time")
    if value is not None and not _whole(value, MAX_TIME):
        raise Malformed("time is not a whole number of milliseconds before the year 10000")
    return value


def _advice(value: object) -> Advice | None:
    if not isinstance(value, dict):
        return None
    start, end, reason = value.get("start"), value.get("end"), value.get("reason")
    if not (_whole(start, MAX_TIME) and _whole(end, MAX_TIME) and isinstance(reason, str)) or start > end:
        return None
    return Advice(start, end, _text(reason))


def _error(fields: dict[str, Any]) -> ErrorResponse:
    error = fields["error"]
    if not isinstance(error, dict):
        raise Malformed("error is not an object")
    code, message, after = error.get("code"), error.get("message"), error.get("retry_after_s")
    if not isinstance(code, str) or not WORD.fullmatch(code):
        raise Malformed("error.code is not a word")
    if not isinstance(message, str):
        raise Malformed("error.message is not text")
    if after is not None and not _whole(after):
        raise Malformed("error.retry_after_s is not a number of seconds")
    return ErrorResponse(code, _text(message), after, _request_id(fields))
