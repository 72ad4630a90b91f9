"""The way to the endpoint: DNS, TCP, TLS with the endpoint's CA. No client certificate is shown here."""

import socket
import ssl
from dataclasses import replace
from pathlib import Path

from iot_agent.doctor.rules.network import Network

PATIENCE = 5.0  # seconds for each connection
ALPN_PORT, ALPN_MQTT = 443, "x-amzn-mqtt-ca"  # as in `mqtt`


def look(host: str, port: int, ca_file: Path, *, on_token: bool = False) -> Network:
    """Go as far as it gets; with keys `on_token`, see also whether TLS 1.2 is taken."""
    seen = Network(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return replace(seen, name=error.strerror or str(error))
    seen = replace(seen, addresses=tuple(dict.fromkeys(str(address[0]) for *_, address in found)))
    try:
        expires = _handshake(host, port, ca_file, strict=False)
    except ssl.SSLCertVerificationError as error:
        return replace(seen, untrusted=error.verify_message)
    except ssl.SSLError as error:
        return replace(seen, not_tls=error.reason or str(error))
    except (ConnectionResetError, BrokenPipeError) as error:
        return replace(seen, not_tls=error.strerror)
    except OSError as error:
        return replace(seen, tcp=error.strerror or str(error))
    taken = _takes_tls_1_2(host, port, ca_file) if on_token else None
    return replace(seen, server_expires=expires, strict=_strict_problem(host, port, ca_file), tls_1_2=taken)


def _strict_problem(host: str, port: int, ca_file: Path) -> str | None:
    try:
        _handshake(host, port, ca_file, strict=True)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        return None  # it worked a moment ago; this is not about strictness
    return None


def _takes_tls_1_2(host: str, port: int, ca_file: Path) -> bool:
    """Say no only where the other end says so: without a client certificate TLS 1.2 may fail for another reason."""
    try:
        _handshake(host, port, ca_file, strict=False, highest=ssl.TLSVersion.TLSv1_2)
    except ssl.SSLError as error:
        return "PROTOCOL" not in (error.reason or "")
    except OSError:
        return True
    return True


def _handshake(
    host: str, port: int, ca_file: Path, *, strict: bool, highest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> int | None:
    """Shake hands; give the end of the server certificate's validity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = highest
    context.load_verify_locations(ca_file)
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if port == ALPN_PORT:
        context.set_alpn_protocols([ALPN_MQTT])
    with socket.create_connection((host, port), PATIENCE) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as secured:
                certificate = secured.getpeercert() or {}
        except TimeoutError as error:
            raise ssl.SSLError(0, "no answer to the handshake") from error
    not_after = certificate.get("notAfter")
    return int(ssl.cert_time_to_seconds(not_after)) if isinstance(not_after, str) else None
