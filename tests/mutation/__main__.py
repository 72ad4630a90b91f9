# ruff: noqa: T201 - a command line program prints
"""`make mutate`: plant small bugs in the pure rules, one at a time, and see whether a fast test notices each of them.

mutmut makes the bugs ("mutants") and runs the tests. It is maintained, forks one warm interpreter for each mutant, and
lets mypy judge first. cosmic-ray starts pytest anew for each mutant; mutatest and MutPy had their last releases in 2022
and 2019. mutmut mutates the bodies of functions only: it plants nothing in a table or a constant.

- A mutant is **killed** by a test that fails, by a test that runs out of time, or by `mypy --strict`, which `make lint`
  runs as well. Any other mutant survives, also one that no test reaches.
- A survivor that no test can kill is explained in `explained.txt`, by its difference from the source. An explanation
  that has no surviving mutant, or that quotes a line which the source does not have, fails the run.
- The wording of a sentence for people is no rule: a mutant that only changes the letters of a text with a space in it
  is not counted. Texts without a space are words that programs read, and are counted.
- `baseline.json` has one line for each function. With `--changed` only functions whose source is not as it was there
  are tried, and all functions of a module whose tables or constants changed. That does not notice a test that was
  removed; the whole run does.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.mutation import ledger, trial

FLOOR: Final = 0.95
"""The least share of a module's mutants that must be killed, however well the others are explained."""

SUITES: Final = {
    "cloud/rotation/agenda.py": ["tests/cloud/test_agenda.py"],
    "cloud/rotation/lifecycle.py": ["tests/cloud/test_lifecycle.py"],
    "cloud/rotation/operator_rules.py": ["tests/cloud/test_operator_rules.py"],
    "cloud/rotation/record.py": ["tests/cloud/test_lifecycle.py"],
    "iot_agent/core/codec.py": ["tests/device/test_codec.py"],
    "iot_agent/core/fallback.py": ["tests/device/test_fallback.py"],
    "iot_agent/core/lifecycle.py": ["tests/device/test_lifecycle.py"],
    "iot_agent/core/reconcile.py": ["tests/device/test_reconcile.py"],
    "iot_agent/core/record.py": ["tests/device/test_lifecycle.py"],
    "iot_agent/core/schedule.py": ["tests/device/test_schedule.py"],
    "iot_agent/core/typed_json.py": ["tests/device/test_codec.py"],
}
"""Which fast tests must notice a bug in which module."""


@dataclass(frozen=True)
class Project:
    """The directory that has all, and for each module the tests that must notice a bug in it."""

    root: Path
    suites: dict[str, list[str]]

    @property
    def baseline(self) -> Path:
        """Where the last findings are."""
        return self.root / "tests/mutation/baseline.json"

    @property
    def explained(self) -> Path:
        """Where the explanations are."""
        return self.root / "tests/mutation/explained.txt"


def check(project: Project, modules: list[str], *, only_changed: bool, counts_file: Path | None = None) -> list[str]:
    """Try these modules and write the baseline; return what is wrong, "" for nothing; `Rotten` for an explanation."""
    sources = {module: (project.root / module).read_text() for module in project.suites}
    explained = ledger.read_explained(project.explained.read_text(), list(project.suites))
    for module in modules:
        ledger.check_quotes(module, sources[module], explained[module])
    stored = ledger.read_baseline(project.baseline.read_text()) if project.baseline.exists() else {}
    baseline = {module: ledger.known(source, stored.get(module, {})) for module, source in sources.items()}
    changed = {module: ledger.changed(sources[module], baseline[module] if only_changed else {}) for module in modules}
    wanted = {module: names for module, names in changed.items() if names}
    wrong: list[str] = []
    survivors: Counter[str] = Counter()
    if wanted:
        print(f"trying {sum(map(len, wanted.values()))} functions of {len(wanted)} modules", flush=True)
        tree = trial.copied(project.root, list(wanted))
        trial.configured(tree, list(wanted), sorted({test for module in wanted for test in project.suites[module]}))
        for module, found in trial.run(tree, wanted, all_of_them=not only_changed).items():
            verdict = ledger.judged(sources[module], baseline[module], wanted[module], found, explained[module])
            baseline[module] = verdict.rows
            survivors[module] = len(verdict.unexplained)
            wrong += [mutant.block(module, "SURVIVED") for mutant in verdict.unexplained]
            wrong += [mutant.block(module, "explained, but no mutant survives so") for mutant in verdict.idle]
    if baseline != stored:
        project.baseline.write_text(ledger.written(baseline))
        print("baseline.json is as this run found it: commit it")
    counted = ledger.counts(baseline, survivors)
    for module in modules:
        one = counted["modules"][module]
        share = one["killed"] / one["total"] if one["total"] else 1.0
        print(_line(module, one))
        if share < FLOOR:
            wrong.append(f"{module}: {100 * share:.1f} % are killed, fewer than {100 * FLOOR:.0f} %")
    print(_line("together", counted))
    if counts_file is not None:
        counts_file.write_text(json.dumps(counted, indent=1) + "\n")
    return wrong


def _line(name: str, one: dict[str, Any]) -> str:
    """Return the counts of a module as a line of the table."""
    by = f"{one['killed']:5} of {one['total']:4} killed, {one['types']:4} of these by mypy"
    return f"{name:34}{by}; {one['explained']} explained"


def main() -> int:
    """Do what the command line says; 1 if something is wrong."""
    arguments = argparse.ArgumentParser(prog="make mutate", description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("parts", nargs="*", help="only modules that have one of these in their path")
    arguments.add_argument("--changed", action="store_true", help="only functions that are not as in baseline.json")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the counts to this file")
    options = arguments.parse_args()
    modules = [one for one in SUITES if not options.parts or any(part in one for part in options.parts)]
    if not modules:
        arguments.error(f"no module has {' or '.join(options.parts)} in its path")
    try:
        wrong = check(
            Project(Path(__file__).parents[2], SUITES), modules, only_changed=options.changed, counts_file=options.json
        )
    except ledger.Rotten as rotten:
        wrong = [f"explained.txt: {rotten}"]
    print("\n".join(["", *wrong]) if wrong else "every mutant is killed or explained")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
