"""Records and outcomes as JSON: on disk, and between daemon and worker. Pure.

A record on disk is format 1: {"format": 1, "crc32": hex, "record": {…}}, the checksum over the record's own JSON text.
It finds bit-rot and torn writes; whoever can forge it can also write the keys beside it.
"""

import json
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Any

from iot_agent import settings
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

FORMAT = 1


class Damaged(Exception):
    """The bytes are not what they should be."""


class LaterFormat(Exception):
    """The bytes were written by a later agent."""


def encode_record(record: Record) -> bytes:
    """Turn a record into the bytes of format 1."""
    body = json.dumps(asdict(record), separators=(",", ":"))
    return f'{{"format": {FORMAT}, "crc32": "{_checksum(body)}", "record": {body}}}\n'.encode()


def decode_record(content: bytes) -> Record:
    """Read a record; raises `Damaged` or `LaterFormat`."""
    try:
        wrapper = json.loads(content)
        version, checksum, body = wrapper["format"], wrapper["crc32"], wrapper["record"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"not a record: {error!r}") from error
    if isinstance(version, int) and version > FORMAT:
        raise LaterFormat(f"written by a later agent (format {version}, this one knows {FORMAT}); upgrade the agent")
    if checksum != _checksum(json.dumps(body, separators=(",", ":"))):
        raise Damaged("its checksum is wrong")
    try:
        return _record(body)
    except (TypeError, ValueError, KeyError) as error:
        raise Damaged(f"its fields are wrong: {error!r}") from error


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _record(body: dict[str, Any]) -> Record:
    parts = {field.name: body[field.name] for field in fields(Record)}
    pending, failure = parts["pending"], parts["failure"]
    parts.update(
        state=State(parts["state"]),
        active=_identity(parts["active"]),
        set_aside=_identity(parts["set_aside"]),
        pending=None if pending is None else _pending(pending),
        leftovers=tuple(parts["leftovers"]),
        failure=None if failure is None else Failure(**{**failure, "step": Kind(failure["step"])}),
        advised=None if parts["advised"] is None else Advised(**parts["advised"]),
        history=tuple(Event(**event) for event in parts["history"]),
    )
    return Record(**parts)


def _identity(body: dict[str, Any] | None) -> Identity | None:
    return None if body is None else Identity(body["label"], Certificate(**body["certificate"]))


def _pending(body: dict[str, Any]) -> Pending:
    return Pending(**{**body, "certificate": _certificate(body["certificate"])})


def _certificate(body: dict[str, Any] | None) -> Certificate | None:
    return None if body is None else Certificate(**body)


OUTCOMES = {kind.__name__: kind for kind in (Introduced, Generated, Issued, Proven, Retired, CheckedIn, Failed)}


def encode_outcome(outcome: Outcome) -> bytes:
    """Turn an outcome into one line of JSON, its kind under "outcome"."""
    return json.dumps({"outcome": type(outcome).__name__, **asdict(outcome)}).encode() + b"\n"


def decode_outcome(content: bytes) -> Outcome:
    """Read an outcome; raises `Damaged`."""
    try:
        body = json.loads(content)
        kind = OUTCOMES[body.pop("outcome")]
        if kind is Issued:
            body["certificate"] = Certificate(**body["certificate"])
        if kind is Retired:
            body["labels"] = tuple(body["labels"])
        if kind is CheckedIn and body["advice"] is not None:
            body["advice"] = Advice(**body["advice"])
        outcome: Outcome = kind(**body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"not an outcome: {error!r}") from error
    return outcome


@dataclass(frozen=True)
class Request:
    """What the daemon asks of a worker: one step, from this record, at this time, under these settings."""

    step: Kind
    record: Record
    now: float
    clock_trusted: bool
    settings: settings.Settings


def encode_request(request: Request) -> bytes:
    """Turn a request into one line of JSON."""
    body = {
        "step": request.step,
        "record": encode_record(request.record).decode(),
        "now": request.now,
        "clock_trusted": request.clock_trusted,
        "settings": settings.dump(request.settings),
    }
    return json.dumps(body).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """Read a request; it comes from our own daemon, so anything wrong with it is a bug and raises as such."""
    body = json.loads(line)
    return Request(
        Kind(body["step"]),
        decode_record(body["record"].encode()),
        body["now"],
        body["clock_trusted"],
        settings.load(body["settings"]),
    )
