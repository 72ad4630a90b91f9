"""Key stores for the tests: files, SoftHSM, and a software TPM, which runs once for all of them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.local.tokens import LocalToken, SoftHsm, SoftTpm, TpmToken
from tests.keys.bench import Bench

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
    made = SoftHsm(directory) if kind == "softhsm" else TpmToken(directory, request.getfixturevalue("tpm").bus)
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
