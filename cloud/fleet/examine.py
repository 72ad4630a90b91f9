"""Everything about one device: its record, its history, and its certificates as IoT Core has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud.fleet import formatting, listing
from cloud.fleet.inspection import Expected, Finding, Seen, compare, roles

if TYPE_CHECKING:
    from mypy_boto3_iot import IoTClient

    from cloud.fleet.connect import Reach
    from cloud.rotation.devices import Happened
    from cloud.rotation.record import Device


@dataclass(frozen=True)
class Report:
    """A device's record and history, its certificates in IoT Core, and where they differ."""

    device: Device
    history: list[Happened]
    seen: list[Seen]
    findings: list[Finding]

    def as_json(self, now: int) -> dict[str, Any]:
        """Return the report as a JSON object."""
        named = roles(self.device)
        return {
            **listing.as_json(self.device, now),
            "history": [
                formatting.with_iso(
                    {
                        "at": line.at,
                        "event": line.entry.event,
                        "detail": line.entry.detail,
                        "certificate_id": line.entry.certificate_id,
                        "by": line.entry.by,
                    },
                    "at",
                )
                for line in self.history
            ],
            "certificates": [
                {
                    "certificate_id": one.certificate_id,
                    "role": named.get(one.certificate_id),
                    "status": one.status,
                    "policies": list(one.policies),
                    "things": list(one.things),
                }
                for one in self.seen
            ],
            "findings": [
                {"certificate_id": one.certificate_id, "problem": one.problem, "remedy": one.remedy}
                for one in self.findings
            ],
        }

    def lines(self, now: int, most: int) -> list[str]:
        """Return the report as lines of text for the terminal, with the last `most` lines of the history (0: all)."""
        device, named = self.device, roles(self.device)
        told = [f"{device.serial}  {device.state}"]
        told += [f"  {note}" for note in listing.notes(device, now)]
        told.append(f"  last seen {formatting.ago(device.last_seen, now)}")
        told += ["", "Certificates"]
        told += _indented(
            ("CERTIFICATE", "ROLE", "STATUS", "EXPIRES", "ATTACHED"),
            [
                (
                    one.certificate_id[:16],
                    named.get(one.certificate_id, "not in the record"),
                    one.status or "not registered",
                    _expiry(device, one.certificate_id, now),
                    ", ".join((*one.policies, *one.things)) or "nothing attached",
                )
                for one in self.seen
            ],
        )
        shown = self.history[-most:] if most else self.history
        earlier = len(self.history) - len(shown)
        told += [
            "",
            "History" + (f" (the last {len(shown)} lines; {earlier} earlier ones: --history 0)" if earlier else ""),
        ]
        told += _indented(
            ("TIME (UTC)", "EVENT", "CERTIFICATE", "DETAIL"),
            [
                (formatting.moment(line.at), line.entry.event, (line.entry.certificate_id or "")[:16], _detail(line))
                for line in shown
            ],
        )
        told.append("")
        if not self.findings:
            told.append("The record and IoT Core agree.")
        for one in self.findings:
            told += [f"! {one.certificate_id[:16]}: {one.problem}", f"    what to do: {one.remedy}"]
        return told


def examine(here: Reach, serial: str) -> Report | None:
    """Look a device up in the tables and in IoT Core; None if it has no record."""
    device = here.office.devices.get(serial)
    if device is None:
        return None
    ids = dict.fromkeys([*roles(device), *of_the_thing(here.iot, serial)])
    seen = [_look(here.iot, certificate_id) for certificate_id in ids]
    expected = Expected(
        frozenset(filter(None, [here.outputs.get("DevicePolicyName"), here.outputs.get("ApplicationPolicyName")])),
        frozenset(filter(None, [here.outputs.get("BootstrapPolicyName")])),
    )
    return Report(device, list(here.office.devices.history(serial)), seen, compare(device, seen, expected))


def of_the_thing(iot: IoTClient, serial: str) -> list[str]:
    """Return the ids of the certificates that are attached to a device's thing; none if there is no thing."""
    try:
        pages = list(iot.get_paginator("list_thing_principals").paginate(thingName=serial))
    except iot.exceptions.ResourceNotFoundException:
        return []
    return [arn.rsplit("/", 1)[1] for page in pages for arn in page["principals"]]


def _look(iot: IoTClient, certificate_id: str) -> Seen:
    try:
        found = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    except iot.exceptions.ResourceNotFoundException:
        return Seen(certificate_id, None)
    arn = found["certificateArn"]
    policies = [
        policy["policyName"]
        for page in iot.get_paginator("list_attached_policies").paginate(target=arn)
        for policy in page["policies"]
    ]
    things = [
        thing for page in iot.get_paginator("list_principal_things").paginate(principal=arn) for thing in page["things"]
    ]
    return Seen(certificate_id, str(found["status"]), tuple(sorted(policies)), tuple(things))


def _expiry(device: Device, certificate_id: str, now: int) -> str:
    for held in (device.active, device.pending):
        if held and held.certificate_id == certificate_id:
            return formatting.ahead(held.not_after, now)
    return formatting.ahead(device.vendor_not_after, now) if certificate_id == device.vendor_certificate_id else "-"


def _detail(line: Happened) -> str:
    return line.entry.detail + (f" (by {line.entry.by})" if line.entry.by else "")


def _indented(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"  {line}" for line in formatting.columns([heading, *rows])] if rows else ["  none"]
