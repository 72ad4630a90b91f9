"""The stages of the proof: programs that run side by side, as many as there are processors, and what each reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/evidence"
MINUTES = 30  # of the longest stage, however slow the machine
STARTS = ("restored", "unknown", "in-service", "known")


@dataclass(frozen=True)
class Sizes:
    """How much is explored: distinct states and walks from each start, images, seconds of fuzzing."""

    states: int
    walks: int
    images: int
    fuzzing: int


WHOLE = Sizes(states=120_000, walks=4_000, images=60_000, fuzzing=300)
QUICK = Sizes(states=2_000, walks=20, images=300, fuzzing=20)


@dataclass(frozen=True)
class Stage:
    """A program of the proof; `report` is the file that it writes."""

    name: str
    command: tuple[str, ...]
    report: Path


def stages(sizes: Sizes, seed: int, tests: Sequence[str]) -> list[Stage]:
    """Give every stage, the longest first."""

    def module(name: str, *options: object) -> Stage:
        package, report = name.partition(" ")[0], BUILD / f"{name.replace(' ', '-')}.json"
        command = (sys.executable, "-m", f"tests.{package}", *map(str, options), "--json", str(report))
        return Stage(name, command, report)

    explored = ("--faults", 2, "--most", sizes.states, "--walks", sizes.walks, "--seed", seed)
    junit = BUILD / "junit.xml"
    pytest = ("-m", "pytest", "-q", "-n", "1", "--dist", "loadfile", f"--junitxml={junit}")
    return [
        module("mutation"),
        module("powercut", "--images", sizes.images, "--minutes", MINUTES, "--seed", seed, "--plants"),
        Stage("catalogue", (sys.executable, *pytest, *(f"tests/{test}" for test in tests)), junit),
        *(
            module(f"explorer {start}", "--starts", start, *explored) for start in STARTS
        ),
        module("explorer plants", "--faults", 0, "--plants"),
        module("fuzz", "--seconds", sizes.fuzzing),
    ]  # fmt: skip


def run(chosen: Sequence[Stage], tell: Callable[[str], None]) -> list[Stage]:
    """Run the stages side by side, telling each line that one writes with its name; gives those that failed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    begun, lock = time.monotonic(), threading.Lock()

    def one(stage: Stage) -> bool:
        stage.report.unlink(missing_ok=True)
        with subprocess.Popen(
            stage.command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child:
            for line in child.stdout or ():
                with lock:
                    tell(f"{time.monotonic() - begun:6.0f} s  {stage.name:20} {line.rstrip()}")
        return child.returncode == 0

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        ended = list(pool.map(one, chosen))
    return [stage for stage, good in zip(chosen, ended, strict=True) if not good]


def report(name: str) -> dict[str, Any]:
    """Read what a stage reported; empty if it reported nothing."""
    file = BUILD / f"{name.replace(' ', '-')}.json"
    return dict(json.loads(file.read_text())) if file.is_file() else {}
