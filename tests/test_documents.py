"""What the documents say is so: commands exist, links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "tests/contract/README.md"]
README = (ROOT / "README.md").read_text()
COMMANDS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    ") and line.strip()]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)


def test_the_readme_has_commands() -> None:
    assert {command.split()[0] for command in COMMANDS} >= {"make", "cloud/setup.sh", "agentctl", "systemctl"}


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_every_make_target_of_the_readme_exists(command: str) -> None:
    assert run("make", "--dry-run", command.split()[1]).returncode == 0


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("cloud/setup.sh ")])
def test_every_option_of_setup_in_the_readme_exists(command: str) -> None:
    _, verb, *rest = command.split()
    shown = run("cloud/setup.sh", verb, "--help").stdout
    assert shown.startswith(f"usage: cloud/setup.sh {verb}")
    assert all(option in shown for option in rest if option.startswith("--"))


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
