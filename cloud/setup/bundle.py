"""What one device is delivered with: a directory with its configuration, its vendor identity and whom to trust."""

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
# The agent's configuration; relative paths are relative to this file. Everything not said here has its default.

# This device: its thing's name, the common name of its certificates, and part of its topics.
serial: {serial}

# Where it connects, and whom it accepts there.
endpoint:
  host: {host}
  port: {port}
  ca_file: endpoint-ca.pem

# The beginning of every topic, as the stack was deployed with.
topic_prefix: {topic_prefix}

# Who signs the certificates it accepts as its own.
manufacturer_ca: manufacturer-ca.pem

# The identity it is delivered with, used until it has its own certificate.
bootstrap:
  certificate: bootstrap/certificate.pem
  key: bootstrap/key.pem
"""


@dataclasses.dataclass(frozen=True)
class Delivery:
    """What one device is to know: who it is, where it connects, whom it trusts; `manufacturer_ca` is a PEM."""

    serial: str
    endpoint: Endpoint
    topic_prefix: str
    manufacturer_ca: str


def write(directory: Path, delivery: Delivery, vendor: Signer, lifetime: timedelta, *, force: bool = False) -> bool:
    """Write the bundle; whether its key or certificate had to be made.

    A key that is there is kept, and so is its certificate if it still serves, unless `force`. The key is written before
    its certificate and the configuration last: who sees agent.yaml sees a complete bundle.
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
