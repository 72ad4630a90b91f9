"""`make mutate`: plant small bugs in the pure rules, one at a time, and see whether a fast test notices each of them.

mutmut makes the bugs ("mutants") and runs the tests; its last release is of the month in which this was written, it
forks one warm interpreter for each mutant, and it lets mypy judge first. cosmic-ray starts a pytest for each mutant,
which is ten times slower; mutatest and MutPy have not been released for years. mutmut mutates function bodies only: it
plants nothing in a table or a constant at a module's top.

- A mutant is **killed** by a test that fails, by a test that runs out of time, or by `mypy --strict`, which `make lint`
  runs as well. Any other mutant survives, also one that no test reaches.
- A survivor that no test can kill is explained in `explained.txt`, by its difference from the source. The run fails if
  an explanation has no surviving mutant, or quotes a line that the source does not have.
- The wording of a sentence for people is no rule: a mutant that only changes the letters of a text with a space in it
  is not counted. Texts without a space are words that programs read, and are counted.
- `baseline.json` has one line for each function: the hash of its source, and how many mutants tests and types killed and
  `explained.txt` explains. With `--changed` only a function whose hash differs is run; so are all functions of a module
  whose tables or constants changed. A test that was removed is not noticed then: the whole run notices it.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
BASELINE: Final = Path(__file__).parent / "baseline.json"
EXPLAINED: Final = Path(__file__).parent / "explained.txt"
FLOOR: Final = 0.95
"""The least share of a module's mutants that must be killed, however well the others are explained."""

# Which fast tests are to notice a bug in which module.
SUITES: Final = {
    "iot_agent/core/lifecycle.py": ["tests/device/test_lifecycle.py"],
    "iot_agent/core/fallback.py": ["tests/device/test_lifecycle.py", "tests/device/test_fallback.py"],
    "iot_agent/core/reconcile.py": ["tests/device/test_reconcile.py"],
    "iot_agent/core/schedule.py": ["tests/device/test_schedule.py"],
    "iot_agent/core/record.py": ["tests/device/test_lifecycle.py", "tests/device/test_reconcile.py"],
    "iot_agent/core/codec.py": ["tests/device/test_codec.py", "tests/device/test_record_store.py"],
    "iot_agent/core/typed_json.py": ["tests/device/test_codec.py", "tests/device/test_record_store.py"],
    "cloud/rotation/lifecycle.py": ["tests/cloud/test_lifecycle.py"],
    "cloud/rotation/operator_rules.py": ["tests/cloud/test_operator_rules.py"],
    "cloud/rotation/agenda.py": ["tests/cloud/test_agenda.py"],
    "cloud/rotation/record.py": ["tests/cloud/test_lifecycle.py"],
}

CONSTANTS: Final = "(tables and constants)"
KILLED: Final = {1, 3, 24, -24, 36, 152, 255}  # mutmut's exit codes: a test failed, or ran out of time
TYPED: Final = 37
PUT_BY_MUTMUT: Final = re.compile(r"^x(?:_|ǁ(?P<of>\w+)ǁ)(?P<name>\w+)__mutmut_(?P<number>\d+|orig)$")


@dataclass(frozen=True)
class Row:
    """What is known of a function whose source has this hash."""

    source: str
    tests: int = 0
    types: int = 0
    explained: int = 0


@dataclass(frozen=True)
class Mutant:
    """A mutant by its function ("Class.method" for a method) and by the lines that differ, each with - or + before it."""

    function: str
    difference: tuple[str, ...]


@dataclass
class Found:
    """What a run has found of one module."""

    tests: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    survivors: list[Mutant] = field(default_factory=list)


class Rotten(Exception):
    """An explanation explains nothing any more."""


def functions(source: str) -> dict[str, str]:
    """Hash each function of a module, and what is outside of functions, all without docstrings and comments."""
    hashes = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    for body, prefix in [(tree.body, ""), *((n.body, f"{n.name}.") for n in tree.body if isinstance(n, ast.ClassDef))]:
        for node in [one for one in body if isinstance(one, ast.FunctionDef)]:
            hashes[prefix + node.name] = _hash(node)
            body.remove(node)
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return {**hashes, CONSTANTS: _hash(tree)}


def _hash(node: ast.AST) -> str:
    return hashlib.sha256(ast.dump(node).encode()).hexdigest()[:12]


def changed(source: str, rows: dict[str, Row]) -> list[str]:
    """Name the functions that are not as they were; all of them, if a table or a constant is not."""
    now = functions(source)
    was = {name: row.source for name, row in rows.items()}
    everything = now[CONSTANTS] != was.get(CONSTANTS)
    return [name for name, digest in now.items() if name != CONSTANTS and (everything or digest != was.get(name))]


# ---- explanations -----------------------------------------------------------------------------------------------------


def read_explained(text: str) -> dict[str, dict[Mutant, str]]:
    """Read blocks of a head "path function", lines that begin with - and +, and one that begins with =, the reason."""
    explained: dict[str, dict[Mutant, str]] = {module: {} for module in SUITES}
    for block in filter(None, (part.strip("\n") for part in re.sub(r"(?m)^#.*\n", "", text).split("\n\n"))):
        head, *difference, why = block.splitlines()
        module, _, function = head.partition(" ")
        if module not in SUITES or not why.startswith("= ") or not all(line[:1] in "-+" for line in difference):
            raise Rotten(f"not an explanation: {block}")
        explained[module][Mutant(function, tuple(difference))] = why[2:]
    return explained


def check_quotes(module: str, source: str, explained: dict[Mutant, str]) -> None:
    """Raise `Rotten` for an explanation of a line that its function does not have."""
    lines = {name: {line.strip() for line in text.splitlines()} for name, text in _texts(source).items()}
    for mutant in explained:
        for line in mutant.difference:
            if line.startswith("-") and line[1:].strip() not in lines.get(mutant.function, ()):
                raise Rotten(f"{module} {mutant.function} has no line {line[1:].strip()!r}, which is explained")


def _texts(source: str) -> dict[str, str]:
    """Return the source of each function and method, at the margin, without its decorators."""
    tree, lines = ast.parse(source), source.splitlines()
    bodies = [(tree.body, ""), *((node.body, f"{node.name}.") for node in tree.body if isinstance(node, ast.ClassDef))]
    return {
        prefix + node.name: textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
        for body, prefix in bodies
        for node in body
        if isinstance(node, ast.FunctionDef)
    }


# ---- what mutmut made -------------------------------------------------------------------------------------------------


def mutants(mutated: str) -> dict[str, Mutant | None]:
    """Tell each mutant of a module that mutmut has filled with them, by mutmut's name; None for a change of wording."""
    texts = _texts(mutated)
    nodes = {name: ast.parse(text).body[0] for name, text in texts.items()}
    made: dict[str, Mutant | None] = {}
    for name, text in texts.items():
        match = PUT_BY_MUTMUT.match(name.rpartition(".")[2])
        if match is None or match["number"] == "orig":
            continue
        original = re.sub(r"__mutmut_\d+$", "__mutmut_orig", name)
        before, after = (texts[one].splitlines() for one in (original, name))
        lines = [line for line in difflib.ndiff(before[1:], after[1:]) if line[0] in "-+"]
        function = f"{match['of']}.{match['name']}" if match["of"] else match["name"]
        wording = _only_wording(nodes[original], nodes[name])
        made[name.rpartition(".")[2]] = None if wording else Mutant(function, tuple(_tidy(line) for line in lines))
    return made


def _tidy(line: str) -> str:
    return f"{line[0]} {line[1:].strip()}"


def _only_wording(before: ast.stmt, after: ast.stmt) -> bool:
    pairs = [
        (old.value, new.value)
        for old, new in zip(ast.walk(before), ast.walk(after), strict=False)
        if isinstance(old, ast.Constant) and isinstance(new, ast.Constant) and old.value != new.value
    ]
    ((old, new),) = pairs if len(pairs) == 1 else ((None, None),)
    return (
        isinstance(old, str)
        and isinstance(new, str)
        and " " in old
        and new.lower() in (old.lower(), f"xx{old.lower()}xx")
    )


# ---- a run ------------------------------------------------------------------------------------------------------------


def run(tree: Path, wanted: dict[str, list[str]], suites: dict[str, list[str]]) -> dict[str, Found]:
    """Let mutmut try the mutants of these functions (of all, for an empty list) in a copy of the project."""
    tests = sorted({test for module in wanted for test in suites[module]})
    settings = {
        "source_paths": ["iot_agent", "cloud"],
        "also_copy": ["config"],
        "only_mutate": sorted(wanted),
        "pytest_add_cli_args": [*"-p no:cacheprovider -p no:xdist -p no:cov".split(), "--hypothesis-seed=0"],
        "pytest_add_cli_args_test_selection": tests,
        "type_check_command": [
            "mypy", "--strict", "--output=json", "--no-warn-unused-ignores",  # mutmut puts ignores that nothing needs
            f"--cache-dir={ROOT / 'build/mypy-of-mutants'}", *sorted(wanted),
        ],
        "use_git_change_detection": False,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]  # such JSON is TOML, too
    with (tree / "pyproject.toml").open("a") as configuration:
        configuration.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")
    patterns = [f"{_dotted(module)}.{_mangled(name)}__mutmut_*" for module, names in wanted.items() for name in names]
    done = subprocess.run(
        [Path(sys.executable).parent / "mutmut", "run", *patterns],
        cwd=tree,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=False,
    )
    found = {module: _found(tree / "mutants", module, names) for module, names in wanted.items()}
    if done.returncode and any(one is None for one in found.values()):
        raise SystemExit("mutmut did not come to its end: see above")
    return {module: one or Found() for module, one in found.items()}


def _found(made: Path, module: str, names: list[str]) -> Found | None:
    """Sort the mutants of a module by what became of them; None if one of them was not tried."""
    codes: dict[str, int | None] = json.loads((made / f"{module}.meta").read_text())["exit_code_by_key"]
    found = Found()
    for name, mutant in mutants((made / module).read_text()).items():
        if mutant is None or (names and mutant.function not in names):
            continue
        code = codes[f"{_dotted(module)}.{name}"]
        if code is None:
            return None
        if code in KILLED:
            found.tests[mutant.function] += 1
        elif code == TYPED:
            found.types[mutant.function] += 1
        else:
            found.survivors.append(mutant)
    return found


def _dotted(module: str) -> str:
    return module.removesuffix(".py").replace("/", ".")


def _mangled(function: str) -> str:
    of, _, name = function.rpartition(".")
    return f"xǁ{of}ǁ{name}" if of else f"x_{name}"


def copied(root: Path, tree: Path) -> None:
    """Copy what is under version control, or will be, and the tests need."""
    shutil.rmtree(tree, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    where = ["iot_agent", "cloud", "tests", "config", "setup.cfg", "pyproject.toml"]
    names = subprocess.run([*listed, *where], cwd=root, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (root / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)


# ---- the baseline -----------------------------------------------------------------------------------------------------


def read_baseline(text: str) -> dict[str, dict[str, Row]]:
    """Read `baseline.json`."""
    return {module: {name: Row(**row) for name, row in rows.items()} for module, rows in json.loads(text).items()}


def written(baseline: dict[str, dict[str, Row]]) -> str:
    """Write `baseline.json`, a line for each function."""
    modules = []
    for module, rows in sorted(baseline.items()):
        lines = [f"    {json.dumps(name)}: {json.dumps(vars(row))}" for name, row in sorted(rows.items())]
        modules.append(f"  {json.dumps(module)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(modules) + "\n}\n"


def judged(
    source: str, rows: dict[str, Row], names: list[str], found: Found, explained: dict[Mutant, str]
) -> tuple[dict[str, Row], list[Mutant], list[Mutant]]:
    """Return the module's rows with what was found of `names`; the survivors, and the explanations, that stand alone."""
    alone = [mutant for mutant in found.survivors if mutant not in explained]
    idle = [mutant for mutant in explained if mutant.function in names and mutant not in found.survivors]
    excused = Counter(mutant.function for mutant in found.survivors if mutant in explained)
    fresh = dict(rows)
    bad = {mutant.function for mutant in alone}
    now = functions(source)
    for name in names:
        fresh[name] = Row(now[name], found.tests[name], found.types[name], excused[name])
        if name in bad:
            fresh[name] = Row("survivors")  # no source has this hash, so it is run again
    fresh[CONSTANTS] = Row(now[CONSTANTS])
    return {name: row for name, row in fresh.items() if name in now}, alone, idle


def totals(baseline: dict[str, dict[str, Row]], survivors: Counter[str]) -> dict[str, Any]:
    """Add up what `--json` writes."""
    modules = {}
    for module, rows in sorted(baseline.items()):
        killed = sum(row.tests + row.types for row in rows.values())
        explained = sum(row.explained for row in rows.values())
        modules[module] = {"killed": killed, "total": killed + explained + survivors[module], "explained": explained}
    return {
        **{key: sum(one[key] for one in modules.values()) for key in ("killed", "total", "explained")},
        "modules": modules,
    }


def main() -> int:
    """Run as the arguments say; 1 for a survivor, an idle explanation, or a module under the floor."""
    arguments = argparse.ArgumentParser(prog="make mutate", description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("modules", nargs="*", help="narrow it to the modules whose path has this in it")
    arguments.add_argument("--changed", action="store_true", help="only functions that are not as in baseline.json")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the counts to this file")
    options = arguments.parse_args()
    chosen = [m for m in SUITES if not options.modules or any(part in m for part in options.modules)]
    if not chosen:
        arguments.error(f"no module has {options.modules} in its path")
    sources = {module: (ROOT / module).read_text() for module in SUITES}
    baseline = read_baseline(BASELINE.read_text()) if BASELINE.exists() else {}
    baseline = {module: baseline.get(module, {}) for module in SUITES}
    explained = read_explained(EXPLAINED.read_text())
    for module in chosen:
        check_quotes(module, sources[module], explained[module])
    wanted = {m: changed(sources[m], baseline[m] if options.changed else {}) for m in chosen}
    wanted = {module: names for module, names in wanted.items() if names}
    survivors: Counter[str] = Counter()
    wrong = []
    if wanted:
        print(f"trying {sum(map(len, wanted.values()))} functions of {len(wanted)} modules", flush=True)
        copied(ROOT, ROOT / "build/mutation")
        for module, found in run(ROOT / "build/mutation", wanted, SUITES).items():
            baseline[module], alone, idle = judged(
                sources[module], baseline[module], wanted[module], found, explained[module]
            )
            survivors[module] = len(alone)
            wrong += ["\n".join([f"{module} {m.function}", *m.difference, "= SURVIVED", ""]) for m in alone]
            wrong += ["\n".join([f"{module} {m.function}", *m.difference, "= explained, but killed", ""]) for m in idle]
        BASELINE.write_text(written(baseline))
    counted = totals(baseline, survivors)
    for module in chosen:
        one = counted["modules"][module]
        share = one["killed"] / one["total"] if one["total"] else 1.0
        print(
            f"{module:36} {one['killed']:4} of {one['total']:4} killed, {100 * share:5.1f} %; {one['explained']} explained"
        )
        if share < FLOOR:
            wrong.append(f"{module}: fewer than {100 * FLOOR:.0f} % are killed")
    if options.json:
        options.json.write_text(json.dumps(counted, indent=1) + "\n")
    print("\n".join(["", *wrong]) if wrong else "every mutant is killed or explained")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Rotten as rotten:
        sys.exit(f"explained.txt: {rotten}")
