"""Runs a target under atheris, Google's coverage-guided fuzzer (libFuzzer for Python), in a process of its own.

Kept by Google, and what OSS-Fuzz runs Python under. Hypothesis, which the tests use, makes inputs of a known shape; it
does not look at which branches they reach. libFuzzer ends the process at a finding, and at the end of its time, so each
target has a fork of this process: our code is imported and instrumented once for all.
"""

import contextlib
import hashlib
import io
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

try:
    import atheris
except ImportError:  # it has no wheel for this Python or machine
    atheris = None

MEASURED = ["iot_agent", "cloud", "tests.fuzz.planted"]

with (
    contextlib.nullcontext() if atheris is None else atheris.instrument_imports(include=MEASURED),
    contextlib.redirect_stderr(io.StringIO()),  # a line for each module
):
    from tests.fuzz.bounds import in_time
    from tests.fuzz.mutate import mutate
    from tests.fuzz.planted import PLANTED
    from tests.fuzz.targets import TARGETS, Target

__all__ = ["BY_NAME", "CORPUS", "ROOT", "TARGETS", "Ran", "atheris", "fuzz"]

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
WORK = ROOT / "build/fuzz"
MEMORY = "/dev/shm"  # noqa: S108 - a private directory is made in it
BY_NAME = {**TARGETS, **PLANTED}
LONGEST = 120  # seconds by the clock for one input, should `bounds.in_time` not reach it
MOST_MEMORY = 600  # MiB of the whole process, of which Python, our imports and the instrumentation take about 100
EXECUTED = re.compile(r"stat::number_of_executed_units:\s*([0-9]+)")


@dataclass(frozen=True)
class Ran:
    """How often a target was executed; the file with the input that is a finding, if one is; what libFuzzer said."""

    executions: int
    finding: Path | None
    said: str


def fuzz(name: str, *, seconds: int, executions: int | None = None) -> Ran:
    """Fuzz a target until the time is over, so many inputs have been run, or one of them is a finding.

    It begins with the inputs in `CORPUS`; what reaches new branches is kept in `WORK` for the next time. Raises
    `RuntimeError` if libFuzzer did not run.
    """
    target, kept, found = BY_NAME[name], WORK / "corpus" / name, WORK / "findings" / name
    for directory in (kept, found):
        directory.mkdir(parents=True, exist_ok=True)
    in_memory = (
        MEMORY if os.access(MEMORY, os.W_OK) else None
    )  # parsers that read files are several times as fast there
    with tempfile.TemporaryDirectory(dir=in_memory) as scratch:
        new, words = Path(scratch) / "new", Path(scratch) / "words"
        new.mkdir()
        options = [
            f"-max_total_time={seconds}",
            f"-runs={-1 if executions is None else executions}",
            f"-max_len={target.most}",
            "-len_control=100",  # short inputs first: they are run a hundred times as often
            f"-timeout={LONGEST}",
            f"-rss_limit_mb={MOST_MEMORY}",
            f"-artifact_prefix={new}/",
            "-print_final_stats=1",
            "-reload=0",
            "-keep_seed=1",  # no branch of ours tells what an input means to a regular expression, or to a parser in C
        ]
        arguments = [name, *options, str(kept), str(CORPUS / name)]
        fork = multiprocessing.get_context("fork").Process(target=_run, args=(target, arguments, new, words))
        fork.start()
        fork.join()
        said = words.read_text(errors="replace")
        findings = [Path(shutil.move(one, found / one.name)) for one in new.iterdir()]
    executed = EXECUTED.search(said)
    if executed is None or bool(fork.exitcode) != bool(findings):
        raise RuntimeError(f"libFuzzer ended with status {fork.exitcode}:\n{said}")
    return Ran(int(executed[1]), findings[0] if findings else None, said)


def _run(target: Target, arguments: list[str], new: Path, words: Path) -> None:
    """Be the fork: libFuzzer speaks to descriptors 1 and 2, and ends the process.

    It keeps an input that takes too long or too much memory itself; one that raises is kept here, because at the end of
    a fork libFuzzer is not asked.
    """
    tempfile.tempdir = str(words.parent)
    most = MOST_MEMORY * 1024 * 1024  # at once: libFuzzer looks at what is in use once a second
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    told = os.open(words, os.O_WRONLY | os.O_CREAT, 0o600)
    for descriptor in (1, 2):
        os.dup2(told, descriptor)

    count = 0

    def run(data: bytes) -> None:
        nonlocal count
        count += 1
        try:
            with in_time():
                target.run(data)
        except BaseException as error:
            (new / f"{type(error).__name__}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            sys.stderr.write(f"stat::number_of_executed_units: {count}\n")
            sys.stderr.flush()
            raise

    def change(data: bytes, most: int, seed: int) -> bytes:
        chance = Random(seed)  # noqa: S311 - dice, which libFuzzer throws
        return mutate(data, most, chance) if chance.randrange(4) else bytes(atheris.Mutate(data, most))

    atheris.Setup(arguments, run, custom_mutator=change)
    atheris.Fuzz()
