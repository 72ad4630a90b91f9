"""`make mutate` on a project of one rule: what it must notice, each planted."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.mutation.__main__ import Project, check
from tests.mutation.ledger import Rotten, check_quotes, read_baseline, read_explained
from tests.mutation.mutants import Mutant, hashes, made, opened

MODULE, TESTS = "iot_agent/rule.py", "tests/test_rule.py"
RULE = '''"""A room of rules."""

LIMIT = 3


def allowed(attempts: int) -> bool:
    """Say whether one more is allowed."""
    return attempts < LIMIT


def named(attempts: int) -> str:
    """Say it in a word."""
    return "yes" if allowed(attempts) else "no"
'''
STRONG = """
from iot_agent.rule import allowed, named

def test_up_to_the_limit() -> None:
    assert (allowed(2), allowed(3)) == (True, False)

def test_in_a_word() -> None:
    assert (named(2), named(4)) == ("yes", "no")
"""
WEAK = STRONG.replace("(allowed(2), allowed(3)) == (True, False)", "allowed(2)")
AT_THE_LIMIT = f"{MODULE} allowed\n- return attempts < LIMIT\n+ return attempts <= LIMIT\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Give a project with one rule, which its tests hold."""
    for name in ("iot_agent", "tests/mutation"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "iot_agent/__init__.py").write_text("")
    (tmp_path / "setup.cfg").write_text((Path(__file__).parents[2] / "setup.cfg").read_text())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    made_of = Project(tmp_path, {MODULE: [TESTS]})
    made_of.explained.write_text("")
    (tmp_path / MODULE).write_text(RULE)
    (tmp_path / TESTS).write_text(STRONG)
    return made_of


def tried(project: Project, *, only_changed: bool = False) -> list[str]:
    return check(project, [MODULE], only_changed=only_changed)


def test_a_weak_test_leaves_a_survivor_which_fails_the_run_until_it_is_explained(project: Project) -> None:
    assert tried(project) == [], "strong tests kill every mutant"
    (project.root / TESTS).write_text(WEAK)
    survivor, floor = tried(project)
    assert survivor == f"{AT_THE_LIMIT}= SURVIVED\n"
    assert "fewer than 95 %" in floor
    assert tried(project, only_changed=True) == [survivor, floor], "it is tried again, though its source is the same"
    project.explained.write_text(f"{AT_THE_LIMIT}= nobody comes a third time\n")
    (too_few,) = tried(project)
    assert "fewer than 95 %" in too_few, "explained or not, it was not killed"


def test_a_removed_test_leaves_survivors(project: Project) -> None:
    (project.root / TESTS).write_text(STRONG.partition("def test_in_a_word")[0])
    survivors = tried(project)
    assert any(f'{MODULE} named\n- return "yes" if' in survivor for survivor in survivors)


def test_only_what_was_changed_is_tried(project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    counts = tmp_path / "counts.json"
    assert check(project, [MODULE], only_changed=True, counts_file=counts) == []
    whole = json.loads(counts.read_text())
    assert whole["killed"] == whole["total"] == whole["modules"][MODULE]["killed"] > 5
    first = read_baseline(project.baseline.read_text())[MODULE]
    capfd.readouterr()
    assert tried(project, only_changed=True) == []
    assert "trying" not in capfd.readouterr().out, "nothing was changed, so nothing was tried"
    (project.root / MODULE).write_text(RULE.replace("attempts < LIMIT", "attempts <= LIMIT - 1"))
    assert tried(project, only_changed=True) == []
    assert "trying 1 functions of 1 modules" in capfd.readouterr().out
    now = read_baseline(project.baseline.read_text())[MODULE]
    assert now["named"] == first["named"]
    assert now["allowed"] != first["allowed"]


def test_a_function_that_is_gone_is_forgotten_without_a_run(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tried(project) == []
    capfd.readouterr()
    (project.root / MODULE).write_text(RULE.partition("def named")[0])
    assert tried(project, only_changed=True) == []
    assert "trying" not in capfd.readouterr().out
    assert set(read_baseline(project.baseline.read_text())[MODULE]) == {"allowed", "(tables and constants)"}


def test_a_changed_function_with_a_survivor_fails_the_run(project: Project) -> None:
    assert tried(project) == []
    (project.root / MODULE).write_text(RULE.replace("attempts < LIMIT", "attempts < LIMIT and attempts != 2"))
    (project.root / TESTS).write_text(STRONG.replace("(2)", "(1)"))
    survivors = tried(project, only_changed=True)
    assert any("+ return attempts < LIMIT and attempts != 3" in survivor for survivor in survivors)


def test_an_explanation_whose_mutant_is_killed_fails_the_run(project: Project) -> None:
    project.explained.write_text(f"{AT_THE_LIMIT}= nobody comes a third time\n")
    assert tried(project) == [f"{AT_THE_LIMIT}= explained, but no mutant survives so\n"]


def test_an_explanation_of_a_line_that_is_gone_fails_without_a_run() -> None:
    explained = read_explained(f"# why\n\n{AT_THE_LIMIT}= so\n", [MODULE])
    check_quotes(MODULE, RULE, explained[MODULE])
    for otherwise in (RULE.replace("< LIMIT", "<= LIMIT"), RULE.replace("def allowed", "def permitted")):
        with pytest.raises(Rotten, match="attempts < LIMIT"):
            check_quotes(MODULE, otherwise, explained[MODULE])


@pytest.mark.parametrize("text", [AT_THE_LIMIT, "elsewhere.py allowed\n- a\n+ b\n= so", f"{MODULE} allowed\na\n= so"])
def test_what_is_no_explanation_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(Rotten, match="no explanation"):
        read_explained(text, [MODULE])


def test_a_function_is_the_same_whatever_is_said_about_it_and_another_when_it_does_something_else() -> None:
    before = hashes(RULE)
    said = RULE.replace("Say it in a word.", "Tell it.").replace("LIMIT = 3", "LIMIT = 3  # times")
    assert hashes(said) == before
    done = hashes(RULE.replace('"no"', '"never"'))
    assert {name for name in before if done[name] != before[name]} == {"named"}
    assert {name for name, digest in hashes(RULE.replace("= 3", "= 4")).items() if digest != before[name]} == {
        "(tables and constants)"
    }


def test_the_body_of_a_property_is_opened_for_mutants() -> None:
    source = (
        "class Box:\n    size: int\n\n    @property\n    def large(self) -> bool:\n"
        '        """Say it."""\n        return self.size > 3\n'
    )
    namespace: dict[str, type] = {}
    exec(opened(source), namespace)  # noqa: S102 - our own text
    box = namespace["Box"]()
    box.size = 4
    assert (box.large, box.body_of_large()) == (True, True)


def test_a_change_of_wording_is_told_apart_from_a_change_of_a_word() -> None:
    original = 'def x_f__mutmut_orig() -> str:\n    return g("a-word", "two words")\n'
    mutants = [original.replace("orig", str(number)) for number in range(1, 5)]
    mutants[0] = mutants[0].replace("a-word", "XXa-wordXX")
    mutants[1] = mutants[1].replace("two words", "XXtwo wordsXX")
    mutants[2] = mutants[2].replace("two words", "TWO WORDS")
    mutants[3] = mutants[3].replace('"two words"', "None")
    found = made("\n".join([original, *mutants]))
    assert [name for name, mutant in found.items() if mutant is None] == ["x_f__mutmut_2", "x_f__mutmut_3"]
    assert found["x_f__mutmut_1"] == Mutant(
        "f", ('- return g("a-word", "two words")', '+ return g("XXa-wordXX", "two words")')
    )
