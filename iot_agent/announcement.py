"""What applications are told of the identity in force: `identity.json` in the run directory. Pure.

Its schema is version 1, documented in docs/applications.md; fields are only ever added. A key is named by its path, or,
where it lives in a token, by a PKCS #11 URI (RFC 7512).
"""

import json
from collections.abc import Callable
from urllib.parse import quote

from iot_agent.record import Identity
from iot_agent.settings import Settings

SCHEMA = 1
UNRESERVED = "-._~:[]@!$'()*+,=&"  # what RFC 7512, 2.3, lets stand in a path attribute, besides letters and digits


def token_key(token: str, label: str) -> str:
    """Name the private key with this label in this token."""
    return f"pkcs11:token={quote(token, UNRESERVED)};object={quote(label, UNRESERVED)};type=private"


KEY_NAMES: dict[str, Callable[[Settings, str], str]] = {
    "file": lambda given, label: str(given.state_directory / "identities" / label / "key.pem"),
}


def announcement(settings: Settings, active: Identity, *, chain: bool) -> bytes:
    """Put the announcement together; `chain` tells whether a chain came with the certificate."""
    directory = settings.state_directory / "identities" / active.label
    body = {
        "schema": SCHEMA,
        "thing": settings.serial,
        "endpoint": settings.endpoint_host,
        "port": settings.endpoint_port,
        "endpoint_ca": str(settings.endpoint_ca_file),
        "certificate": str(directory / "certificate.pem"),
        "key": KEY_NAMES[settings.keys_backend](settings, active.label),
        "chain": str(directory / "chain.pem") if chain else None,
        "certificate_id": active.certificate.certificate_id,
        "not_before": active.certificate.not_before,
        "not_after": active.certificate.not_after,
    }
    return json.dumps(body, indent=2).encode() + b"\n"
