"""Cuts the power of a device's disk: `python -m tests.powercut`, or `replay` to judge one disk again.

    python -m tests.powercut --images 2000                      disks to judge, on every file system of this machine
    python -m tests.powercut --images 60000 --seed 7 --plants   and look for each planted bug
    python -m tests.powercut replay build/powercut/violation-1  what the lab kept of a violation

It needs root, /dev/fuse and loop devices: it mounts file systems, in a mount namespace of its own. Exit status: 0 every
disk is recovered (and every planted bug is found), 1 one is not, 2 wrong arguments, or this machine cannot cut ext4.
"""
# ruff: noqa: T201 - a command line program prints

import argparse
import json
import math
import pickle
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.powercut import lab, measure
from tests.powercut.case import Case
from tests.powercut.filesystems import ALL, FileSystem, nothing_can_be_cut, of_this_machine, why_not
from tests.powercut.plants import PLANTS

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build/powercut"
EVERY = 10.0  # seconds between two lines of progress


@dataclass
class Summary:
    """What has been cut. A disk counts once in `distinct`, whatever its moment."""

    images: int = 0
    distinct: int = 0
    violations: int = 0
    plants_found: int = 0
    plants: int = 0
    plant_images: dict[str, int] = field(default_factory=dict)
    flushes_per_renewal: dict[str, int] = field(default_factory=dict)
    bytes_per_renewal: dict[str, int] = field(default_factory=dict)
    file_systems: list[str] = field(default_factory=list)
    not_here: list[str] = field(default_factory=list)


def main() -> int:
    """Run the command line."""
    options = _options()
    lacking = nothing_can_be_cut()
    if lacking is not None:
        print(f"powercut: {lacking}", file=sys.stderr)
        return 2
    systems = of_this_machine()
    absent = [reason for system in ALL if (reason := why_not(system)) is not None]
    summary = Summary(file_systems=[system.name for system in systems], not_here=absent)
    for reason in absent:
        print(f"not cut: {reason}", flush=True)
    with lab.workers(options.processes) as pool:
        if options.command == "replay":
            return _replay(pool, options.file)
        for system in systems:
            costs = pool.submit(measure.renewal, system).result()
            summary.flushes_per_renewal[system.name], summary.bytes_per_renewal[system.name] = costs
        if options.plants:
            _plants(pool, options.seed, summary)
        _cut(pool, systems, options, summary)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(vars(summary), indent=1) + "\n")
    print(f"{summary.images} images, {summary.distinct} distinct disks, {summary.violations} violations")
    return int(bool(summary.violations) or summary.plants_found < summary.plants)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="distinct disks to judge (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many, however few are judged")
    parser.add_argument("--seed", type=int, default=1, help="of the lives and of the cuts (default: %(default)s)")
    parser.add_argument("--plants", action="store_true", help="look for the planted bugs, too")
    parser.add_argument("--processes", type=int, default=lab.PROCESSES, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    commands = parser.add_subparsers(dest="command")
    again = commands.add_parser("replay", help="judge the disk of a violation again")
    again.add_argument("file", type=Path, help="what the lab has kept of it")
    return parser.parse_args()


def _cut(pool: Executor, systems: Sequence[FileSystem], options: argparse.Namespace, summary: Summary) -> None:
    images, told_at, distinct = options.images, time.monotonic(), set[int]()
    end = told_at + options.minutes * 60
    for result in lab.cut_lives(pool, systems, images, options.seed):
        summary.images += len(result.digests)
        distinct.update(result.digests)
        summary.distinct = len(distinct)
        for words, case in result.violations:
            summary.violations += 1
            print(f"\nVIOLATION: {words}\n{_keep(case, summary.violations)}", flush=True)
        if time.monotonic() - told_at > EVERY:
            told_at = time.monotonic()
            print(f"{summary.distinct} of {images} disks, last: {result.name} …", flush=True)
        if told_at > end:
            print(f"stopped after {options.minutes:g} minutes", flush=True)
            break
    print(f"{summary.distinct} distinct disks on {', '.join(summary.file_systems)}", flush=True)


def _keep(case: Case | None, number: int) -> str:
    if case is None:
        return "no disk was left to judge"
    KEPT.mkdir(parents=True, exist_ok=True)
    file = KEPT / f"violation-{number}"
    file.write_bytes(pickle.dumps(case))
    return f"judge it again: python -m tests.powercut replay {file.relative_to(ROOT)}"


def _plants(pool: Executor, seed: int, summary: Summary) -> None:
    running = {pool.submit(lab.look_for, plant, seed): plant.name for plant in PLANTS}
    for future in as_completed(running):
        name = running[future]
        images, result = future.result()
        summary.plants += 1
        summary.plants_found += bool(result.violations)
        summary.plant_images[name] = images
        said = result.violations[0][0].splitlines()[0] if result.violations else "NOT FOUND: a hole in the lab"
        print(f"planted {name}, after {images} images: {said}", flush=True)


def _replay(pool: Executor, file: Path) -> int:
    case: Case = pickle.loads(file.read_bytes())  # noqa: S301 - what this program has written
    problem = pool.submit(case.judge_again).result()
    if problem is None:
        print("this disk is recovered")
        return 0
    print(lab.in_words(case, problem))
    return 1


if __name__ == "__main__":
    sys.exit(main())
