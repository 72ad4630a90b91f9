"""What applications are told of the active identity: the content of `identity.json` in the run directory. Pure.

Its schema is version 1, documented in docs/applications.md; fields are only ever added.
"""

import json

from iot_agent.core.record import Identity
from iot_agent.core.settings import Settings
from iot_agent.storage import layout

SCHEMA = 1


def announcement(settings: Settings, active: Identity, key: str, *, chain: bool) -> bytes:
    """Put the announcement together: `key` is a path or a URI, `chain` whether there is one."""
    directory = settings.state_directory / layout.IDENTITIES / active.label
    body = {
        "schema": SCHEMA,
        "thing": settings.serial,
        "endpoint": settings.endpoint_host,
        "port": settings.endpoint_port,
        "endpoint_ca": str(settings.endpoint_ca_file),
        "certificate": str(directory / layout.CERTIFICATE),
        "key": key,
        "chain": str(directory / layout.CHAIN) if chain else None,
        "certificate_id": active.certificate.certificate_id,
        "not_before": active.certificate.not_before,
        "not_after": active.certificate.not_after,
    }
    return json.dumps(body, indent=2).encode() + b"\n"
