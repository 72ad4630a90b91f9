"""What a task needs of Debian is looked for first, and who may not install it is told in one line."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
TOOLS = ("bash", "dirname", "sort", "sed", "env", "test", "apt-get", "true")


@pytest.fixture
def bare() -> Iterator[Path]:
    """Give a directory that every user reaches, with the scripts and a `bin` that has nothing but the shell's tools."""
    with tempfile.TemporaryDirectory(prefix="iot-agent-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        for script in ("packages.sh", "as-root.sh"):
            shutil.copy(ROOT / "packaging" / script, place)
        (place / "bin").mkdir(mode=0o755)
        for tool in TOOLS:
            (place / "bin" / tool).symlink_to(shutil.which(tool) or tool)
        yield place


def ask(bare: Path, group: str) -> subprocess.CompletedProcess[str]:
    """Ask as a user who is not root, on a machine without sudo."""
    drop = [shutil.which("setpriv") or "", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*(drop if os.geteuid() == 0 else ()), str(bare / "packages.sh"), group]
    environment = {"PATH": str(bare / "bin")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )


def test_who_may_not_install_gets_the_command_and_nothing_runs(bare: Path) -> None:
    done = ask(bare, "tpm")
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("apt-get install")]
    assert {"swtpm", "tpm2-tools", "opensc"} < set(line.split())


def test_each_group_is_known_and_another_is_refused(bare: Path) -> None:
    for group in ("env", "deb", "test", "clean", "bench", "softhsm", "tpm"):
        assert ask(bare, group).returncode in (0, 1), group
    done = ask(bare, "nonsense")
    assert done.returncode == 64
    assert "there is no group nonsense" in done.stderr


def test_make_asks_for_the_group_that_each_task_needs() -> None:
    for target, group in (
        (["test"], "test"), (["deb"], "deb"), (["bench"], "bench"), (["test-clean"], "clean"), (["demo"], "env"),
        (["demo", "KEYS=tpm"], "env tpm"), (["demo", "KEYS=softhsm"], "env softhsm"),
    ):  # fmt: skip
        shown = subprocess.run(["make", "--dry-run", *target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert shown.stdout.splitlines()[0].rstrip() == f"packaging/packages.sh {group}"


PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
ORDINARY = "import os\nos.geteuid = lambda: 1000\n"


@pytest.mark.parametrize(
    ("ci", "later", "status", "told"),
    [
        ("", "", 0, "did not run; run them with: sudo make test"),
        ("true", "", 1, "did not run"),
        ("true", "1", 0, "run next, by sudo"),
    ],
)
def test_tests_that_need_root_are_left_out_and_counted(
    tmp_path: Path, ci: str, later: str, status: int, told: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ORDINARY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CI": ci} | ({"ROOT_LATER": later} if later else {})
    for workers in ("0", "1"):
        done = subprocess.run(
            [*PYTEST, "-n", workers, "tests/device/test_bundle.py"],
            capture_output=True, text=True, check=False, env=environment, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        [line] = [line for line in done.stdout.splitlines() if "need root" in line]
        assert told in line
        assert int(line.split()[0]) > 10
        assert " passed" in done.stdout
