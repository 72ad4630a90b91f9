"""Cuts the power of a device with a real file system: `python -m tests.powercut`, or `replay` to judge an image again.

    python -m tests.powercut --images 2000                   about 2000 disks, over every file system that is here
    python -m tests.powercut --images 60000 --seed 7 --plants
    python -m tests.powercut replay build/evidence/powercut/1.case

It needs root, /dev/fuse and loop devices; its mounts are in a namespace of their own. Exit status: 0 no promise is
broken (and every planted bug is found), 1 one is, 2 wrong arguments.
"""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from tests.powercut.case import Case, Problem
from tests.powercut.filesystems import ALL, FileSystem, of_this_machine, why_not
from tests.powercut.lab import Result, cut_lives, in_words, look_for, workers
from tests.powercut.measure import renewal
from tests.powercut.plants import PLANTS

EVIDENCE = Path(__file__).parents[2] / "build/evidence"
EVERY = 10.0  # seconds between two lines of progress
MOST_KEPT = 20  # cases kept for a replay
WORKERS = 3 * (os.cpu_count() or 1)  # a mount waits more than it works


@dataclass
class Summary:
    """What has been judged; flushes and bytes of a renewal are those on the first file system."""

    images: int = 0
    distinct: int = 0
    violations: int = 0
    plants_found: int = 0
    plants: int = 0
    plant_images: dict[str, int] = field(default_factory=dict)
    flushes_per_renewal: int = 0
    bytes_per_renewal: int = 0
    renewal: dict[str, tuple[int, int]] = field(default_factory=dict)
    file_systems: list[str] = field(default_factory=list)
    not_here: list[str] = field(default_factory=list)
    seed: int = 1


def main() -> int:
    """Run the command line."""
    options = _options()
    if options.command == "replay":
        return _replay(options.case)
    systems = [system for system in of_this_machine() if system.name in options.systems]
    if not systems:
        print("none of these file systems can be mounted here", file=sys.stderr)
        return 2
    absent = [reason for system in ALL if (reason := why_not(system)) is not None]
    print("\n".join(absent), file=sys.stderr)
    summary = Summary(seed=options.seed, file_systems=[system.name for system in systems], not_here=absent)
    with workers(options.workers) as pool:
        for system in systems:
            summary.renewal[system.name] = pool.submit(renewal, system).result()
        summary.flushes_per_renewal, summary.bytes_per_renewal = summary.renewal[systems[0].name]
        _judge(cut_lives(pool, systems, options.images, options.seed), summary, options.images)
        if options.plants:
            _plants(pool, systems, summary)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(vars(summary), indent=1) + "\n")
    print(f"{summary.images} images, {summary.distinct} distinct, {summary.violations} violations: {options.json}")
    return int(bool(summary.violations) or summary.plants_found < summary.plants)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="distinct disks to judge (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the lives, and of the choice of cuts")
    parser.add_argument("--plants", action="store_true", help="look for the planted bugs, too")
    names = [system.name for system in ALL]
    parser.add_argument("--systems", nargs="+", choices=names, default=names, help="file systems (default: all)")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=EVIDENCE / "powercut.json", help="the summary (default: %(default)s)")
    commands = parser.add_subparsers(dest="command")
    again = commands.add_parser("replay", help="judge one image again")
    again.add_argument("case", type=Path, help="a file that an earlier run named")
    return parser.parse_args()


def _judge(results: Iterator[Result], summary: Summary, most: int) -> None:
    seen, started, told_at = set[int](), time.monotonic(), time.monotonic()
    for result in results:
        seen.update(result.digests)
        summary.images += len(result.digests)
        summary.distinct = len(seen)
        for words, case in result.violations:
            summary.violations += 1
            print(f"\nBROKEN on {words}", flush=True)
            if case is not None and summary.violations <= MOST_KEPT:
                kept = _kept(case, summary.violations)
                print(f"  judge it again: python -m tests.powercut replay {kept}", flush=True)
        if time.monotonic() - told_at > EVERY:
            told_at = time.monotonic()
            rate = summary.images / (told_at - started)
            print(f"{summary.distinct} of {most} disks, {rate:.0f} images a second, {summary.violations} violations …",
                  file=sys.stderr, flush=True)  # fmt: skip


def _kept(case: Case, number: int) -> Path:
    path = EVIDENCE / "powercut" / f"{number}.case"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(case))
    return path


def _plants(pool: Executor, systems: Sequence[FileSystem], summary: Summary) -> None:
    here = {system.name: system for system in systems}
    running = {
        plant.__name__: pool.submit(look_for, plant.__name__, life, here[name], summary.seed)
        for plant, life, name in PLANTS
        if name in here
    }
    summary.plants = len(running)
    for name, future in running.items():
        images, result = future.result()
        summary.plants_found += bool(result.violations)
        summary.plant_images[name] = images
        told = result.violations[0][0].splitlines()[0] if result.violations else "NOT FOUND: a hole in the lab"
        print(f"planted {name}: {told:.150}, after {images} images", flush=True)


def _replay(path: Path) -> int:
    case: Case = pickle.loads(path.read_bytes())  # noqa: S301 - written by an earlier run
    with workers(1) as pool:
        problem: Problem | None = pool.submit(case.judge_again).result()
    if problem is None:
        print("recovered: no promise is broken")
        return 0
    print(f"BROKEN on {in_words(case, problem)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
