"""Key stores for the tests: files, SoftHSM, and a software TPM, which runs once for all of them."""

import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.local.tokens import LocalToken, SoftHsm, SoftTpm, TpmToken
from tests.keys.bench import Bench, device_on
from tests.keys.broker import MutualTls, mutual_tls
from tests.simulator.authority import Authority
from tests.simulator.device import SimulatedDevice

ALGORITHMS = ("ec-p256", "rsa-2048")
KINDS = ("softhsm", "tpm")
numbers = itertools.count()


@pytest.fixture(scope="session")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftTpm]:
    tpm = SoftTpm(tmp_path_factory.mktemp("tpm"))
    tpm.start()
    yield tpm
    tpm.stop()


def new_token(kind: str, request: pytest.FixtureRequest) -> LocalToken:
    """Make a token, and tell this process's children of it."""
    directory = Path(request.getfixturevalue("tmp_path")) / f"token-{next(numbers)}"
    directory.mkdir()
    made: LocalToken
    if kind == "tpm":
        tpm: SoftTpm = request.getfixturevalue("tpm")
        tpm.unlock()
        made = TpmToken(directory, tpm.bus)
    else:
        made = SoftHsm(directory)
    monkeypatch = request.getfixturevalue("monkeypatch")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture(params=[f"{kind} {algorithm}" for kind in ("file", *KINDS) for algorithm in ALGORITHMS])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Give an empty key store of each backend, for each algorithm."""
    kind, algorithm = request.param.split()
    (tmp_path / "state").mkdir()
    return Bench(tmp_path / "state", algorithm, None if kind == "file" else new_token(kind, request))


@pytest.fixture(params=KINDS)
def on_token(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Give an empty key store on each kind of token."""
    (tmp_path / "state").mkdir()
    return Bench(tmp_path / "state", "ec-p256", new_token(request.param, request))


class Meddler:
    """A module between ours and the token's in which something goes wrong: see meddler.c."""

    INITIALIZE, LOGIN, DESTROY, SIGN, GENERATE = 0, 18, 22, 43, 59

    def __init__(self, library: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        assert bench.local is not None
        self._monkeypatch = monkeypatch
        self._log = bench.state / "calls"
        monkeypatch.setenv("MEDDLER_MODULE", str(bench.local.module))
        monkeypatch.setenv("MEDDLER_LOG", str(self._log))
        bench.local.module = library

    def spoil(self, function: int, when: str, what: str) -> None:
        """Have a function crash ("c"), hang ("h") or return a CK_RV, "b"efore or "a"fter doing its work."""
        self._monkeypatch.setenv("MEDDLER_FAULT", f"{function}:{when}:{what}")

    def mend(self) -> None:
        self._monkeypatch.delenv("MEDDLER_FAULT", raising=False)

    def calls(self, function: int) -> int:
        """Count the calls of a function so far, by any process."""
        return self._log.read_text().split().count(str(function)) if self._log.exists() else 0


@pytest.fixture(scope="session")
def meddling_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("meddler") / "meddler.so"
    source = Path(__file__).with_name("meddler.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-nostdlib", "-O1", "-o", library, source], check=True)
    return library


@pytest.fixture
def meddler(on_token: Bench, meddling_library: Path, monkeypatch: pytest.MonkeyPatch) -> Meddler:
    """Put a meddler before the token of this test."""
    return Meddler(meddling_library, on_token, monkeypatch)


@pytest.fixture(scope="session")
def devices() -> Authority:
    return Authority("Manufacturer CA", time.time())


@pytest.fixture
def broker(tmp_path: Path, devices: Authority) -> Iterator[MutualTls]:
    servers = Authority("Server CA", time.time())
    with mutual_tls(tmp_path, devices, servers) as serving:
        yield serving


@pytest.fixture
def device(on_token: Bench, disk: Path) -> SimulatedDevice:
    """Give a device fresh from the factory whose settings name a token for its keys."""
    return device_on(on_token, disk / "device")
