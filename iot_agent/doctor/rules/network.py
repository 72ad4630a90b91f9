"""The way to the endpoint, layer by layer: name, TCP, TLS; the first layer that fails is the one to repair. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from iot_agent.core.errors import REMEDIES, Code
from iot_agent.doctor.findings import Finding, error, fine, warning

EXPIRES_SOON = 14 * 86400  # seconds


@dataclass(frozen=True)
class Network:
    """What each layer said. A problem is None if there was none, or if a lower layer failed already.

    `name`, `tcp` and `untrusted` are problems. `not_tls`: the server ended the handshake before it had shown a valid
    certificate. `strict`: the chain is good, except for the strict checks of RFC 5280 that Python makes from 3.13 on.
    `tls_1_2`: whether the server accepts that version, None if it does not matter. `server_expires`: seconds since the
    epoch.
    """

    host: str
    port: int
    addresses: tuple[str, ...] = ()
    name: str | None = None
    tcp: str | None = None
    untrusted: str | None = None
    not_tls: str | None = None
    strict: str | None = None
    server_expires: int | None = None
    tls_1_2: bool | None = None

    @property
    def good(self) -> bool:
        """Whether a session can be tried."""
        return self.name is None and self.tcp is None and self.untrusted is None and self.not_tls is None


def judge(seen: Network, now: float) -> Iterator[Finding]:
    """Judge one layer after another."""
    if seen.name is not None:
        remedy = "Check endpoint.host in agent.yaml, /etc/resolv.conf and the network."
        yield error("network.name", f"{seen.host} does not resolve: {seen.name}", remedy)
        return
    yield fine("network.name", f"{seen.host} is {', '.join(seen.addresses)}")
    where = f"{seen.host}:{seen.port}"
    if seen.tcp is not None:
        remedy = "Check endpoint.port and the firewall. Where it blocks port 8883, port 443 may be open."
        yield error("network.tcp", f"no TCP connection to {where}: {seen.tcp}", remedy)
        return
    yield fine("network.tcp", f"{where} accepts connections")
    if seen.untrusted is not None:
        yield error("network.tls", f"{where} is not trusted: {seen.untrusted}", REMEDIES[Code.UNTRUSTED_SERVER])
    elif seen.not_tls is not None:
        remedy = "Check that this is the MQTT endpoint, not a proxy or a captive portal that answers for it."
        yield error("network.tls", f"{where} ended the TLS handshake: {seen.not_tls}", remedy)
    else:
        yield from _server(seen, where, now)


def _server(seen: Network, where: str, now: float) -> Iterator[Finding]:
    if seen.server_expires is not None and seen.server_expires - now < EXPIRES_SOON:
        days = (seen.server_expires - now) / 86400
        remedy = "The operator of the endpoint must renew its certificate. On AWS, suspect interception."
        yield warning("network.tls", f"the certificate of {where} expires in {days:.1f} days", remedy)
    else:
        yield fine("network.tls", f"the certificate of {where} is from a CA in endpoint.ca_file")
    if seen.tls_1_2 is False:
        yield error(
            "network.tls-version",
            f"{where} refuses TLS 1.2, and the agent supports nothing newer with a key on a token",
            "Give the endpoint a security policy that includes TLS 1.2 (docs/tokens.md), or set keys.backend to file.",
        )
    elif seen.tls_1_2:
        yield fine("network.tls-version", f"keys on a token need TLS 1.2, and {where} accepts it")
    if seen.strict is not None:
        yield warning(
            "network.tls-strict",
            f"programs on Python 3.13 or newer will refuse {where}: {seen.strict}",
            "The agent itself is not affected. Make the CA again with the extensions keyUsage, subject key identifier "
            "and authority key identifier, and give devices the new one before their Python is upgraded.",
        )
