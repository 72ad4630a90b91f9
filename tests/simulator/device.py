"""A device under simulation: production rules, steps, store, identities and key files; a simulated cloud and clock."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key, load_pem_private_key

from iot_agent.core.codec import decode_outcome, decode_record, encode_outcome, encode_record
from iot_agent.core.errors import AgentError
from iot_agent.core.ports import Credentials
from iot_agent.core.protocol import Topics
from iot_agent.core.record import Certificate, Kind, Record, State
from iot_agent.core.schedule import Policy
from iot_agent.core.settings import Token
from iot_agent.keys import certificates, pkcs11_uri
from iot_agent.keys.keyring import KeyRing
from iot_agent.keys.token import TokenKeys
from iot_agent.resident.cycle import Cycle, Means
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.record_store import RecordStore
from iot_agent.worker import steps
from tests.harness import NoApplications
from tests.simulator.cloud import Broker, Faults, SimulatedCloud
from tests.simulator.fuse import Fuse

SERIAL = "SN-0001"
LIFETIME = 10_000.0  # room for retries in the renewal window, as a real lifetime has
POLICY = Policy(minimum_interval=100, retry_base=2, retry_cap=60, prove_attempts=3, check_in_interval=4000)
START = 1_790_000_000.0


class Time:
    """The true time of a simulation: the cloud's."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class DeviceClock:
    """The device's `Clock`: the true time, wrong by `error` seconds; `elapsed` is never wrong."""

    trusted = True

    def __init__(self, time: Time) -> None:
        self._time = time
        self.error = 0.0

    def now(self) -> float:
        return self._time.now + self.error

    def elapsed(self) -> float:
        return self._time.now - START

    def lift(self, floor: int) -> None:
        """Do nothing: the production clock has a test of its own."""

    def pass_(self, seconds: float) -> None:
        """Let time pass, for everybody."""
        self._time.now += seconds


class NoProgress(Exception):
    """The device has not come to rest in the turns it was given."""


class SimulatedDevice:
    """One device with its disk. `life` runs it as the daemon would, from boot, until told enough."""

    def __init__(self, disk: Path) -> None:
        self.disk, self.time, self.policy = disk, Time(), POLICY
        self.clock = DeviceClock(self.time)
        self.cloud = SimulatedCloud(self.time, LIFETIME)
        self.cloud.allow(SERIAL)
        self.fuse, self.faults = Fuse(), Faults()
        self.token: Token | None = None
        self.backend = "file"
        self.labels = 0
        self.vendor_key = disk / "vendor.key"
        self.bootstrap = Credentials(disk / "vendor.pem", self.vendor_key)
        certificate, key = self.cloud.vendor.issue(SERIAL, self.time())
        self.bootstrap.certificate.write_text(certificate)
        self.vendor_key.write_text(key)
        self.boot()

    # ---- the daemon's loop, without its process ---------------------------------------------------------------------

    def life(self, rotations: int, turns: int = 300) -> Record:
        """Boot and run until so many rotations are done and nothing is left to do; `NoProgress` if that never is."""
        with self._fused():
            self.boot()
            for _ in range(turns):
                if self.record.rotations >= rotations and self._settled():
                    return self.record
                self.turn()
        raise NoProgress(str(self.record))

    def boot(self) -> None:
        """Start as the daemon does: what was only in memory is gone."""
        self.identities = IdentityDirectories(self.disk)
        store = RecordStore(self.disk, self.identities, SERIAL)
        means = Means(
            store, NoApplications(), self.clock, POLICY, self._label, lambda: f"request-{self.labels}", lambda: 0.5
        )
        self.cycle = Cycle(means, store.load())

    @property
    def record(self) -> Record:
        """What the device remembers."""
        return self.cycle.record

    def turn(self) -> None:
        """Wait until a step is due, decide again (the clock may be another by then), and do what is due."""
        self.clock.pass_(max(0.5, self.cycle.pause(self.cycle.decide())))
        step = self.cycle.decide()
        if not self.cycle.is_due(step) or not self.cycle.begin(step):
            return
        told = decode_record(encode_record(self.record))  # as the worker gets it
        outcome = steps.run(step.kind, told, self.clock.now(), self._context())
        self.cycle.finish(step.kind, decode_outcome(encode_outcome(outcome)))

    def _settled(self) -> bool:
        return self.cycle.decide().kind is Kind.WAIT and self.record.state is State.ACKED

    @contextmanager
    def _fused(self) -> Iterator[None]:
        with self.fuse.on_disk(str(self.disk)):
            yield

    def _label(self) -> str:
        self.labels += 1
        return f"iot-agent-20260101T000000Z-{self.labels:04d}"

    def _context(self) -> steps.StepContext:
        def examine(pem: str, chain: str | None, public_key: bytes) -> Certificate:
            issuers = self.cloud.manufacturer.pem
            return certificates.check_fit(
                pem, chain, certificates.Expectation(public_key, SERIAL, issuers, self.clock.now())
            )

        return steps.StepContext(
            keys=KeyRing(self.disk, self.backend, self.token, lambda token: TokenKeys(self.disk, token, 60)),
            cloud=Broker(self.cloud, self.fuse, self.faults),
            identities=self.identities,
            examine=examine,
            bootstrap=self.bootstrap,
            topics=Topics("cert-rotation", SERIAL),
            algorithm="ec-p256",
            policy=POLICY,
            report={},
        )

    # ---- what must hold ---------------------------------------------------------------------------------------------

    def complete_identities(self) -> dict[str, Path]:
        """Certificate id to certificate file, for each key and certificate on disk that belong together."""
        own = (self.disk / "identities").glob("*")
        pairs = [(self.bootstrap.certificate, self.vendor_key)]
        pairs += [(directory / "certificate.pem", directory / "key.pem") for directory in own]
        found = {}
        for certificate_file, key_file in pairs:
            try:
                certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
                public_key = self._public_key(key_file)
            except (OSError, ValueError, AgentError):
                continue
            if certificate.public_key() == public_key:
                found[hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()] = certificate_file
        return found

    def _public_key(self, key_file: Path) -> Any:  # noqa: ANN401 - an EC or RSA one
        reference = key_file.with_name("key.uri")
        if not reference.exists():
            return load_pem_private_key(key_file.read_bytes(), None).public_key()
        key = pkcs11_uri.read(reference.read_text().strip())
        return load_der_public_key(TokenKeys(self.disk, key.token, 60).public_key(key.label))

    def check_never_bricked(self) -> None:
        """Invariant I: the disk holds a complete identity that the cloud accepts."""
        held = self.complete_identities()
        assert any(self.cloud.accepts(name) for name in held), f"bricked: {sorted(held)} are all refused"

    def check_settled(self) -> None:
        """At rest: exactly one ACTIVE certificate, on disk, current, and nothing else of ours beside it."""
        active = self.record.active
        assert active is not None, "no identity is in force"
        accepted, current = self.cloud.active(), (self.disk / "current").resolve()
        assert accepted == [active.certificate.certificate_id], f"{active} is in force; ACTIVE: {accepted}"
        assert current == self.disk / "identities" / active.label, f"{active.label} is in force, `current` is {current}"
        assert self.complete_identities().keys() >= set(accepted), f"not whole on the disk: {accepted}"
        held = {path.name for path in (self.disk / "identities").iterdir()}
        assert held == {active.label}, f"{active.label} is in force, and the disk holds {sorted(held)}"
