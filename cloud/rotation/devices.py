"""The records, one item per serial; each is written only if nobody else has written it since it was read.

The table of devices: `serial` (S, the key), `state` (S), `version` (N, counts writes), `allowed_at`, `last_seen`,
`vendor_not_after`, `readmit_until`, `removing` (N, ms), `vendor_certificate_id` (S), `quarantined` (L of S), `active`,
`pending` (M: certificate_id, public_key, pem, issued_at, not_after, recovering), `retiring` (M: certificate id ->
since, vendor), `returning` (M: certificate id -> since), `renew` (M: start, end, since, reason), `report` (S, JSON). If
the sweeper is to look at the record, also `agenda` (S, always the same) and `look_at` (N, ms): the index `agenda` has
only those items. A write changes only the attributes in OWNED, so that attributes of a later version are kept.

The table of their history, written together with a record or not at all: `serial` and `line` (S), the key; `at` (N,
ms), `version` (N), `event`, `detail`, `certificate_id`, `by` (S). A line's key begins with its time: a record
that was restored, or created again, counts its versions again, and must not overwrite earlier lines.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import boto3
from boto3.dynamodb.conditions import Key
from botocore.config import Config
from botocore.exceptions import ClientError

from cloud.rotation.agenda import next_look
from cloud.rotation.record import NEW, Certificate, Device, Entry, Renewal, Retiring, Returning, State
from cloud.rotation.settings import TIMEOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_dynamodb.service_resource import Table
    from mypy_boto3_dynamodb.type_defs import UpdateTypeDef

Item: TypeAlias = dict[str, Any]

INDEX: Final = "agenda"
OPEN: Final = "open"
QUERY_PAGE: Final = 100
LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, the last that a date can be of."""

OWNED: Final = (
    "state",
    "allowed_at",
    "vendor_certificate_id",
    "vendor_not_after",
    "quarantined",
    "active",
    "pending",
    "retiring",
    "returning",
    "renew",
    "readmit_until",
    "last_seen",
    "report",
    "removing",
    "agenda",
    "look_at",
)


class ConflictError(RuntimeError):
    """The record was written since it was read: read it and decide again."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A line of history as it was written: when (ms), and as which version of the record."""

    at: int
    version: int
    entry: Entry


class Devices:
    """The records, by serial."""

    def __init__(self, table: Table, history: Table) -> None:
        self._table = table
        self._history = history

    def get(self, serial: str) -> Device | None:
        """Return the record as it is now, or None."""
        item = self._table.get_item(Key={"serial": serial}, ConsistentRead=True).get("Item")
        return read(item) if item else None

    def save(self, device: Device, now: int, entry: Entry | None = None) -> None:
        """Write `device`, which was made from the record of its `version`; ConflictError if there is a later version.

        A record of version NEW must not exist yet.
        """
        update = _update(self._table.name, device, now)
        try:
            if entry is None:
                self._table.meta.client.update_item(**update)
            else:
                line = _line(device, now, entry)
                self._table.meta.client.transact_write_items(
                    TransactItems=[{"Update": update}, {"Put": {"TableName": self._history.name, "Item": line}}]
                )
        except ClientError as error:
            if _lost_a_race(error):
                raise ConflictError("the record has been written by another run") from error
            raise

    def delete(self, device: Device, now: int, entry: Entry) -> None:
        """Delete the record, if it is still of this version, and add a line of history; else ConflictError."""
        gone: Any = {
            "TableName": self._table.name,
            "Key": {"serial": device.serial},
            "ConditionExpression": "#version = :version",
            "ExpressionAttributeNames": {"#version": "version"},
            "ExpressionAttributeValues": {":version": device.version},
        }
        put: Any = {"TableName": self._history.name, "Item": _line(device, now, entry)}
        try:
            self._table.meta.client.transact_write_items(TransactItems=[{"Delete": gone}, {"Put": put}])
        except ClientError as error:
            if _lost_a_race(error):
                raise ConflictError("the record has been written by another run") from error
            raise

    def due(self, now: int) -> Iterator[str]:
        """Yield the serials the sweeper is to look at, the longest overdue first; the index may be seconds behind."""
        condition = Key("agenda").eq(OPEN) & Key("look_at").lte(now)
        for item in _items(self._table.query, IndexName=INDEX, KeyConditionExpression=condition, Limit=QUERY_PAGE):
            yield str(item["serial"])

    def history(self, serial: str) -> Iterator[Happened]:
        """Yield a device's history, in order."""
        condition = Key("serial").eq(serial)
        yield from map(_happened, _items(self._history.query, KeyConditionExpression=condition, ConsistentRead=True))

    def scan(self) -> Iterator[Device]:
        """Yield every record, a page at a time. Only operators' commands do this, never the Lambda."""
        yield from map(read, _items(self._table.scan))


def _items(call: Callable[..., Any], **request: Any) -> Iterator[Item]:  # noqa: ANN401 - a query's or a scan's own
    """Yield the items of all pages, each asked for when it is needed."""
    while True:
        page = call(**request)
        yield from page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def connect(table: str, history: str) -> Devices:
    """Return the records in the tables of those names."""
    resource = boto3.resource("dynamodb", config=Config(**TIMEOUTS))
    return Devices(resource.Table(table), resource.Table(history))


def _update(table: str, device: Device, now: int) -> UpdateTypeDef:
    values = {name: value for name, value in _owned(device, now).items() if value is not None}
    assigned = ", ".join(f"#{name} = :{name}" for name in values)
    removed = ", ".join(f"#{name}" for name in OWNED if name not in values)
    parameters: Item = {":next": device.version + 1} | {f":{name}": value for name, value in values.items()}
    if device.version == NEW:
        condition = "attribute_not_exists(serial)"
    else:
        condition = "#version = :version"
        parameters[":version"] = device.version
    return {
        "TableName": table,
        "Key": {"serial": device.serial},
        "UpdateExpression": f"SET #version = :next, {assigned}" + (f" REMOVE {removed}" if removed else ""),
        "ConditionExpression": condition,
        "ExpressionAttributeNames": {f"#{name}": name for name in (*OWNED, "version")},
        "ExpressionAttributeValues": parameters,
    }


def _line(device: Device, now: int, entry: Entry) -> Item:
    fields = {name: value for name, value in asdict(entry).items() if value is not None}
    version = device.version + 1
    return {"serial": device.serial, "line": f"{now:013d}-{version:08d}", "version": version, "at": now, **fields}


def _lost_a_race(error: ClientError) -> bool:
    """Whether the condition was not met, or another transaction was writing the same item."""
    if error.response["Error"]["Code"] in ("ConditionalCheckFailedException", "TransactionConflictException"):
        return True
    reasons = error.response.get("CancellationReasons", [])
    return any(reason.get("Code") in ("ConditionalCheckFailed", "TransactionConflict") for reason in reasons)


def _owned(device: Device, now: int) -> Item:
    look_at = next_look(device, now)
    return {
        "state": device.state.value,
        "allowed_at": device.allowed_at,
        "vendor_certificate_id": device.vendor_certificate_id,
        "vendor_not_after": device.vendor_not_after,
        "quarantined": list(device.quarantined) or None,
        "active": asdict(device.active) if device.active else None,
        "pending": asdict(device.pending) if device.pending else None,
        "retiring": {one.certificate_id: {"since": one.since, "vendor": one.vendor} for one in device.retiring} or None,
        "returning": {one.certificate_id: one.since for one in device.returning} or None,
        "renew": asdict(device.renew) if device.renew else None,
        "readmit_until": device.readmit_until,
        "last_seen": device.last_seen,
        "report": device.report,
        "removing": device.removing,
        "agenda": None if look_at is None else OPEN,
        "look_at": look_at,
    }


def read(item: Item) -> Device:
    """Return the record in an item of the table."""
    retiring, returning = (sorted(item.get(name, {}).items()) for name in ("retiring", "returning"))
    return Device(
        serial=item["serial"],
        state=State(item["state"]),
        version=int(item["version"]),
        allowed_at=_integer(item.get("allowed_at")),
        vendor_certificate_id=item.get("vendor_certificate_id"),
        vendor_not_after=_integer(item.get("vendor_not_after")),
        quarantined=tuple(item.get("quarantined", ())),
        active=_certificate(item.get("active")),
        pending=_certificate(item.get("pending")),
        retiring=tuple(Retiring(name, int(one["since"]), bool(one["vendor"])) for name, one in retiring),
        returning=tuple(Returning(name, int(since)) for name, since in returning),
        renew=_renewal(item.get("renew")),
        readmit_until=_integer(item.get("readmit_until")),
        last_seen=_integer(item.get("last_seen")),
        report=item.get("report"),
        removing=_integer(item.get("removing")),
        look_at=_integer(item.get("look_at")),
    )


def _integer(number: Any) -> int | None:  # noqa: ANN401 - what DynamoDB gives for a number, or nothing
    return None if number is None else int(number)


def _certificate(fields: Item | None) -> Certificate | None:
    if fields is None:
        return None
    times = {name: int(fields[name]) for name in ("issued_at", "not_after")}
    recovering = bool(fields.get("recovering"))
    return Certificate(fields["certificate_id"], fields["public_key"], fields["pem"], **times, recovering=recovering)


def _renewal(fields: Any) -> Renewal | None:  # noqa: ANN401 - may be anything, if written by hand
    """Return the advice; None if it is invalid, because that must not stop a device from renewing."""
    try:
        start, end, since = (int(fields.get(name, 0)) for name in ("start", "end", "since"))
        advice = Renewal(start, end, str(fields["reason"]), since)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return advice if 0 < advice.start <= advice.end <= LAST_MS and abs(advice.since) <= LAST_MS else None


def _happened(item: Item) -> Happened:
    entry = Entry(item["event"], item["detail"], item.get("certificate_id"), item.get("by"))
    return Happened(int(item["at"]), int(item["version"]), entry)
