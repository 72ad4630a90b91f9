"""Runs every method of proof and writes docs/evidence.md: `make prove`, or `python -m tests.evidence`.

    python -m tests.evidence --seed 2                  other seeds; the page keeps the totals
    python -m tests.evidence --quick                   a small part of each method; writes no page
    python -m tests.evidence before COMMIT PATH::NAME  run the test of a repair on the code before the repair

Exit status: 0 all is shown (for `before`: the test fails, as it must), 1 something is not, 2 wrong arguments.
"""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.evidence import catalogue, page, stages, summary

PAGE = stages.ROOT / "docs/evidence.md"


def main() -> int:
    """Run the command line."""
    options = _options()
    if options.command == "before":
        return _before(options.commit, options.test)
    if options.command == "page":
        PAGE.write_text(page.render(summary.runs(), catalogue.rows(), catalogue.found()))
        return 0
    return _prove(options.seed, quick=options.quick)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.evidence", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a small part of each method; writes no page")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("page", help="write docs/evidence.md again, from the runs that are kept")
    before = commands.add_parser("before", help="see a fault again that was found and repaired")
    before.add_argument("commit", help="the commit that repaired it")
    before.add_argument("test", metavar="PATH::NAME", help="the test that came with it, below tests/")
    return parser.parse_args()


def _prove(seed: int, *, quick: bool) -> int:
    begun = time.monotonic()
    rows = catalogue.rows()
    if lacks := [fault for row in rows for fault in catalogue.faults_of(row)]:
        print("\n".join(lacks), file=sys.stderr)
        return 1
    tests = sorted({_to_run(test) for row in rows for test in row.named})
    every = stages.stages(stages.QUICK if quick else stages.WHOLE, seed, tests)
    failed = stages.run([stage for stage in every if not (quick and stage.name == "catalogue")], _tell)
    shown = summary.gather(seed, rows)
    summary.write(shown)
    if not quick:
        PAGE.write_text(page.render(summary.keep(shown), rows, catalogue.found()))
    for stage in failed:
        print(f"FAILED: {stage.name}: {' '.join(stage.command)}")
    _sum_up(shown, time.monotonic() - begun)
    return int(bool(failed))


def _to_run(test: str) -> str:
    """Give what pytest is to run for a test: its whole file, where one machine lives through all tests in order."""
    return test.split("::", maxsplit=1)[0] if test.startswith("system/") else test.split("[", maxsplit=1)[0]


def _sum_up(shown: summary.Summary, seconds: float) -> None:
    print(
        f"{shown.explorer['states']:,} worlds, {shown.powercut.get('images', 0):,} disk images, "
        f"{shown.fuzz.get('executions', 0):,} fuzzed inputs, {shown.mutation.get('killed', 0)} of "
        f"{shown.mutation.get('total', 0)} mutants killed, {shown.catalogue['covered']} of {shown.catalogue['rows']} "
        f"faults of the catalogue shown, in {seconds / 60:.0f} minutes"
    )


def _before(commit: str, test: str) -> int:
    """Run a test of today's repair on yesterday's code; it must fail."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "before"
        _git("worktree", "add", "--quiet", "--detach", str(tree), f"{commit}^")
        try:
            _git("checkout", "--quiet", commit, "--", "tests", tree=tree)
            ran = subprocess.run([sys.executable, "-m", "pytest", "-q", f"tests/{test}"], cwd=tree, check=False)
        finally:
            _git("worktree", "remove", "--force", str(tree))
    print(
        f"on the commit before {commit} the test " + ("fails, as it must" if ran.returncode == 1 else "DOES NOT FAIL")
    )
    return int(ran.returncode != 1)


def _git(*words: str, tree: Path = stages.ROOT) -> None:
    subprocess.run(["git", *words], cwd=tree, check=True)


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
