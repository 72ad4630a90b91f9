"""One run of mutmut, in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.mutation.ledger import Found
from tests.mutation.mutants import BODY_OF, made, opened

KILLED: Final = {1, 3, 24, -24, 36, 152, 255}  # mutmut's codes: a test failed, or ran out of time
TYPED: Final = 37  # mypy found an error in it
COPIED: Final = ("iot_agent", "cloud", "config", "tests", "setup.cfg", "pyproject.toml")
CODE: Final = ("iot_agent", "cloud")


def copied(root: Path, modules: list[str]) -> Path:
    """Copy what is, or can be, under version control to build/mutation, and open the properties of these modules."""
    tree = root / "build/mutation"
    shutil.rmtree(tree, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *COPIED]
    names = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if name and (root / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)
    for module in modules:
        (tree / module).write_text(opened((root / module).read_text()))
    return tree


def configured(tree: Path, modules: list[str], tests: list[str]) -> None:
    """Tell mutmut what to mutate and how to judge it."""
    settings = {
        "source_paths": [name for name in CODE if (tree / name).is_dir()],
        "also_copy": [name for name in ("config",) if (tree / name).is_dir()],
        "only_mutate": modules,
        "pytest_add_cli_args": ["-pno:cacheprovider", "-pno:xdist", "-pno:cov", "--hypothesis-seed=0"],
        "pytest_add_cli_args_test_selection": tests,
        "type_check_command": [
            "mypy", "--strict", "--output=json", f"--cache-dir={tree.parent / 'mypy-of-mutants'}",
            "--no-warn-unused-ignores",  # mutmut writes ignores that nothing needs
            *modules,
        ],
        "use_git_change_detection": False,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]  # such JSON is TOML, too
    with (tree / "pyproject.toml").open("a") as configuration:
        configuration.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def run(tree: Path, wanted: dict[str, list[str]], *, all_of_them: bool) -> dict[str, Found]:
    """Try the mutants of these functions, by module, or of all functions of these modules."""
    programs = Path(sys.executable).parent
    names = [] if all_of_them else [name for module, some in wanted.items() for name in _patterns(module, some)]
    done = subprocess.run(
        [programs / "mutmut", "run", *names],
        cwd=tree,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        check=False,
    )
    found = {module: _found(tree / "mutants", module, some) for module, some in wanted.items()}
    untried = [module for module, one in found.items() if one is None]
    if untried:
        raise SystemExit(f"mutmut ended with status {done.returncode} before it had tried all of {', '.join(untried)}")
    return {module: one for module, one in found.items() if one is not None}


def _patterns(module: str, names: list[str]) -> list[str]:
    """Return mutmut's names of all mutants of these functions."""
    patterns = []
    for name in names:
        of, _, last = name.rpartition(".")
        patterns += [f"x_{last}"] if not of else [f"xǁ{of}ǁ{last}", f"xǁ{of}ǁ{BODY_OF}{last}"]
    return [f"{_dotted(module)}.{pattern}__mutmut_*" for pattern in patterns]


def _found(tree: Path, module: str, names: list[str]) -> Found | None:
    """Sort the mutants of these functions by what became of them; None if one of them was not tried."""
    meta = tree / f"{module}.meta"
    if not meta.exists():
        return None
    codes: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
    found = Found()
    for name, mutant in made((tree / module).read_text()).items():
        if mutant is None or mutant.function not in names:
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
