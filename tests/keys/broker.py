"""The least of an MQTT broker behind real mutual TLS: it accepts a session and tells whose it was, or does as told."""

import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulator.authority import Authority

CONNACK = bytes([0x20, 3, 0, 0, 0])  # MQTT 5.0, 3.2: session not present, success, no properties


@dataclass
class MutualTls:
    """`sessions` gets (TLS version, the client's certificate in DER) for each one."""

    port: int
    ca_file: Path
    sessions: queue.SimpleQueue[tuple[str, bytes]] = field(default_factory=queue.SimpleQueue)


@contextmanager
def mutual_tls(
    directory: Path,
    devices: Authority,
    servers: Authority,
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion] = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
    behave: Callable[[ssl.SSLSocket], object] | None = None,
) -> Iterator[MutualTls]:
    """Serve on a port of this machine, to clients with a certificate of `devices`; `versions`: of TLS."""
    certificate, key = servers.issue("localhost", servers.born, server=True)
    for name, text in (("server.pem", certificate), ("server.key", key), ("ca.pem", servers.pem)):
        (directory / name).write_text(text)
    (directory / "devices.pem").write_text(devices.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.load_verify_locations(directory / "devices.pem")
    context.minimum_version, context.maximum_version = versions
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        broker = MutualTls(listener.getsockname()[1], directory / "ca.pem")

        def serve() -> None:
            with suppress(OSError):  # the listener is shut: the end
                while True:
                    client, _ = listener.accept()
                    with client, suppress(OSError), context.wrap_socket(client, server_side=True) as session:
                        broker.sessions.put((session.version() or "", session.getpeercert(binary_form=True) or b""))
                        (behave or _welcome)(session)

        threading.Thread(target=serve, daemon=True).start()
        yield broker
        listener.shutdown(socket.SHUT_RDWR)


def _welcome(session: ssl.SSLSocket) -> None:
    session.recv(4096)
    session.sendall(CONNACK)
    session.recv(4096)  # until it leaves
