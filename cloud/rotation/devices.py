"""The table of devices: one item per serial, written only on the condition that nobody else wrote since it was read.

The item: `serial` (S, the key), `state` (S), `version` (N, counts writes), `allowed_at`, `last_seen` (N, ms),
`vendor_certificate_id`, `quarantined_certificate_id` (S), `active`, `pending` (M: certificate_id, public_key, pem,
issued_at, not_after), `retiring` (M: certificate id -> since when, ms), `report` (S, JSON) and an operator's
`renew` (M: start, end, reason). A write touches only the attributes the rules own, so `renew` and whatever a later
version adds survive it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from cloud.rotation.record import NEW, Certificate, Device, Renewal, Retiring, State
from cloud.rotation.settings import TIMEOUTS

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

Item: TypeAlias = dict[str, Any]

OWNED: Final = (
    "state",
    "vendor_certificate_id",
    "quarantined_certificate_id",
    "active",
    "pending",
    "retiring",
    "last_seen",
    "report",
)


class ConflictError(RuntimeError):
    """Somebody else wrote the record since it was read: read it and decide again."""


class Devices:
    """The records, by serial."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, serial: str) -> Device | None:
        """Return the record as it is now, or None."""
        item = self._table.get_item(Key={"serial": serial}, ConsistentRead=True).get("Item")
        return _device(item) if item else None

    def save(self, device: Device) -> None:
        """Write `device`, which was made from the record of its `version`; ConflictError if that is no longer so.

        A record of version NEW must not exist yet.
        """
        values = {name: value for name, value in _owned(device).items() if value is not None}
        assigned = ", ".join(f"#{name} = :{name}" for name in values)
        removed = ", ".join(f"#{name}" for name in OWNED if name not in values)
        parameters: Item = {":next": device.version + 1} | {f":{name}": value for name, value in values.items()}
        if device.version == NEW:
            condition = "attribute_not_exists(serial)"
        else:
            condition = "#version = :version"
            parameters[":version"] = device.version
        try:
            self._table.update_item(
                Key={"serial": device.serial},
                UpdateExpression=f"SET #version = :next, {assigned}" + (f" REMOVE {removed}" if removed else ""),
                ConditionExpression=condition,
                ExpressionAttributeNames={f"#{name}": name for name in (*OWNED, "version")},
                ExpressionAttributeValues=parameters,
            )
        except ClientError as error:
            raise_on_conflict(error)


def connect(table: str) -> Devices:
    """Return the records in the table of that name."""
    return Devices(boto3.resource("dynamodb", config=Config(**TIMEOUTS)).Table(table))


def allow(table: Table, serial: str, now_ms: int) -> bool:
    """Put `serial` on the allow-list; False if it is known already.

    A quarantined serial may be allowed too. Its vendor certificate (`quarantined_certificate_id`) stays INACTIVE until
    an operator deletes it, after which the device's next connection registers it anew.
    """
    try:
        table.update_item(
            Key={"serial": serial},
            UpdateExpression="SET #state = :allowed, allowed_at = :now, #v = if_not_exists(#v, :new) + :one",
            ConditionExpression="attribute_not_exists(serial) OR #state = :quarantined",
            ExpressionAttributeNames={"#state": "state", "#v": "version"},
            ExpressionAttributeValues={
                ":allowed": State.ALLOWED.value,
                ":quarantined": State.QUARANTINED.value,
                ":now": now_ms,
                ":new": NEW,
                ":one": 1,
            },
        )
    except ClientError as error:
        try:
            raise_on_conflict(error)
        except ConflictError:
            return False
    return True


def raise_on_conflict(error: ClientError) -> None:
    """Raise ConflictError if a condition was not met, else `error` itself."""
    if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
        raise ConflictError("the record was written by somebody else") from error
    raise error


def _owned(device: Device) -> Item:
    return {
        "state": device.state.value,
        "vendor_certificate_id": device.vendor_certificate_id,
        "quarantined_certificate_id": device.quarantined_certificate_id,
        "active": asdict(device.active) if device.active else None,
        "pending": asdict(device.pending) if device.pending else None,
        "retiring": {retiring.certificate_id: retiring.since for retiring in device.retiring} or None,
        "last_seen": device.last_seen,
        "report": device.report,
    }


def _device(item: Item) -> Device:
    last_seen = item.get("last_seen")
    return Device(
        serial=item["serial"],
        state=State(item["state"]),
        version=int(item["version"]),
        vendor_certificate_id=item.get("vendor_certificate_id"),
        quarantined_certificate_id=item.get("quarantined_certificate_id"),
        active=_certificate(item.get("active")),
        pending=_certificate(item.get("pending")),
        retiring=tuple(Retiring(name, int(since)) for name, since in sorted(item.get("retiring", {}).items())),
        renew=_renewal(item.get("renew")),
        last_seen=None if last_seen is None else int(last_seen),
        report=item.get("report"),
    )


def _certificate(fields: Item | None) -> Certificate | None:
    if fields is None:
        return None
    times = {name: int(fields[name]) for name in ("issued_at", "not_after")}
    return Certificate(fields["certificate_id"], fields["public_key"], fields["pem"], **times)


def _renewal(fields: Any) -> Renewal | None:  # noqa: ANN401 - written by hand or by an operator's tool: anything
    """Return the advice; nonsense is no advice, and must not keep a device from its certificate."""
    try:
        advice = Renewal(int(fields["start"]), int(fields["end"]), str(fields["reason"]))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return advice if 0 <= advice.start <= advice.end else None
