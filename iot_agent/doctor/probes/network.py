"""The way to the endpoint: DNS, TCP, TLS with the endpoint's CA. No client certificate is sent."""

import socket
from dataclasses import replace
from pathlib import Path

from iot_agent.doctor.rules.network import Network
from iot_agent.host.handshake import BrokenOff, Server, Untrusted, shake


def look(host: str, port: int, ca_file: Path, *, on_token: bool = False) -> Network:
    """Try layer after layer until one fails; with keys `on_token`, also whether TLS 1.2 is accepted."""
    seen, server = Network(host, port), Server(host, port, ca_file)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return replace(seen, name=error.strerror or str(error))
    seen = replace(seen, addresses=tuple(dict.fromkeys(str(address[0]) for *_, address in found)))
    try:
        expires = shake(server)
    except Untrusted as error:
        return replace(seen, untrusted=str(error))
    except BrokenOff as error:
        return replace(seen, not_tls=str(error))
    except OSError as error:
        return replace(seen, tcp=error.strerror or str(error))
    accepted = _accepts_tls_1_2(server) if on_token else None
    return replace(seen, server_expires=expires, strict=_strict_problem(server), tls_1_2=accepted)


def _strict_problem(server: Server) -> str | None:
    try:
        shake(server, strict=True)
    except Untrusted as error:
        return str(error)
    except (BrokenOff, OSError):
        return None  # the handshake worked a moment ago, so the strict checks are not the reason
    return None


def _accepts_tls_1_2(server: Server) -> bool:
    """Give False only if the server itself refuses the version."""
    try:
        shake(server, tls_1_2=True)
    except BrokenOff as error:
        return not error.over_the_version
    except (Untrusted, OSError):
        pass
    return True
