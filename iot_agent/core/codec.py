"""Records and outcomes as JSON: on disk, and between daemon and worker. Pure.

A record on disk is format 1: {"format": 1, "crc32": hex, "record": {"format": 1, …}}, the checksum over the text
of the record. It finds accidental damage only; who can forge it can write the keys, too. The format that counts is
the one inside, which the checksum covers; the one outside is for version 0.1.0, which reads no other.

How the record evolves: a new field has a default and is top-level, so that either version reads the other's; only a
change that an older version must not misread gets a new format, with a migration here. Every released version's record
is a file in tests/device/golden.
"""

import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from iot_agent.core import settings, typed_json
from iot_agent.core.record import (
    CheckedIn,
    Failed,
    Generated,
    Introduced,
    Issued,
    Kind,
    Outcome,
    Proven,
    Record,
    Retired,
)

FORMAT = 1


class Damaged(Exception):
    """The bytes are not what they should be."""


class LaterFormat(Exception):
    """The bytes were written by a later agent."""


def encode_record(record: Record) -> bytes:
    """Turn a record into the bytes of format 1."""
    body = json.dumps({"format": FORMAT, **asdict(record), **_for_0_1_0(record)}, separators=(",", ":"))
    return f'{{"format": {FORMAT}, "crc32": "{_checksum(body)}", "record": {body}}}\n'.encode()


def decode_record(content: bytes) -> Record:
    """Read a record; raises `Damaged` or `LaterFormat`."""
    try:
        wrapper = json.loads(content)
        checksum, body = wrapper["crc32"], wrapper["record"]
        if checksum != _checksum(json.dumps(body, separators=(",", ":"))):
            raise Damaged("its checksum is wrong")
        version = body.get("format", FORMAT)  # 0.1.0 wrote it outside only
        if version > FORMAT:
            raise LaterFormat(f"written by a later agent (format {version}, not {FORMAT}); upgrade the agent")
        return typed_json.read(Record, _from_0_1_0(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"not a record: {error!r:.200}") from error


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _for_0_1_0(record: Record) -> dict[str, Any]:
    """Write renamed fields under their old names too, so that a device that goes back to 0.1.0 loses nothing."""
    newest = record.unconfirmed[-1] if record.unconfirmed else None
    return {
        "set_aside": None if newest is None else asdict(newest),
        "leftovers": record.to_delete,
        "retry_at": record.waiting_since + record.wait,
    }


def _from_0_1_0(body: dict[str, Any]) -> dict[str, Any]:
    """Read the old names where the new ones are absent. The wait is over: 0.1.0 did not store its beginning."""
    if "unconfirmed" in body:
        return body
    set_aside = body["set_aside"]
    return {**body, "unconfirmed": [] if set_aside is None else [set_aside], "to_delete": body["leftovers"]}


OUTCOMES = {kind.__name__: kind for kind in (Introduced, Generated, Issued, Proven, Retired, CheckedIn, Failed)}


def encode_outcome(outcome: Outcome) -> bytes:
    """Turn an outcome into one line of JSON, its kind under "outcome"."""
    return json.dumps({"outcome": type(outcome).__name__, **asdict(outcome)}).encode() + b"\n"


def decode_outcome(content: bytes) -> Outcome:
    """Read an outcome; raises `Damaged`."""
    try:
        body = json.loads(content)
        outcome: Outcome = typed_json.read(OUTCOMES[body["outcome"]], body)  # type: ignore[assignment]  # one of them
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"not an outcome: {error!r:.200}") from error
    return outcome


@dataclass(frozen=True)
class Request:
    """What the daemon asks a worker to do: one step, from this record, at this time, under these settings."""

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
    """Read a request; raises `Damaged` or `LaterFormat`, which is a bug, for it comes from our own daemon."""
    try:
        said = typed_json.parse(_Line, line)
        record, asked_with = decode_record(said.record.encode()), settings.load(said.settings)
    except ValueError as error:
        raise Damaged(f"not a request: {error!r:.200}") from error
    return Request(said.step, record, said.now, said.clock_trusted, asked_with)


@dataclass(frozen=True)
class _Line:
    """A request as it is written; record and settings are JSON of their own."""

    step: Kind
    record: str
    now: float
    clock_trusted: bool
    settings: str
