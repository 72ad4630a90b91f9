"""Topics and payloads on the wire. Parsing validates: what this module returns is valid.

- A payload is at most 64 KiB of UTF-8 JSON, an object, nested at most 16 deep.
- Unknown fields are ignored: they belong to a later version.
- Numbers are JSON's: no NaN, no Infinity.

Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cloud.rotation.lifecycle import Event

if TYPE_CHECKING:
    from cloud.rotation.lifecycle import ErrorCode
    from cloud.rotation.record import Renewal

MAX_PAYLOAD: Final = 64 * 1024
MAX_DEPTH: Final = 16
MAX_CSR: Final = 8 * 1024
MAX_REPORT: Final = 4 * 1024
MAX_MESSAGE: Final = 1024

SERIAL: Final = re.compile(r"[a-zA-Z0-9:_-]{1,64}")
"""The characters of a thing's name, and at most the length of an X.509 common name (RFC 5280, ub-common-name)."""

REGISTERED_TOPIC: Final = "$aws/events/certificates/registered/"

_CERTIFICATE_ID: Final = re.compile(r"[0-9a-f]{64}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_CSR: Final = re.compile(
    r"-----BEGIN CERTIFICATE REQUEST-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE REQUEST-----\s*", re.ASCII
)
_SEGMENTS: Final = {"create-man-cert": Event.CREATE, "ack-man-cert": Event.ACK, "check-in": Event.CHECK_IN}


class MalformedError(ValueError):
    """A payload or topic that does not follow the protocol; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request came from: the operation, the serial its topic names, and where the answer goes."""

    event: Event
    serial: str
    reply_to: str


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A CSR, PEM."""

    csr: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class AckRequest:
    """The certificate the device says it now uses."""

    cert_id: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class CheckInRequest:
    """The device's report about itself; its fields are not interpreted."""

    request_id: str
    report: dict[str, Any]

    def report_text(self) -> str:
        """Return the report as compact JSON."""
        return _text(self.report)


@dataclass(frozen=True, slots=True)
class RegisteredEvent:
    """AWS IoT reports that a certificate has registered itself (DG: just-in-time registration)."""

    certificate_id: str


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """The certificate, its id, and its issuer's certificate, if that is known."""

    pem: str
    cert_id: str
    request_id: str | None
    chain: str | None
    time: int

    def payload(self) -> dict[str, Any]:
        """Return the JSON object on the wire."""
        return _some(pem=self.pem, cert_id=self.cert_id, request_id=self.request_id, chain=self.chain, time=self.time)


@dataclass(frozen=True, slots=True)
class AckResponse:
    """The certificate that is active now."""

    cert_id: str
    request_id: str | None
    time: int

    def payload(self) -> dict[str, Any]:
        """Return the JSON object on the wire."""
        return _some(cert_id=self.cert_id, request_id=self.request_id, time=self.time)


@dataclass(frozen=True, slots=True)
class CheckInResponse:
    """The cloud's time and, if there is any, advice when to renew."""

    request_id: str
    time: int
    renew: Renewal | None

    def payload(self) -> dict[str, Any]:
        """Return the JSON object on the wire."""
        window = self.renew
        renew = {"start": window.start, "end": window.end, "reason": window.reason} if window else None
        return _some(request_id=self.request_id, time=self.time, renew=renew)


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """Why a request is refused, and when to ask again (null: only after something has changed)."""

    code: ErrorCode
    message: str
    retry_after_s: int | None
    request_id: str | None

    def payload(self) -> dict[str, Any]:
        """Return the JSON object on the wire."""
        message = self.message.encode()[:MAX_MESSAGE].decode(errors="ignore")
        error = {"code": self.code, "message": message, "retry_after_s": self.retry_after_s}
        return _some(error=error, request_id=self.request_id)


Response = CreateResponse | AckResponse | CheckInResponse | ErrorResponse


def encode(response: Response) -> bytes:
    """Return the bytes to publish."""
    return _text(response.payload()).encode()


def parse_address(prefix: str, topic: str) -> Address:
    """Read a request topic `prefix/<operation>/<serial>/rqst`; the prefix may itself contain or start with slashes."""
    head, rest = topic[: len(prefix) + 1], topic[len(prefix) + 1 :]
    match rest.split("/"):
        case [segment, serial, "rqst"] if head == prefix + "/" and segment in _SEGMENTS and SERIAL.fullmatch(serial):
            return Address(_SEGMENTS[segment], serial, f"{prefix}/{segment}/{serial}/rspn")
    raise MalformedError("the topic is not a request topic of this protocol")


def parse_create(data: bytes) -> CreateRequest:
    """Read `{"csr": PEM, "request_id"?}`."""
    fields = _object(data)
    csr = fields.get("csr")
    if not isinstance(csr, str) or len(csr) > MAX_CSR or not _CSR.fullmatch(csr):
        raise MalformedError(f"csr must be one PEM certificate request of at most {MAX_CSR} bytes")
    return CreateRequest(csr, _request_id(fields))


def parse_ack(data: bytes) -> AckRequest:
    """Read `{"cert_id": hex64, "request_id"?}`."""
    fields = _object(data)
    return AckRequest(certificate_id(fields.get("cert_id"), "cert_id"), _request_id(fields))


def parse_check_in(data: bytes) -> CheckInRequest:
    """Read `{"request_id", "report": {...}}`."""
    fields = _object(data)
    request_id, report = _request_id(fields), fields.get("report")
    if request_id is None:
        raise MalformedError("request_id is missing")
    if not isinstance(report, dict) or len(_text(report).encode()) > MAX_REPORT:
        raise MalformedError(f"report must be an object of at most {MAX_REPORT} bytes")
    return CheckInRequest(request_id, report)


def parse_registered(data: bytes) -> RegisteredEvent:
    """Read the certificate's id in the event; the registry has its other fields as they are now."""
    return RegisteredEvent(certificate_id(_object(data).get("certificateId"), "certificateId"))


def certificate_id(value: object, name: str) -> str:
    """Return `value` if it is a certificate id: 64 lower-case hex digits."""
    if not isinstance(value, str) or not _CERTIFICATE_ID.fullmatch(value):
        raise MalformedError(f"{name} must be 64 lower-case hex digits")
    return value


def _request_id(fields: dict[str, Any]) -> str | None:
    value = fields.get("request_id")
    if value is not None and not (isinstance(value, str) and _REQUEST_ID.fullmatch(value)):
        raise MalformedError("request_id must be 1 to 64 letters, digits or any of . _ : -")
    return value


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_PAYLOAD:
        raise MalformedError(f"the payload is larger than {MAX_PAYLOAD} bytes")
    try:
        value = json.loads(data.decode(), parse_constant=_no_constant)
        _text(value).encode()  # a lone surrogate or a number like 1e999 parses, but cannot be written again
    except (ValueError, RecursionError) as error:
        raise MalformedError("the payload is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedError("the payload is not an object")
    layer: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        layer = [child for parent in layer for child in _children(parent)]
    if layer:
        raise MalformedError(f"the payload nests more than {MAX_DEPTH} deep")
    return value


def _children(parent: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    children = parent.values() if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, dict | list)]


def _no_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not JSON")


def _some(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
