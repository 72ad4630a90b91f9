"""A device of the aws-samples "device on-boarding with JITP and certificate rotation", as far as the wire shows it.

What it does and knows is taken from that sample's device program (aws-samples/iot-device-on-boarding, linux_device):

- MQTT 3.1.1, QoS 1, clean sessions, keep-alive 120 s, its serial as client id, a new connection for each stage.
- One RSA-2048 key for its whole life. The openssl program makes its requests, with a full subject.
- Its identity is a leaf with no extensions (X.509 version 1), followed by the CA's certificate, which it has in a file.
- It reads `pem` and `cert_id`; a message without the field it waits for means nothing to it, and so asks again.
"""

import json
import queue
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awscrt import io, mqtt

SUBJECT = "/C=DE/ST=Hessen/L=Frankfurt am Main/O=Coffee Machines/OU=Manufacturing/CN="
DAYS = "3650"
PATIENCE = 15.0


def openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class SampleCa:
    """A CA as the sample's setup makes it: RSA-2048, self-signed, with a full subject. Two files."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, directory: Path, name: str) -> "SampleCa":
        made = cls(directory / f"{name}_rootCA.pem", directory / f"{name}_rootCA.key")
        openssl("genrsa", "-out", made.key, "2048")
        subject = ["-subj", SUBJECT + name]
        openssl("req", "-x509", "-new", "-key", made.key, "-sha256", "-days", DAYS, "-out", made.certificate, *subject)
        return made

    def sign(self, request: Path, certificate: Path, serial_number: str) -> None:
        """Sign a request: its subject, ten years, no extensions."""
        ca: list[str | Path] = ["-CA", self.certificate, "-CAkey", self.key, "-set_serial", serial_number]
        openssl("x509", "-req", "-in", request, "-out", certificate, "-days", DAYS, "-sha256", *ca)


@dataclass(frozen=True)
class VendorIdentity:
    """What the sample's vendor puts on a device in `directory`: a key, and a certificate followed by its CA's."""

    directory: Path
    serial: str

    @property
    def key(self) -> Path:
        return self.directory / "ven.key"

    @property
    def chain(self) -> Path:
        return self.directory / "VendorDeviceCertAndCACert.pem"

    def make(self, vendor_ca: SampleCa) -> None:
        openssl("genrsa", "-out", self.key, "2048")
        leaf = self.directory / "ven.pem"
        vendor_ca.sign(self.request(self.key, self.serial), leaf, "0x01" + self.serial.encode().hex())
        self.chain.write_text(leaf.read_text() + vendor_ca.certificate.read_text())

    def request(self, key: Path, name: str) -> Path:
        """Give the openssl program's request for a key, of the subject that the sample's devices have."""
        request = self.directory / f"{name}.csr"
        openssl("req", "-new", "-key", key, "-out", request, "-subj", SUBJECT + name)
        return request


class SampleSession:
    """One MQTT 3.1.1 connection."""

    def __init__(self, connection: mqtt.Connection, serial: str, lost: queue.SimpleQueue[Any]) -> None:
        self._connection, self._serial = connection, serial
        self._heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.lost = lost  # gets something when the broker ends the connection

    def subscribe(self, topic: str) -> None:
        """Subscribe at QoS 1; `AwsCrtError` when the broker ends the connection over it."""
        future, _ = self._connection.subscribe(topic, mqtt.QoS.AT_LEAST_ONCE, self._hear)
        future.result(PATIENCE)

    def publish(self, topic: str, message: dict[str, str]) -> None:
        """Publish at QoS 1, without waiting for the broker to take it."""
        self._connection.publish(topic, json.dumps(message), mqtt.QoS.AT_LEAST_ONCE)

    def ask(self, verb: str, message: dict[str, str]) -> dict[str, Any]:
        """Subscribe to the answer, ask, and give the next thing that is said, whatever it is."""
        self.subscribe(f"/cert-rotation/{verb}/{self._serial}/rspn")
        self.publish(f"/cert-rotation/{verb}/{self._serial}/rqst", message)
        return self._heard.get(timeout=PATIENCE)

    def _hear(self, topic: str, payload: bytes, **_: object) -> None:  # noqa: ARG002 - the SDK's signature
        self._heard.put(json.loads(payload))


class SampleDevice:
    """A device at `address`; `trust` and `manufacturer_ca` are the PEM files it is delivered with."""

    def __init__(self, identity: VendorIdentity, address: tuple[str, int], trust: Path, manufacturer_ca: Path) -> None:
        self._identity, self._address, self._trust, self._manufacturer_ca = identity, address, trust, manufacturer_ca
        self.client_id = self.serial = identity.serial
        self.vendor = identity.chain
        self.own = identity.directory / "ManufacturerDeviceCertAndCACert.pem"

    def csr(self, key: Path | None = None, name: str | None = None) -> str:
        """Give a request for its key and name, or others."""
        return self._identity.request(key or self._identity.key, name or self.serial).read_text()

    def keep(self, reply: dict[str, Any]) -> str:
        """Store what it was given, with the CA that it knows; gives the certificate's id."""
        self.own.write_text(reply["pem"] + self._manufacturer_ca.read_text())
        return str(reply["cert_id"])

    @contextmanager
    def session(self, identity: Path, key: Path | None = None) -> Iterator[SampleSession]:
        """Connect with a certificate chain; raises what the SDK raises when the broker closes the connection."""
        lost: queue.SimpleQueue[Any] = queue.SimpleQueue()
        options = io.TlsContextOptions.create_client_with_mtls_from_path(str(identity), str(key or self._identity.key))
        options.override_default_trust_store_from_path(ca_filepath=str(self._trust))
        options.min_tls_ver = io.TlsVersion.TLSv1_2
        connection = mqtt.Connection(
            mqtt.Client(tls_ctx=io.ClientTlsContext(options)),
            host_name=self._address[0],
            port=self._address[1],
            client_id=self.client_id,
            clean_session=True,
            keep_alive_secs=120,
            reconnect_min_timeout_secs=1,  # the SDK ends no connection while it waits to make it again
            reconnect_max_timeout_secs=1,
            on_connection_interrupted=lambda **told: lost.put(told["error"]),
        )
        connection.connect().result(PATIENCE)
        try:
            yield SampleSession(connection, self.serial, lost)
        finally:
            connection.disconnect().result(PATIENCE)
