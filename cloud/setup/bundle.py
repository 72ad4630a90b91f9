"""The bundle that a device is delivered with: its configuration, its vendor certificate and key, the CAs it trusts."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from cloud.common import certificates
from cloud.setup import files

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from cloud.common.aws_session import Endpoint
    from cloud.common.certificates import Signer

CONFIGURATION = """\
# The agent's configuration. Relative paths are relative to this file. A setting that is not here has its default.

# The device's serial: also its thing's name, the common name of its certificates, and part of its topics.
serial: {serial}

# Where the device connects, and the CA by which it verifies the server.
endpoint:
  host: {host}
  port: {port}
  ca_file: endpoint-ca.pem

# The first levels of every topic, as in the deployed stack.
topic_prefix: {topic_prefix}

# The CA whose certificates the device accepts as its own.
manufacturer_ca: manufacturer-ca.pem

# The vendor certificate and its key, used until the device has its own certificate.
bootstrap:
  certificate: bootstrap/certificate.pem
  key: bootstrap/key.pem
"""


@dataclasses.dataclass(frozen=True)
class Delivery:
    """What a bundle tells a device: its serial, its endpoint, its topics, its CA. `manufacturer_ca` is a PEM."""

    serial: str
    endpoint: Endpoint
    topic_prefix: str
    manufacturer_ca: str


def write(directory: Path, delivery: Delivery, vendor: Signer, lifetime: timedelta, *, force: bool = False) -> bool:
    """Write the bundle; return whether its certificate is new.

    An existing key is kept, and so is a certificate that is still valid, unless `force`. The key is written before the
    certificate, and agent.yaml last: if agent.yaml exists, the bundle is complete.
    """
    bootstrap = directory / "bootstrap"
    files.private_directory(directory)
    files.private_directory(bootstrap)
    now = certificates.now()
    key, chain = files.read(bootstrap / "key.pem"), files.read(bootstrap / "certificate.pem")
    new = force or not (key and chain and certificates.is_current(chain, key, delivery.serial, vendor.certificate, now))
    if new:
        if key is None or force:
            key = certificates.new_key()
            files.write(bootstrap / "key.pem", key, secret=True)
        leaf = certificates.device_certificate(key, delivery.serial, vendor, lifetime, now)
        files.write(bootstrap / "certificate.pem", leaf + vendor.certificate)
    files.write(directory / "endpoint-ca.pem", delivery.endpoint.trust)
    files.write(directory / "manufacturer-ca.pem", delivery.manufacturer_ca)
    values = {
        "serial": delivery.serial,
        "host": delivery.endpoint.host,
        "port": delivery.endpoint.port,
        "topic_prefix": delivery.topic_prefix,
    }
    # A JSON string is a YAML string: a serial such as 0012 or no stays text.
    files.write(
        directory / "agent.yaml", CONFIGURATION.format(**{name: json.dumps(value) for name, value in values.items()})
    )
    return new
