"""The cloud, simulated behind production ports: the real rules of the Lambda over a registry and a table in memory.

What AWS IoT does itself is modelled here: just-in-time provisioning (first connection dropped), certificates that are
ACTIVE or not, policies, the principal of a message.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from cloud.common import operations
from cloud.rotation.agenda import next_look
from cloud.rotation.devices import ConflictError
from cloud.rotation.handler import RequestHandler
from cloud.rotation.issuer import Issuer
from cloud.rotation.record import Device, Entry, State
from cloud.rotation.registry import Attached, Registered
from cloud.rotation.steps import World
from cloud.rotation.sweeper import sweep
from iot_agent.core.errors import Code, Fatal, Retryable
from iot_agent.core.ports import Credentials, Session
from iot_agent.keys.token import TokenKeys
from tests.simulator.authority import Authority
from tests.simulator.fuse import Fuse

T = TypeVar("T")
VENDOR_CA, MANUFACTURER_CA = "vendor-ca", "manufacturer-ca"
BOOTSTRAP_POLICY, DEVICE_POLICY = "bootstrap", "device"
KINDS = {"create-man-cert": "create", "ack-man-cert": "ack", "check-in": "check-in"}


class Table:
    """Stands for `Devices`: conditional writes."""

    def __init__(self) -> None:
        self.items: dict[str, Device] = {}

    def get(self, serial: str) -> Device | None:
        return self.items.get(serial)

    def save(self, device: Device, now: int, entry: Entry | None = None) -> None:  # noqa: ARG002 - no history here
        found = self.items.get(device.serial)
        if (found.version if found else -1) != device.version:
            raise ConflictError(device.serial)
        self.items[device.serial] = replace(device, version=device.version + 1, look_at=next_look(device, now))

    def due(self, now: int) -> list[str]:
        return [serial for serial, device in self.items.items() if device.look_at is not None and device.look_at <= now]


@dataclass
class Listed:
    """A certificate in the registry."""

    pem: str
    status: str
    ca: str
    policies: set[str] = field(default_factory=set)
    muted: bool = False


class Register:
    """Stands for `Registry`."""

    def __init__(self) -> None:
        self.entries: dict[str, Listed] = {}
        self.deleted: set[str] = set()
        self.said: list[tuple[str, bytes]] = []
        self.mute_new = False

    def describe(self, certificate_id: str) -> Registered | None:
        found = self.entries.get(certificate_id)
        if found is None:
            return None
        return Registered(certificate_id, f"arn:{certificate_id}", found.status, found.pem, found.ca)

    wait_until_provisioned = describe

    def register_active(self, pem: str, _ca: str, certificate_id: str, _thing: str, policies: tuple[str, ...]) -> None:
        entry = self.entries.setdefault(certificate_id, Listed(pem, "ACTIVE", MANUFACTURER_CA, muted=self.mute_new))
        entry.policies |= set(policies)

    def complete(self, found: Registered, _thing: str, policies: tuple[str, ...]) -> None:
        self.entries[found.certificate_id].policies |= set(policies)

    def attached(self, found: Registered) -> Attached:
        return Attached(tuple(self.entries[found.certificate_id].policies), ("things are not modelled",))

    def disable(self, certificate_id: str) -> Registered | None:
        if certificate_id in self.entries:
            self.entries[certificate_id].status = "INACTIVE"
            self.entries[certificate_id].policies.clear()
        return self.describe(certificate_id)

    def delete(self, certificate_id: str) -> None:
        gone = self.entries.pop(certificate_id, None)
        if gone is not None and gone.ca != VENDOR_CA:  # a vendor certificate registers just in time again
            self.deleted.add(certificate_id)

    def delete_thing(self, thing: str, arn: str, stack: str) -> None:
        """Things are not modelled."""

    def publish(self, topic: str, payload: bytes) -> None:
        self.said.append((topic, payload))


class SimulatedCloud:
    """One account; `now` is shared with the device."""

    def __init__(self, now: Callable[[], float], lifetime_s: float) -> None:
        self.now = now
        self.vendor = Authority("Vendor CA", now())
        self.manufacturer = Authority("Manufacturer CA", now())
        self.table, self.register = Table(), Register()
        world = World(
            devices=self.table,  # type: ignore[arg-type]  # a table in memory behind the same methods
            registry=self.register,  # type: ignore[arg-type]  # likewise
            issuer=Issuer(self.manufacturer.pem, self, timedelta(seconds=lifetime_s)),
            clock=lambda: int(now() * 1000),
            policies=(DEVICE_POLICY,),
            vendor_ca_id=VENDOR_CA,
            manufacturer_ca_id=MANUFACTURER_CA,
            stack="simulated",
        )
        self.desk = RequestHandler(world, "cert-rotation")

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Be the issuer's source of its key."""
        return self.manufacturer.key

    def allow(self, serial: str) -> None:
        self.table.items[serial] = Device(serial, State.ALLOWED, 0)

    def readmit(self, serial: str, duration_s: float) -> None:
        """Do what the operator's command does."""
        office = operations.OperatorContext(self.table, self.register, lambda: int(self.now() * 1000))  # type: ignore[arg-type]  # in memory
        operations.readmit(office, serial, int(duration_s * 1000))

    def revoke(self, serial: str) -> None:
        """Do what the operator's command does."""
        operations.revoke(operations.OperatorContext(self.table, self.register, lambda: int(self.now() * 1000)), serial)  # type: ignore[arg-type]  # in memory

    def sweep(self) -> None:
        """Do what the schedule does."""
        sweep(self.desk.world, lambda: 60_000)

    def accepts(self, certificate_id: str) -> bool:
        """Whether a connection with this certificate can be of use, now or after just-in-time provisioning."""
        entry = self.register.entries.get(certificate_id)
        if entry is None:
            return certificate_id not in self.register.deleted
        return entry.status in ("PENDING_ACTIVATION", "ACTIVE")

    def active(self) -> list[str]:
        return [name for name, entry in self.register.entries.items() if entry.status == "ACTIVE"]

    def connect(self, pem: str) -> str:
        """Open a session as this certificate and give its principal; raises `Retryable("refused")`."""
        certificate = x509.load_pem_x509_certificate(pem.encode())
        principal = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        entry = self.register.entries.get(principal)
        if entry is None:
            self._just_in_time(certificate, principal, pem)
        if entry is None or entry.status != "ACTIVE" or certificate.not_valid_after_utc.timestamp() < self.now():
            raise Retryable(Code.REFUSED, "the cloud closed the connection")
        return principal

    def _just_in_time(self, certificate: x509.Certificate, principal: str, pem: str) -> None:
        try:
            certificate.verify_directly_issued_by(self.vendor.certificate)
        except Exception as error:
            raise Retryable(Code.REFUSED, "not registered, and of no CA that registers just in time") from error
        self.register.entries[principal] = Listed(pem, "ACTIVE", VENDOR_CA, {BOOTSTRAP_POLICY})
        event = json.dumps({"certificateId": principal}).encode()
        self._event("registered", "$aws/events/certificates/registered/x", "", event)

    def publish(self, principal: str, topic: str, payload: bytes) -> list[tuple[str, bytes]]:
        """Route one message to the Lambda; give what it said."""
        verb = topic.split("/")[1]
        entry = self.register.entries.get(principal, Listed("", "", ""))
        allowed = DEVICE_POLICY in entry.policies or (BOOTSTRAP_POLICY in entry.policies and verb == "create-man-cert")
        if not allowed or entry.muted:
            raise Retryable(Code.NOT_PERMITTED, f"the policy forbids publishing to {topic}")
        self.register.said.clear()
        self._event(KINDS[verb], topic, principal, payload)
        return list(self.register.said)

    def _event(self, kind: str, topic: str, principal: str, payload: bytes) -> None:
        data = base64.b64encode(payload).decode()
        self.desk.serve({"event": kind, "topic": topic, "principal": principal, "client_id": "x", "data": data})


class Faults:
    """What may go wrong on the way; each asks for one occasion and says whether it happens now."""

    def out_of_reach(self) -> bool:
        return False

    def refuse(self) -> bool:
        return False

    def lose_request(self) -> bool:
        return False

    def lose_reply(self, _topic: str) -> bool:
        return False

    def repeat_request(self) -> bool:
        return False


class Broker:
    """The `Cloud` port of the device."""

    def __init__(self, cloud: SimulatedCloud, fuse: Fuse, faults: Faults) -> None:
        self.cloud, self.fuse, self.faults = cloud, fuse, faults

    @contextmanager
    def session(self, credentials: Credentials) -> Iterator[Session]:
        self.fuse.burn("connect")
        try:
            pem = credentials.certificate.read_text()
            usable = _has_key(credentials, x509.load_pem_x509_certificate(pem.encode()))
        except (OSError, ValueError) as error:
            raise Fatal(Code.BAD_CREDENTIALS, f"cannot use {credentials.certificate}: {error}") from error
        if not usable:
            raise Fatal(Code.BAD_CREDENTIALS, f"{credentials.certificate} is not for {credentials.key}")
        if self.faults.out_of_reach():
            raise Retryable(Code.UNREACHABLE, "cannot reach the endpoint")
        if self.faults.refuse():
            raise Retryable(Code.REFUSED, "the cloud closed the connection")
        yield BrokerSession(self, self.cloud.connect(pem))


def _has_key(credentials: Credentials, certificate: x509.Certificate) -> bool:
    """Have the device show that it has the certificate's private key: its file, or a signature of its token."""
    key = credentials.key
    if isinstance(key, Path):
        return bool(load_pem_private_key(key.read_bytes(), None).public_key() == certificate.public_key())
    token = TokenKeys(credentials.certificate.parents[2], key.token, 60)
    signature = token._ask("sign", key.label, b"challenge".hex())
    public_key = certificate.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(signature, b"challenge", ec.ECDSA(hashes.SHA256()))
    return True


class BrokerSession:
    """One session, as one principal."""

    def __init__(self, broker: Broker, principal: str) -> None:
        self._broker, self._principal = broker, principal

    def subscribe(self, topics: Sequence[str]) -> None:
        self._broker.fuse.burn(f"subscribe {len(topics)}")

    def exchange(self, topic: str, payload: bytes, reply_topic: str, accept: Callable[[bytes], T | None]) -> T:
        faults, fuse = self._broker.faults, self._broker.fuse
        fuse.burn(f"publish {topic}")
        replies: list[tuple[str, bytes]] = []
        for _ in range(2 if faults.repeat_request() else 1):
            if not faults.lose_request():
                replies += self._broker.cloud.publish(self._principal, topic, payload)
        fuse.burn(f"reply to {topic}")
        if not faults.lose_reply(topic):
            for said_on, said in replies:
                reply: Any = accept(said) if said_on == reply_topic else None
                if reply is not None:
                    return reply  # type: ignore[no-any-return]  # what accept gives
        raise Retryable(Code.NO_REPLY, f"no reply on {reply_topic}")
