"""What the cloud shows at the end of the demo: through its APIs, and through its broker with each identity."""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud.common.local_endpoint import Description

MQTT_5 = 5
CONNACK = 0x20
BROKER_LIMIT_S = 60


@dataclass(frozen=True)
class Evidence:
    """Certificate ids; `earlier` maps each one that the device once used to its status now, None if it is deleted."""

    vendor: str
    vendor_status: str | None
    vendor_attachments: int
    vendor_refused: bool
    on_disk: str
    on_disk_accepted: bool
    active: tuple[str, ...]
    attached: tuple[str, ...]
    earlier: dict[str, str | None]

    @property
    def lines(self) -> list[str]:
        """The evidence as lines of text."""
        active = ", ".join(name[:16] for name in self.active) or "none"
        session = "accepted" if self.on_disk_accepted else "REFUSED"
        vendor_session = "refused" if self.vendor_refused else "ACCEPTED"
        retired = ", ".join(f"{name[:16]} {state or 'deleted'}" for name, state in self.earlier.items())
        return [
            f"IoT Core: ACTIVE certificates: {active}; on the device's disk: {self.on_disk[:16]}",
            f"broker: a session with the certificate on disk is {session}",
            (
                f"IoT Core: the vendor certificate {self.vendor[:16]} is {self.vendor_status or 'deleted'}, "
                f"with {self.vendor_attachments} things and policies"
            ),
            f"broker: a session with the vendor certificate is {vendor_session}",
            f"IoT Core: the earlier certificates: {retired}",
        ]

    def faults(self) -> list[str]:
        """Return everything that is not as expected."""
        checks = {
            f"there are {len(self.active)} ACTIVE certificates, not 1": len(self.active) == 1,
            "the ACTIVE certificate is not the one on disk": self.active == (self.on_disk,),
            "the thing has other certificates than the one on disk": self.attached == (self.on_disk,),
            "the certificate on disk is refused": self.on_disk_accepted,
            "the vendor certificate is still accepted": self.vendor_refused and self.vendor_status != "ACTIVE",
            "fewer than two earlier certificates were seen": len(self.earlier) > 1,
            "an earlier certificate is not retired": all(
                state in (None, "INACTIVE") for state in self.earlier.values()
            ),
        }
        return [fault for fault, fine in checks.items() if not fine]


def gather(
    here: Description,
    device: Path,
    serial: str,
    history: list[dict[str, Any]],
    accepts_token: Callable[[Description, str], bool] | None = None,
) -> Evidence:
    """Collect the evidence from the cloud; `history` is the device's.

    `accepts_token` returns whether the broker accepts the certificate on disk with a client id; for a key on a token.
    """
    environment = here.environment({})
    iot = boto3.client(
        "iot",
        endpoint_url=here.endpoint_url,
        region_name=here.region,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )

    def state(certificate_id: str) -> str | None:
        try:
            return str(iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]["status"])
        except iot.exceptions.ResourceNotFoundException:
            return None

    def attachments(certificate_id: str) -> int:
        try:
            arn = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]["certificateArn"]
        except iot.exceptions.ResourceNotFoundException:
            return 0
        things = iot.list_principal_things(principal=arn)["things"]
        return len(things) + len(iot.list_attached_policies(target=arn)["policies"])

    bootstrap, current = device / "bootstrap", device / "state/current"
    vendor, on_disk = identifier(bootstrap / "certificate.pem"), identifier(current / "certificate.pem")
    # The device's policy leaves the client id `serial` to the application, so the agent's own session is not disturbed.
    # The vendor certificate is tried before ACTIVE certificates are counted: the count would show a reactivation.
    on_disk_accepted = (
        accepts(here, current / "certificate.pem", current / "key.pem", serial)
        if accepts_token is None
        else accepts_token(here, serial)
    )
    vendor_refused = not accepts(here, bootstrap / "certificate.pem", bootstrap / "key.pem", f"{serial}-agent")
    certificates = iot.get_paginator("list_certificates").paginate()
    listed = [entry for page in certificates for entry in page["certificates"]]
    used = [event["detail"] for event in history if event["event"] == "promoted"]
    return Evidence(
        vendor=vendor,
        vendor_status=state(vendor),
        vendor_attachments=attachments(vendor),
        vendor_refused=vendor_refused,
        on_disk=on_disk,
        on_disk_accepted=on_disk_accepted,
        active=tuple(entry["certificateId"] for entry in listed if entry["status"] == "ACTIVE"),
        attached=tuple(arn.rsplit("/", 1)[1] for arn in iot.list_thing_principals(thingName=serial)["principals"]),
        earlier={name: state(name) for name in used if name != on_disk},
    )


def identifier(certificate: Path) -> str:
    """Return the AWS IoT id of a certificate."""
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    return hashlib.sha256(der).hexdigest()


def accepts(here: Description, certificate: Path, key: Path, client_id: str) -> bool:
    """Say whether the broker answers this identity's MQTT CONNECT with success (MQTT 5.0, 3.1 and 3.2)."""
    context = ssl.create_default_context(cafile=here.mqtt_ca)
    context.load_cert_chain(certificate, key)
    name = client_id.encode()
    body = b"\x00\x04MQTT" + bytes([MQTT_5, 0x02, 0, 30, 0]) + len(name).to_bytes(2) + name
    try:
        with (
            socket.create_connection((here.mqtt_host, here.mqtt_port), timeout=BROKER_LIMIT_S) as plain,
            context.wrap_socket(plain, server_hostname=here.mqtt_host) as session,
        ):
            session.sendall(bytes([0x10, len(body)]) + body)
            answer = session.recv(4)
    except (OSError, ssl.SSLError):
        return False
    return len(answer) == 4 and answer[0] == CONNACK and answer[3] == 0  # noqa: PLR2004 - header, length, flags, reason
