"""What is known of each function: `baseline.json`, the explanations of `explained.txt`, and a run's findings. Pure."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tests.mutation.mutants import CONSTANTS, Mutant, hashes, texts

SURVIVED: Final = "survived"
"""Stands for the hash of a function with a survivor: no source has it, so the function is run again."""


class Rotten(Exception):
    """`explained.txt` cannot be read, or explains what is not there."""


@dataclass(frozen=True)
class Row:
    """A function: the hash of its source; how many mutants tests killed, types killed, `explained.txt` explains."""

    source: str
    tests: int = 0
    types: int = 0
    explained: int = 0


Rows = dict[str, Row]


@dataclass
class Found:
    """What a run has found of one module: by function how many mutants were killed by tests, by types; the others."""

    tests: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    survivors: list[Mutant] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """A module after a run: its rows; the survivors that nothing explains; the explanations that explain nothing."""

    rows: Rows
    unexplained: list[Mutant]
    idle: list[Mutant]


def read_baseline(text: str) -> dict[str, Rows]:
    """Read `baseline.json`: by module and function, a `Row`."""
    return {module: {name: Row(**row) for name, row in rows.items()} for module, rows in json.loads(text).items()}


def written(baseline: dict[str, Rows]) -> str:
    """Return `baseline.json`, a line for each function."""
    modules = []
    for module, rows in sorted(baseline.items()):
        lines = [f"    {json.dumps(name)}: {json.dumps(vars(row))}" for name, row in sorted(rows.items())]
        modules.append(f"  {json.dumps(module)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(modules) + "\n}\n"


def known(source: str, rows: Rows) -> Rows:
    """Leave out what the module does not have any more."""
    return {name: row for name, row in rows.items() if name in hashes(source)}


def changed(source: str, rows: Rows) -> list[str]:
    """Name the functions that are not as in the baseline; all of them, if what is outside of them is not."""
    now = hashes(source)
    everything = CONSTANTS not in rows or rows[CONSTANTS].source != now[CONSTANTS]
    return [
        name
        for name, digest in now.items()
        if name != CONSTANTS and (everything or name not in rows or rows[name].source != digest)
    ]


def read_explained(text: str, modules: list[str]) -> dict[str, dict[Mutant, str]]:
    """Read blocks: a line "path function", lines after "-" and "+", and the reason, one line, after "=".

    Lines that begin with "#" are comments.
    """
    explained: dict[str, dict[Mutant, str]] = {module: {} for module in modules}
    for block in re.split(r"\n{2,}", re.sub(r"(?m)^#.*\n?", "", text).strip("\n")):
        if not block:
            continue
        head, *difference, reason = block.splitlines()
        module, _, function = head.partition(" ")
        if module not in explained or not re.match("= .", reason) or not all(re.match("[-+] ", x) for x in difference):
            raise Rotten(f"this is no explanation:\n{block}")
        explained[module][Mutant(function, tuple(difference))] = reason
    return explained


def check_quotes(module: str, source: str, explained: dict[Mutant, str]) -> None:
    """Raise `Rotten` for an explanation of a line that its function does not have."""
    for mutant in explained:
        lines = {line.strip() for line in texts(source).get(mutant.function, "").splitlines()}
        for line in mutant.difference:
            if line.startswith("- ") and line[2:] not in lines:
                raise Rotten(f"{module} {mutant.function} has no such line, which is explained:\n{line[2:]}")


def judged(source: str, rows: Rows, names: list[str], found: Found, explained: dict[Mutant, str]) -> Verdict:
    """Judge what was found of the functions `names`; of the others, what is known stays."""
    unexplained = [mutant for mutant in found.survivors if mutant not in explained]
    idle = [mutant for mutant in explained if mutant.function in names and mutant not in found.survivors]
    excused = Counter(mutant.function for mutant in found.survivors if mutant in explained)
    unfinished = {mutant.function for mutant in unexplained}
    now, fresh = hashes(source), dict(rows)
    for name in names:
        source_hash = SURVIVED if name in unfinished else now[name]
        fresh[name] = Row(source_hash, found.tests[name], found.types[name], excused[name])
    return Verdict({**fresh, CONSTANTS: Row(now[CONSTANTS])}, unexplained, idle)


def counts(baseline: dict[str, Rows], survivors: Counter[str]) -> dict[str, Any]:
    """Return what `--json` writes: "types" of those killed fell to mypy; `survivors` by module nothing explains."""
    modules = {}
    for module, rows in sorted(baseline.items()):
        types = sum(row.types for row in rows.values())
        killed = types + sum(row.tests for row in rows.values())
        explained = sum(row.explained for row in rows.values())
        total = killed + explained + survivors[module]
        modules[module] = {"killed": killed, "total": total, "explained": explained, "types": types}
    keys = ("killed", "total", "explained", "types")
    return {**{key: sum(one[key] for one in modules.values()) for key in keys}, "modules": modules}
