"""A key store under test: a state directory, and perhaps a token, as a worker would use them."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloud.local.tokens import LABEL, LocalToken, SoftHsm
from iot_agent.core.ports import Credentials
from iot_agent.core.protocol import Topics
from iot_agent.core.record import Certificate, Identity, Record, State
from iot_agent.core.schedule import Policy
from iot_agent.core.settings import Token
from iot_agent.keys.keyring import KeyRing
from iot_agent.keys.token import TokenKeys
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.worker import steps
from tests.harness import PATIENCE
from tests.keys.broker import MutualTls
from tests.simulator.authority import Authority
from tests.simulator.device import SimulatedDevice

ROOT = Path(__file__).parents[2]
FIRST, SECOND, THIRD = (f"iot-agent-20260101T000000Z-{number:08x}" for number in (1, 2, 3))
LIMIT = 60.0


def ring(state: Path, token: Token | None, limit: float = LIMIT) -> KeyRing:
    return KeyRing(state, "file" if token is None else "pkcs11", token, lambda which: TokenKeys(state, which, limit))


@dataclass
class Bench:
    """One backend with one algorithm."""

    state: Path
    algorithm: str
    local: LocalToken | None = None
    limit: float = LIMIT

    @property
    def token(self) -> Token | None:
        if self.local is None:
            return None
        return Token(str(self.local.module), LABEL, f"file:{self.local.pin_file}")

    @property
    def is_softhsm(self) -> bool:
        return isinstance(self.local, SoftHsm)

    @property
    def keys(self) -> KeyRing:
        return ring(self.state, self.token, self.limit)

    @property
    def identities(self) -> IdentityDirectories:
        return IdentityDirectories(self.state)

    def objects(self) -> list[str]:
        """List the labels of all private and public keys on the token, as another program sees them."""
        assert self.local is not None
        shown = self.local.tool("--list-objects")
        return sorted(line.split(":", 1)[1].strip() for line in shown.splitlines() if line.strip().startswith("label:"))

    def context(self, **changes: Any) -> steps.StepContext:  # noqa: ANN401 - any of its parts
        nowhere: Any = None
        parts: dict[str, Any] = {
            "keys": self.keys,
            "cloud": nowhere,
            "identities": self.identities,
            "examine": nowhere,
            "bootstrap": Credentials(self.state / "none", self.state / "none"),
            "topics": Topics("cert-rotation", "SN-0001"),
            "algorithm": self.algorithm,
            "policy": Policy(),
            "report": {},
        }
        return steps.StepContext(**{**parts, **changes})

    def make(self, label: str) -> None:
        """Make a key with its identity directory, as the step does."""
        self.keys.generate(label, self.algorithm)
        self.identities.create(label, self.keys.csr(label, "SN-0001"))

    def certify(self, label: str, authority: Authority) -> Path:
        """Give a key its certificate."""
        pem = authority.sign(self.keys.csr(label, "SN-0001"), time.time())
        self.identities.store(Identity(label, Certificate("0" * 64, 0, 1)), pem, None)
        return self.identities.certificate(label)

    def in_force(self, label: str) -> Record:
        """Give the record of a device whose identity in force has this key."""
        return Record("SN-0001", State.ACKED, active=Identity(label, Certificate("0" * 64, 0, 1)))


def in_a_process(program: str, request: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a program of tests/keys with one line of JSON."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.keys.{program}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return process


def connect(bench: Bench, label: str, broker: MutualTls) -> dict[str, str]:
    token = None if bench.token is None else asdict(bench.token)
    asked = {"state": str(bench.state), "token": token, "label": label, "port": broker.port, "ca": str(broker.ca_file)}
    return answer(in_a_process("connect", asked))


def answer(process: subprocess.Popen[str]) -> dict[str, str]:
    said, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, complaint
    told: dict[str, str] = json.loads(said)
    return told


def device_on(bench: Bench, disk: Path) -> SimulatedDevice:
    disk.mkdir()
    device = SimulatedDevice(disk)
    device.token, device.backend = bench.token, "pkcs11"
    return device


def label(device: SimulatedDevice) -> str:
    assert device.record.active is not None
    return device.record.active.label


def holds(device: SimulatedDevice) -> set[str]:
    """Name the files in the directory of the identity in force."""
    return {path.name for path in (device.disk / "current").iterdir()}
