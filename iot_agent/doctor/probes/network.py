"""The way to the endpoint: DNS, TCP, TLS with the endpoint's CA. No client certificate is shown here."""

import socket
from dataclasses import replace
from pathlib import Path

from iot_agent.doctor.rules.network import Network
from iot_agent.host.handshake import BrokenOff, Server, Untrusted, shake


def look(host: str, port: int, ca_file: Path, *, on_token: bool = False) -> Network:
    """Go as far as it gets; with keys `on_token`, see also whether TLS 1.2 is taken."""
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
    taken = _takes_tls_1_2(server) if on_token else None
    return replace(seen, server_expires=expires, strict=_strict_problem(server), tls_1_2=taken)


def _strict_problem(server: Server) -> str | None:
    try:
        shake(server, strict=True)
    except Untrusted as error:
        return str(error)
    except (BrokenOff, OSError):
        return None  # it worked a moment ago; this is not about strictness
    return None


def _takes_tls_1_2(server: Server) -> bool:
    """Say no only where the other end says so."""
    try:
        shake(server, tls_1_2=True)
    except BrokenOff as error:
        return not error.over_the_version
    except (Untrusted, OSError):
        pass
    return True
