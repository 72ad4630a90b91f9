"""Explores the device and the cloud together: `python -m tests.explorer`, or `replay` to see a path again.

    python -m tests.explorer --faults 1                      every world that one fault leads to, from every start
    python -m tests.explorer --faults 2 --most 120000 --walks 2000 --seed 7 --plants
    python -m tests.explorer replay known 18:'the answer is lost'

A path is given as COUNT:CHOICE for each choice: after so many things have happened. Exit status: 0 no promise is broken
(and every planted bug is found), 1 one is, 2 wrong arguments.
"""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import argparse
import json
import logging
import random
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.explorer import paper
from tests.explorer.plants import PLANTS, look_for
from tests.explorer.search import Found, Search, replay, walk
from tests.explorer.starts import STARTS
from tests.explorer.world import Violation

SUMMARY = Path(__file__).parents[2] / "build/evidence/explorer.json"
EVERY = 10.0  # seconds between two lines of progress
Path_ = tuple[tuple[int, str], ...]


@dataclass
class Summary:
    """What has been explored."""

    faults: int = 0
    states: int = 0
    transitions: int = 0
    walks: int = 0
    plants_found: int = 0
    plants: int = 0
    violations: list[str] = field(default_factory=list)
    states_to_find: dict[str, int] = field(default_factory=dict)


def main() -> int:
    """Run the command line."""
    logging.disable(logging.CRITICAL)
    options = _options()
    with paper.instead_of_x509():
        if options.command == "replay":
            return _replay(options.start, options.path)
        summary = Summary(faults=options.faults)
        for start in options.starts or STARTS:
            _explore(start, options, summary)
        if options.plants:
            _plants(summary)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(vars(summary), indent=1) + "\n")
    print(f"{summary.states} distinct states, {summary.transitions} transitions, {summary.walks} walks: {options.json}")
    return int(bool(summary.violations) or summary.plants_found < summary.plants)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.explorer", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=1, help="how many, one after another (default: %(default)s)")
    parser.add_argument("--most", type=int, help="stop after so many distinct states from each start")
    parser.add_argument("--walks", type=int, default=0, help="random walks from each start, up to ten faults deep")
    parser.add_argument("--seed", type=int, default=1, help="of the walks, and of the order with --most")
    parser.add_argument("--plants", action="store_true", help="look for the planted bugs, too")
    parser.add_argument("--json", type=Path, default=SUMMARY, help="where the summary goes (default: %(default)s)")
    parser.add_argument("--starts", nargs="+", choices=STARTS, help="default: all")
    commands = parser.add_subparsers(dest="command")
    again = commands.add_parser("replay", help="tell a path in words, call by call")
    again.add_argument("start", choices=STARTS)
    again.add_argument("path", nargs="*", metavar="COUNT:CHOICE")
    return parser.parse_args()


def _explore(start: str, options: argparse.Namespace, summary: Summary) -> None:
    told_at = time.monotonic()

    def told(search: Search, faults: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > EVERY:
            told_at = time.monotonic()
            print(f"{start}: {faults} faults, {search.states} states, {search.transitions} transitions …", flush=True)

    search = Search(at_first=False, most=options.most, told=told, chance=random.Random(options.seed))  # noqa: S311 - an order
    world = STARTS[start]()
    search.run(world, options.faults)
    summary.states += search.states
    summary.transitions += search.transitions
    found = list(search.found.items())
    for number in range(options.walks):
        try:
            walk(world, random.Random(f"{options.seed}-{start}-{number}"), faults=10)  # noqa: S311 - dice of a test
        except Found as broken:
            found.append((broken.what, broken.path))
    summary.walks += options.walks
    for what, path in found:
        summary.violations.append(f"{start}: {what}: {command(start, path)}")
        _tell(start, what, path)
    print(f"{start}: {search.states} states, {options.walks} walks, {len(found)} promises broken", flush=True)


def _plants(summary: Summary) -> None:
    for plant, start in PLANTS:
        summary.plants += 1
        found, states = look_for(plant, start)
        summary.plants_found += found is not None
        summary.states_to_find[plant.__name__] = states
        told = found.what if found else "NOT FOUND: a hole in the explorer"
        print(f"planted {plant.__name__}: {told}, after {states} states from {start}", flush=True)


def _tell(start: str, what: str, path: Path_) -> None:
    print(f"\nBROKEN: {what}\nsee it again: {command(start, path)}")
    for number, (count, name) in enumerate(path):
        print(f"  {number + 1}. after {count} things: {name or what}")


def command(start: str, path: Path_) -> str:
    """Give the command that shows a path again."""
    words = [f"{count}:{name}" for count, name in path if name]
    return shlex.join(["python", "-m", "tests.explorer", "replay", start, *words])


def _replay(start: str, words: list[str]) -> int:
    path = tuple((int(count), name) for count, name in (word.split(":", 1) for word in words))
    try:
        for at, said in replay(STARTS[start](), path):
            print(f"{at:12.0f} s  {said}")
    except Violation as broken:
        print(f"BROKEN: {broken}")
        return 1
    print("at rest: no promise is broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
