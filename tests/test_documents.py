"""What the documents say is so: commands and tests exist, links lead somewhere."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "tests/contract/README.md"]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
COMMANDS = [
    line.split("#")[0].strip().removeprefix("sudo ")
    for line in README.splitlines()
    if line.startswith("    ") and line.strip()
]

PARSERS = {"cloud/setup.sh": "cloud.setup.arguments", "cloud/iot-fleet": "cloud.fleet.arguments"}
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def shown() -> list[str]:
    """Return each line of a document that is one of our commands, typed as it stands there."""
    lines = [line.strip() for document in DOCUMENTS for line in document.read_text().splitlines() if line[:4] == "    "]
    return sorted({line for line in lines if line.split(" ")[0] in PARSERS})


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)


def test_the_readme_has_commands() -> None:
    assert {command.split()[0] for command in COMMANDS} >= {"make", "cloud/setup.sh", "agentctl", "iot-agent"}


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_every_make_target_of_the_readme_exists(command: str) -> None:
    assert run("make", "--dry-run", command.split()[1]).returncode == 0


def test_both_programs_of_the_cloud_are_shown() -> None:
    assert {command.split()[0] for command in shown()} == PARSERS.keys()


@pytest.mark.parametrize("command", shown())
def test_every_command_shown_is_one_that_its_parser_takes(command: str) -> None:
    program, *words = shlex.split(command, comments=True)
    assert importlib.import_module(PARSERS[program]).parse(words).command == words[0]


@pytest.mark.parametrize("command", ["cloud/setup.sh deploy --livetime 90d", "cloud/iot-fleet readmit SN-1 --until 3d"])
def test_a_command_that_the_parser_does_not_take_is_noticed(command: str) -> None:
    with pytest.raises(SystemExit):
        test_every_command_shown_is_one_that_its_parser_takes(command)


def missing_tests(document: str) -> list[str]:
    """Return the tests that a document names and that are not there."""
    named = NAMED_TEST.findall(document)
    return [f"{path}::{name}" for path, name in named if f"\ndef {name}(" not in _text(ROOT / path)]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_every_test_that_the_threat_model_names_is_there() -> None:
    document = (ROOT / "docs/threat-model.md").read_text()
    controls = [line for line in document.splitlines() if line.startswith("| ") and "tests/" in line]
    assert len(controls) > 20
    assert missing_tests(document) == []
    assert len(NAMED_TEST.findall(document)) == document.count("tests/"), "named in another way, so not looked for"


def test_a_test_that_is_not_there_is_noticed() -> None:
    assert missing_tests("`tests/test_documents.py::test_nothing`, `tests/gone.py::test_it`") != []
    assert missing_tests("`tests/test_documents.py::test_the_readme_has_commands`") == []


def named_files(document: str) -> set[str]:
    """Return the files of code that a document names; a path is below the checkout, `iot_agent` or `cloud`."""
    return set(re.findall(r"`(\w[\w/.-]*\.(?:py|yaml))`", document))


def missing_files(document: str) -> set[str]:
    """Return the paths that a document names and where no file is."""
    tops = (ROOT, ROOT / "iot_agent", ROOT / "cloud")
    paths = {name for name in named_files(document) if "/" in name}
    return {path for path in paths if not any((top / path).exists() for top in tops)}


def unlisted(half: str, document: str) -> set[str]:
    """Return the modules of `iot_agent` or `cloud` that no row of "To change X, open Y" names, nor their folder."""
    _, _, table = document.partition("## To change X, open Y")
    table, _, _ = table.partition("\n## ")
    modules = {str(path.relative_to(ROOT / half)) for path in (ROOT / half).rglob("*.py") if path.name != "__init__.py"}
    folders = tuple(re.findall(r"`([\w/]+/)`", table))
    return {name for name in modules - named_files(table) if not name.startswith(folders)}


@pytest.mark.parametrize("half", ["iot_agent", "cloud"])
def test_every_module_has_its_place_in_the_architecture(half: str) -> None:
    assert unlisted(half, ARCHITECTURE) == set()


def test_a_module_that_no_table_names_is_noticed() -> None:
    assert unlisted("iot_agent", ARCHITECTURE.replace("`core/schedule.py`", "it")) == {"core/schedule.py"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_code_that_a_document_names_is_there(document: Path) -> None:
    assert missing_files(document.read_text()) == set()


def test_a_file_that_has_moved_is_noticed() -> None:
    assert missing_files("`core/schedule.py`, `keys/ring.py`") == {"keys/ring.py"}


def test_every_alarm_is_in_the_operators_document() -> None:
    names = re.findall(r"AlarmName: !Sub \${AWS::StackName}-([\w-]+)", (ROOT / "cloud/template.yaml").read_text())
    rows = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([\w-]+…?)`", row)}
    groups = tuple(name.removesuffix("…") for name in told if name.endswith("…"))
    assert names
    assert [name for name in names if name not in told and not name.startswith(groups)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_into_a_document_finds_its_heading(document: Path) -> None:
    for name, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text()):
        target = document.parent / name if name else document
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{anchor} is no heading of {target.name}"


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.split()[0] in ("agentctl", "iot-agent")]
)
def test_every_option_of_our_programs_in_the_readme_exists(command: str) -> None:
    program, *rest = command.split()
    verb = [word for word in rest[:1] if not word.startswith("-")]
    module = "iot_agent.main" if program == "iot-agent" else "iot_agent.agentctl"
    shown = run(sys.executable, "-m", module, *verb, "--help")
    assert shown.returncode == 0
    assert all(option in shown.stdout for option in rest if option.startswith("--"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []
