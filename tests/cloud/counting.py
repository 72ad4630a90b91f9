"""Counts what the Lambda does for a device: its AWS calls, DynamoDB's request units and its log, on the bench.

Units by DynamoDB's rules (DG: "Read and write operations", "Item sizes and formats"): a write takes one for each KB of
the larger of the item before and after; in a transaction two; an index one more for each entry that it gains or loses.
A read takes one for each 4 KB, half of that where it need not be consistent.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from botocore.client import BaseClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from tests.cloud.lambda_bench import Bench

KB = 1024
EVENT_OVERHEAD = 26  # bytes that CloudWatch Logs adds to each line when it counts what it has taken in
TABLES = frozenset({"GetItem", "Query", "UpdateItem", "TransactWriteItems"})


@dataclass
class Tally:
    """What was counted since the last look."""

    calls: Counter[str] = field(default_factory=Counter)
    read_units: float = 0
    write_units: int = 0
    history_bytes: int = 0


def size(value: Any) -> int:  # noqa: ANN401 - whatever DynamoDB holds
    """Return the bytes that DynamoDB counts for a value; a map's names count too."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bool):
        return 1
    if isinstance(value, dict):
        return 3 + sum(1 + len(name) + size(one) for name, one in value.items())
    return 1 + ceil(len(str(value).strip("0")) / 2)


def item_size(item: dict[str, Any] | None) -> int:
    """Return the bytes of an item, 0 if there is none."""
    return sum(len(name) + size(value) for name, value in item.items()) if item else 0


@contextmanager
def tallied(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Iterator[Tally]:
    """Count every AWS call inside."""
    original: Any = BaseClient._make_api_call  # type: ignore[attr-defined] # no stub knows this private method
    tally = Tally()

    def item(serial: str) -> dict[str, Any] | None:
        with monkeypatch.context() as patch:
            patch.setattr(BaseClient, "_make_api_call", original)
            found: dict[str, Any] | None = bench.table.get_item(Key={"serial": serial}).get("Item")
        return found

    def counted(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - any answer
        tally.calls[operation] += 1
        if operation not in TABLES:
            return original(client, operation, parameters)
        if operation == "GetItem":
            tally.read_units += max(1, ceil(item_size(item(parameters["Key"]["serial"])) / (4 * KB)))
        if operation == "Query":  # eventually consistent, and the page is smaller than 4 KB
            tally.read_units += 0.5
        update, factor = parameters, 1
        if operation == "TransactWriteItems":
            update, line = (next(iter(one.values())) for one in parameters["TransactItems"])
            written = item_size(line["Item"])
            tally.history_bytes += written
            tally.write_units += 2 * ceil(written / KB)
            factor = 2
        before = item(update["Key"]["serial"]) if "UpdateExpression" in update else None
        answer = original(client, operation, parameters)
        if "UpdateExpression" in update:
            after = item(update["Key"]["serial"])
            tally.write_units += factor * ceil(max(item_size(before), item_size(after)) / KB)
            tally.write_units += _index_units(before, after)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", counted)
        yield tally


def _index_units(before: dict[str, Any] | None, after: dict[str, Any] | None) -> int:
    entries = [(item or {}).get("look_at") for item in (before, after)]
    return 0 if entries[0] == entries[1] else sum(entry is not None for entry in entries)


def log_bytes(captured: str) -> int:
    """Return what CloudWatch Logs counts for the lines."""
    return sum(len(line.encode()) + EVENT_OVERHEAD for line in captured.splitlines())


def metric(captured: str, name: str) -> int:
    """Return how often a metric was counted in the lines."""
    return sum(int(json.loads(line).get(name, 0)) for line in captured.splitlines())
