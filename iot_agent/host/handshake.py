"""Checks a server: a TLS handshake that shows no certificate of ours, with the standard library.

The MQTT library reports the same error for a server that is not trusted and for a server that refuses our certificate.
In this handshake only the first can happen. The server is proven when its certificate leads to the CA file and names
the host, and its key has signed; it stays proven if it then closes the connection because it got no certificate.
"""

import errno
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STAGE_LIMIT = 10.0  # seconds for the TCP connection, and again for the handshake; as in the MQTT library
ALPN_PORT, ALPN_MQTT = 443, "x-amzn-mqtt-ca"  # AWS IoT DG, "Protocols, port mappings, and authentication"
HANDSHAKE, CLIENT_HELLO = 22, 1  # a record's type, and that of the message in it (RFC 5246, 6.2.1 and 7.4)
PIECE = 16 * 1024  # bytes


@dataclass(frozen=True)
class Server:
    """Where a server is, and the file of the CAs that its certificate must lead to."""

    host: str
    port: int
    ca_file: Path


class Untrusted(Exception):
    """The server's certificate is not trusted; the text says why."""


class BrokenOff(Exception):
    """The server did not prove itself: it closed the connection, stayed silent, or speaks no TLS that we use."""

    @property
    def over_the_version(self) -> bool:
        """Whether the server accepts none of the TLS versions that were offered."""
        return "PROTOCOL" in str(self)


def shake(server: Server, *, strict: bool = False, tls_1_2: bool = False) -> int | None:
    """Check a server; give the end of its certificate's validity (seconds since the epoch).

    None if the server proved itself and then closed the connection because it got no certificate from us. Raises
    `Untrusted`, `BrokenOff`, or, without a connection, `OSError`. `strict` reads RFC 5280 as Python 3.13 does;
    `tls_1_2` offers no newer version.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls_1_2:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if server.port == ALPN_PORT:
        context.set_alpn_protocols([ALPN_MQTT])
    try:
        context.load_verify_locations(server.ca_file)
    except ssl.SSLError as error:
        raise Untrusted(f"{server.ca_file} holds no CA certificate") from error
    with socket.create_connection((server.host, server.port), STAGE_LIMIT) as connection:
        return _Handshake(context, connection, server.host).run()


class _Handshake:
    """The handshake, message by message: so it is known how far it came, and a slow server cannot delay its end."""

    def __init__(self, context: ssl.SSLContext, connection: socket.socket, host: str) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + STAGE_LIMIT
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._proven = False

    def run(self) -> int | None:
        try:
            return self._run()
        finally:
            with suppress(OSError):
                self._connection.sendall(self._outgoing.read())  # the last messages, or the alert that says why

    def _run(self) -> int | None:
        try:
            while not self._done():
                self._send()
                self._receive()
        except (ssl.SSLError, TimeoutError, ConnectionError) as error:
            if self._proven:
                return None
            raise BrokenOff(getattr(error, "reason", "") or error.strerror or "no answer to the handshake") from error
        return self._validity()

    def _done(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(error.verify_message) from error
        return True

    def _send(self) -> None:
        """Send what the TLS library has to send, and note when that proves the server.

        Up to TLS 1.2 the client sends its second handshake message only after it has verified the server's certificate.
        In TLS 1.3 that may be a second ClientHello, which proves nothing; any other is the end of the handshake.
        """
        flight = self._outgoing.read()
        if flight[:1] == bytes([HANDSHAKE]) and flight[5] != CLIENT_HELLO:
            self._proven = True
        self._connection.settimeout(self._left())
        self._connection.sendall(flight)

    def _receive(self) -> None:
        self._connection.settimeout(self._left())
        piece = self._connection.recv(PIECE)
        if not piece:
            raise ConnectionResetError(errno.ECONNRESET, "the connection was closed")
        self._incoming.write(piece)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _validity(self) -> int | None:
        certificate = self._tls.getpeercert() or {}
        not_after = certificate.get("notAfter")
        return int(ssl.cert_time_to_seconds(not_after)) if isinstance(not_after, str) else None
