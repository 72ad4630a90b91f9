"""The corpus, and random changes of it, without the fuzzer; and the fuzzer itself, on parsers with a planted bug."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest
import yaml
from cryptography import x509

from cloud.common import serial_list
from cloud.rotation import messages
from tests.fuzz import run
from tests.fuzz.bounds import TooLong, in_time
from tests.fuzz.mutate import mutate
from tests.fuzz.run import BY_NAME, CORPUS, ROOT, TARGETS
from tests.fuzz.targets import Target

CHANGES = 300
MOST_CHANGES = 20_000  # until a planted bug is found
MOST_EXECUTIONS = (
    200_000  # of the fuzzer, which also looks elsewhere: ten to a hundred times what it took when measured
)
ROOM = 512 * 1024 * 1024  # bytes that one target may take beside what this process has
PLANTED = sorted(BY_NAME.keys() - TARGETS.keys())


@contextmanager
def in_room() -> Iterator[None]:
    """Have Python raise `MemoryError` when what is parsed takes more than `ROOM`."""
    used = re.search(r"VmData:\s*([0-9]+) kB", Path("/proc/self/status").read_text())
    assert used is not None
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(used[1]) * 1024 + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def feed(target: Target, data: bytes) -> bool:
    """Run an input within its time."""
    with in_time():
        return target.run(data)


def seeds(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def changed(target: Target, number: int) -> bytes:
    """Give the changed input of that number: always the same, whatever Python's version and hash seed."""
    chance = Random(f"{target.name} {number}")  # noqa: S311 - dice of a test
    return mutate(chance.choice(seeds(target.name)), target.most, chance)


def test_each_target_has_its_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == BY_NAME.keys()


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_in_the_corpus_is_taken_or_refused_as_declared(name: str) -> None:
    with in_room():
        taken = [feed(TARGETS[name], data) for data in seeds(name)]
    assert any(taken), "the corpus never gets past the first line of the parser"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("name", TARGETS)
def test_so_is_whatever_chance_makes_of_it(name: str) -> None:
    with in_room():
        for number in range(CHANGES):
            data = changed(TARGETS[name], number)
            try:
                feed(TARGETS[name], data)
            except BaseException as error:
                kept = run.WORK / "findings" / name / f"{type(error).__name__}-{number}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)
                raise AssertionError(f"python -m tests.fuzz replay {name} {kept.relative_to(ROOT)}") from error


@pytest.mark.parametrize("name", PLANTED)
def test_chance_finds_every_planted_bug(name: str) -> None:
    with in_room(), pytest.raises((KeyError, AssertionError, MemoryError, TooLong)):
        change_until_found(BY_NAME[name])


def change_until_found(target: Target) -> None:
    for number in range(MOST_CHANGES):
        with in_time(1.0):
            target.run(changed(target, number))


@pytest.mark.parametrize("name", PLANTED)
def test_the_fuzzer_finds_every_planted_bug_and_shows_it_again(name: str, tmp_path: Path) -> None:
    summary, limits = tmp_path / "fuzz.json", ["--seconds", "120", "--runs", str(MOST_EXECUTIONS)]
    done = fuzz(*limits, "--target", name, "--json", str(summary))
    if run.atheris is None:
        assert (done.returncode, summary.exists()) == (2, False)
        return
    assert done.returncode == 1, done.stdout + done.stderr
    told = json.loads(summary.read_text())
    assert told["findings"] == 1
    assert 0 < told["executions"] == told["targets"][name] <= MOST_EXECUTIONS
    again = re.search(r"FOUND: python -m tests.fuzz (replay .*)", done.stdout)
    assert again is not None
    if name not in ("planted-time", "planted-memory"):  # to be shown these again takes as long, and as much
        shown = fuzz(*again[1].split())
        assert shown.returncode == 1
        assert "Error" in shown.stderr


def test_a_parser_without_a_finding_ends_well_and_is_replayed() -> None:
    if run.atheris is not None:
        done = fuzz("--seconds", "1", "--runs", "500", "--target", "ack-response")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 findings" in done.stdout
    assert "taken" in fuzz("replay", "ack-response", str(CORPUS / "ack-response/sends-0")).stdout


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_without_the_fuzzer_it_is_said_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.fuzz import __main__ as program  # noqa: PLC0415 - it is a program

    monkeypatch.setattr(program, "atheris", None)
    monkeypatch.setattr(sys, "argv", ["tests.fuzz"])
    assert program.main() == 2
    assert "make fuzz PYTHON=" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in TARGETS if TARGETS[name].limit is not None])
def test_an_input_that_is_too_long_is_refused_before_it_is_looked_at(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TARGETS[name]
    assert target.limit is not None
    seed = max(filter(target.run, seeds(name)), key=lambda data: b"-----" in data).rstrip()  # PEM, not DER, is padded
    looked: list[int] = []

    def look(content: bytes, *_arguments: object, **_keywords: object) -> None:
        looked.append(len(content))
        raise ValueError("it was looked at")

    for module, function in ((json, "loads"), (yaml, "compose"), (x509, "load_pem_x509_csr")):
        monkeypatch.setattr(module, function, look)
    for size in (target.limit, target.limit + 1):
        with suppress(ValueError):
            target.run(seed + b" " * (size - len(seed) - 1) + b"\n")
    assert looked, "what is not too long is looked at"
    assert max(looked) <= target.limit


def test_a_cell_that_is_longer_than_csv_reads_is_a_fault_of_its_line() -> None:
    rows, faults = serial_list.read(["SN-1", "x" * 200_000, "SN-2"], messages.SERIAL)
    assert [row.serial for row in rows] == ["SN-1", "SN-2"]
    assert [fault.line for fault in faults] == [2]
