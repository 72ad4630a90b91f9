"""The least that an onboarding or a rotation can take: the same round trips in one process, and nothing else.

No daemon, no worker to start, no disk, no checks. It keeps AWS's limit of one CONNECT a second for a client id, as any
device must. Run as a program it does one of each and prints the seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from awscrt import io

from iot_agent.core import protocol
from iot_agent.core.errors import Retryable
from iot_agent.core.ports import Credentials
from iot_agent.core.protocol import ACK, CREATE, Topics
from iot_agent.keys import certificates
from iot_agent.worker.connect_throttle import ConnectThrottle
from iot_agent.worker.mqtt import Endpoint, MqttSession


def once(endpoint: Endpoint, identity: Credentials, topics: Topics, directory: Path) -> Credentials:
    """Ask for a certificate, prove it, and return the new identity."""
    key = certificates.generate_key("ec-p256")
    csr = certificates.build_csr(certificates.load_key(key), topics.serial)
    session = connected(endpoint, identity)
    session.subscribe([topics.response(CREATE)])
    payload = protocol.encode(protocol.CreateRequest(csr, "floor"))
    made = session.exchange(topics.request(CREATE), payload, topics.response(CREATE), protocol.parse_create_response)
    session.close()
    assert isinstance(made, protocol.CreateResponse), made
    fresh = Credentials(directory / "certificate.pem", directory / "key.pem")
    (directory / "key.pem").write_bytes(key)
    (directory / "certificate.pem").write_text(made.pem)
    session = connected(endpoint, fresh)
    session.subscribe([topics.response(ACK)])
    payload = protocol.encode(protocol.AckRequest(made.cert_id, "floor"))
    session.exchange(topics.request(ACK), payload, topics.response(ACK), protocol.parse_ack_response)
    session.close()
    return fresh


def connected(endpoint: Endpoint, identity: Credentials) -> MqttSession:
    """Connect, a second after the last CONNECT at the earliest; again when it is closed, as the first one is."""
    options = io.TlsContextOptions.create_client_with_mtls_from_path(str(identity.certificate), str(identity.key))
    options.override_default_trust_store_from_path(ca_filepath=str(endpoint.ca_file))
    tls = io.ClientTlsContext(options)
    pace = ConnectThrottle(endpoint.ca_file.with_name("last-connect"))
    while True:
        pace()
        session = MqttSession(endpoint, tls)
        try:
            session.open()
        except Retryable:
            session.close()
            continue
        return session


def main(bundle: Path, serial: str, host: str, port: int) -> None:
    """Onboard the device of that bundle, then rotate it once."""
    endpoint = Endpoint(host, port, bundle / "endpoint-ca.pem", f"{serial}-agent")
    topics = Topics("cert-rotation", serial)
    begun = time.monotonic()
    vendor = Credentials(bundle / "bootstrap/certificate.pem", bundle / "bootstrap/key.pem")
    first, second = bundle / "first", bundle / "second"
    for directory in (first, second):
        directory.mkdir()
    identity = once(endpoint, vendor, topics, first)
    onboarded = time.monotonic()
    once(endpoint, identity, topics, second)
    print(json.dumps({"onboarding": onboarded - begun, "rotation": time.monotonic() - onboarded}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
