"""The catalogue of faults: what must come of each, which tests show it, and which planted bug one of them catches."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).parent
TESTS = HERE.parent
ROWS = range(1, 81)


@dataclass(frozen=True)
class Row:
    """One fault. `tests` and `caught` are PATH::NAME below tests/; `caught` may name one case, in brackets.

    A row that nothing covers yet has the reason in `open`, and no tests.
    """

    number: int
    fault: str
    outcome: str
    tests: tuple[str, ...] = ()
    bug: str = ""
    caught: str = ""
    open: str = ""

    @property
    def named(self) -> tuple[str, ...]:
        """Every test of the row."""
        return (*self.tests, *([self.caught] if self.caught else []))


@dataclass(frozen=True)
class Found:
    """A fault that these means have found: since which commit, by what, and the commit and the test of its repair."""

    what: str
    since: str
    by: str
    repaired: str
    test: str


def rows() -> list[Row]:
    """Read the catalogue, by number."""
    table = tomllib.loads((HERE / "catalogue.toml").read_text())["row"]
    return sorted((Row(**{**row, "tests": tuple(row.get("tests", ()))}) for row in table), key=lambda row: row.number)


def found() -> list[Found]:
    """Read the faults that were found."""
    return [Found(**one) for one in tomllib.loads((HERE / "found.toml").read_text())["found"]]


def faults_of(row: Row) -> list[str]:
    """Say what a row lacks: nothing, if it is complete."""
    if row.open:
        return [f"{row.number}: an open row has tests"] if row.named else []
    lacks = [f"{row.number}: no {what}" for what in ("tests", "bug", "caught") if not getattr(row, what)]
    return lacks + [f"{row.number}: {test} is not there" for test in row.named if not exists(test)]


def exists(test: str) -> bool:
    """Tell whether a test function of this name is in its file."""
    path, name = _without_case(test).split("::")
    file = TESTS / path
    return file.is_file() and f"\ndef {name}(" in file.read_text()


def passed(report: Path) -> set[str]:
    """Read the tests that passed from a report of pytest's, as PATH::NAME and, for a case, PATH::NAME[CASE].

    A test of several cases has passed if each of them has. Source: the JUnit format that `pytest --junitxml` writes.
    """
    good: set[str] = set()
    bad: set[str] = set()
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own file
        path = case.attrib["classname"].removeprefix("tests.").replace(".", "/") + ".py"
        test = f"{path}::{case.attrib['name']}"
        (bad if len(case) and any(child.tag in {"failure", "error", "skipped"} for child in case) else good).add(test)
    return {*good, *(_without_case(test) for test in good)} - {*bad, *(_without_case(test) for test in bad)}


def covered(row: Row, ran: set[str]) -> bool:
    """Tell whether every test of a row has run and passed."""
    return bool(row.named) and all(test in ran for test in row.named)


def _without_case(test: str) -> str:
    return re.sub(r"\[.*\]$", "", test, flags=re.DOTALL)
