"""The catalogue names tests that are there, and the page says what its sources say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.evidence import catalogue, page, stages, summary
from tests.evidence.__main__ import PAGE
from tests.evidence.catalogue import ROWS, Row

WHOLE = Row(1, "a fault", "an outcome", ("evidence/test_evidence.py::test_every_fault_has_its_row",), "a bug",
            "evidence/test_evidence.py::test_a_row_that_lacks_something_is_noticed[no test]")  # fmt: skip


def test_every_fault_has_its_row() -> None:
    assert [row.number for row in catalogue.rows()] == list(ROWS)


@pytest.mark.parametrize("row", catalogue.rows(), ids=lambda row: str(row.number))
def test_a_row_is_whole_and_its_tests_are_there(row: Row) -> None:
    assert catalogue.faults_of(row) == []


@pytest.mark.parametrize(
    "row",
    [
        replace(WHOLE, tests=()),
        replace(WHOLE, caught=""),
        replace(WHOLE, tests=("evidence/test_evidence.py::test_that_nobody_wrote",)),
        replace(WHOLE, tests=("nowhere/test_evidence.py::test_every_fault_has_its_row",)),
        replace(WHOLE, open="for a reason"),
    ],
    ids=["no test", "no bug", "no such test", "no such file", "open and covered"],
)
def test_a_row_that_lacks_something_is_noticed(row: Row) -> None:
    assert catalogue.faults_of(WHOLE) == []
    assert len(catalogue.faults_of(row)) == 1


def test_a_row_is_covered_if_all_its_tests_ran_and_passed(tmp_path: Path) -> None:
    cases = {
        "test_every_fault_has_its_row": "",
        "test_a_row_that_lacks_something_is_noticed[no test]": "",
        "test_a_row_that_lacks_something_is_noticed[no bug]": "<failure/>",
        "test_that_was_left_out": "<skipped/>",
    }
    lines = [
        f'<testcase classname="tests.evidence.test_evidence" name="{name}">{end}</testcase>'
        for name, end in cases.items()
    ]
    (tmp_path / "junit.xml").write_text(f"<testsuites><testsuite>{''.join(lines)}</testsuite></testsuites>")
    ran = catalogue.passed(tmp_path / "junit.xml")
    file = "evidence/test_evidence.py"
    assert catalogue.covered(WHOLE, ran)
    assert not catalogue.covered(replace(WHOLE, caught=f"{file}::test_a_row_that_lacks_something_is_noticed"), ran)
    assert not catalogue.covered(replace(WHOLE, tests=(f"{file}::test_that_was_left_out",)), ran)
    assert not catalogue.covered(replace(WHOLE, tests=(), caught="", open="for a reason"), ran)


def test_a_stage_that_fails_is_told_with_all_that_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "BUILD", tmp_path)
    good = stages.Stage("good", ("echo", "it went well"), tmp_path / "good.json")
    bad = stages.Stage("bad", ("sh", "-c", "echo it broke; exit 1"), tmp_path / "bad.json")
    said: list[str] = []
    assert stages.run([good, bad], said.append) == [bad]
    assert sorted(line.split("s  ")[1].split() for line in said) == [
        ["bad", "it", "broke"],
        ["good", "it", "went", "well"],
    ]


def test_what_an_earlier_run_reported_is_not_taken_for_this_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "BUILD", tmp_path)
    (tmp_path / "lazy.json").write_text(json.dumps({"images": 1}))
    stages.run([stages.Stage("lazy", ("true",), tmp_path / "lazy.json")], lambda _: None)
    assert stages.report("lazy") == {}


def test_the_page_is_what_the_runs_and_the_catalogue_make_of_it() -> None:
    rendered = page.render(summary.runs(), catalogue.rows(), catalogue.found())
    assert PAGE.read_text() == rendered, "write it again: python -m tests.evidence page"


def test_the_last_run_that_is_kept_broke_no_promise_and_found_every_planted_bug() -> None:
    last = summary.runs()[-1]
    assert last.explorer["violations"] == last.powercut["violations"] == 0
    assert last.explorer["plants_found"] == last.explorer["plants"] > 0
    assert last.powercut["plants_found"] == last.powercut["plants"] > 0


def test_readme_says_on_its_first_screen_what_the_last_run_explored() -> None:
    first_screen = " ".join((stages.ROOT / "README.md").read_text().splitlines()[:30])
    assert page.in_three_lines(summary.runs()[-1], catalogue.rows()) in first_screen
