"""A device for the doctor's tests: onboarded, its daemon stopped, on a real disk, with an endpoint of its own."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from iot_agent.config import agent_yaml
from iot_agent.core.codec import encode_record
from iot_agent.core.record import Certificate, Identity, Record, State
from iot_agent.core.settings import Settings
from iot_agent.doctor import examine
from iot_agent.doctor.findings import Finding, Level
from iot_agent.keys import certificates
from iot_agent.keys.file import FileKeys
from iot_agent.storage.identities import IdentityDirectories
from tests.simulator.authority import Authority

LABEL, SERIAL = "iot-agent-20260101T000000Z-00000001", "SN-0001"
DAY = 86400


class FaultyDevice:
    """A device in `directory`; a test damages a part of it and then asks for the `findings`."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.state = directory, directory / "state"
        self.now = time.time()
        vendor, self.manufacturer = Authority("Vendor CA", self.now), Authority("Manufacturer CA", self.now)
        certificate, key = vendor.issue(SERIAL, self.now - DAY)
        self._write("bootstrap.pem", certificate + vendor.pem)
        self._write("bootstrap.key", key, 0o600)
        self._write("manufacturer-ca.pem", self.manufacturer.pem)
        self._write("endpoint-ca.pem", vendor.pem)
        self.configure(closed_port())
        self.state.mkdir(mode=0o700)
        self.issue()

    def configure(self, port: int, host: str = "localhost") -> None:
        self._write(
            "agent.yaml",
            f"serial: {SERIAL}\nendpoint: {{host: {host}, port: {port}, ca_file: endpoint-ca.pem}}\n"
            "bootstrap: {certificate: bootstrap.pem, key: bootstrap.key}\nmanufacturer_ca: manufacturer-ca.pem\n"
            "paths: {state: state, run: run}\n",
        )

    def issue(self, start: float = -DAY, days: float = 30, by: Authority | None = None, serial: str = SERIAL) -> None:
        """Make an active identity that is valid from `start` seconds after now, and its record."""
        keys, identities = FileKeys(self.state / "identities"), IdentityDirectories(self.state)
        keys.generate(LABEL, "ec-p256")
        identities.create(LABEL, keys.csr(LABEL, SERIAL))
        begin = int(self.now + start)
        key = certificates.load_key((self.state / "identities" / LABEL / "key.pem").read_bytes())
        pem = sign(by or self.manufacturer, key.public_key(), serial, begin, days)
        facts = Certificate(certificate_id(pem), begin, begin + int(days * DAY), int(begin + days * DAY * 0.7))
        identities.store(Identity(LABEL, facts), pem, None)
        identities.point_current(LABEL)
        contact = int(self.now) - 3600
        self.record = Record(SERIAL, State.ACKED, Identity(LABEL, facts), last_contact=contact, time_floor=contact)
        self.save(self.record)

    def save(self, record: Record) -> None:
        self._write("state/state.json", encode_record(record).decode(), 0o600)

    def change(self, **fields: object) -> None:
        self.save(replace(self.record, **fields))  # type: ignore[arg-type]  # a test's table names the fields

    def settings(self) -> Settings:
        return agent_yaml.read(self.directory / "agent.yaml")

    def findings(self) -> list[Finding]:
        return list(examine.examine(self.directory / "agent.yaml", self.settings()))

    def worries(self) -> dict[str, Finding]:
        """Give what is not fine, by check."""
        calm = (Level.FINE, Level.SKIPPED)
        return {finding.check: finding for finding in self.findings() if finding.level not in calm}

    @property
    def identity(self) -> Path:
        return self.state / "identities" / LABEL

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certificate_id(pem: str) -> str:
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


def sign(by: Authority, key: object, name: str, begin: float, days: float, *extra: x509.ExtensionType) -> str:
    start = datetime.fromtimestamp(begin, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(by.name)
        .public_key(key)  # type: ignore[arg-type]  # any public key
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )
    for extension in extra:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(by.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@contextmanager
def acting_as(uid: int, *gids: int) -> Iterator[None]:
    """Have another user's rights; the first of `gids` is the primary group."""
    groups = os.getgroups()
    os.setgroups(gids)
    os.setegid(gids[0])
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextmanager
def tls_server(directory: Path, by: Authority, name: str = "localhost", days: float = 90) -> Iterator[int]:
    """Serve TLS handshakes, and nothing after them, with a certificate for `name`; gives the port."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
    pem = sign(by, key.public_key(), name, time.time() - 2 * DAY, days + 2, names, issuer)
    path = directory / "server.pem"
    path.write_bytes(pem.encode() + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)

    def shake(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with plain_server(shake) as port:
        yield port


@contextmanager
def plain_server(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """Serve TCP until the end of the block; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # closed: the test has ended
                with connection:
                    try:
                        answer(connection)
                    except OSError:
                        continue  # the client did not like us; that is what some tests are for

        threading.Thread(target=serve, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
