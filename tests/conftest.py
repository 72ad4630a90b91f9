import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# A run in a shell's background has SIGINT ignored, and every program under test would inherit that: Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def disk() -> Iterator[Path]:
    """Give a directory in memory: thousands of fsyncs cost nothing there; these tests are about order, not media."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private directory in it
    directory = Path(tempfile.mkdtemp(dir=shared_memory if os.access(shared_memory, os.W_OK) else None))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def package() -> Path:
    """Name the Debian package that `make deb` makes of this tree; at most one process makes it at a time."""
    root = Path(__file__).parents[1]
    (root / "build").mkdir(exist_ok=True)
    with (root / "build/deb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "deb"], cwd=root, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout
    (made,) = root.glob(f"dist/iot-agent_*_{architecture.strip()}.deb")
    return made


LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need root if this user is not root."""
    if os.geteuid() == 0:
        return
    left_out = [item for item in items if item.get_closest_marker("needs_root")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = len(left_out)


@pytest.hookimpl(optionalhook=True)  # without xdist, as `make mutate` runs the tests, nobody knows this hook
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - a class of xdist, which exports none
    """Learn from a worker of pytest-xdist, each of which collects all tests, how many it left out."""
    node.config.stash[LEFT_OUT] = node.workeroutput["left_out"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the number to the controller; with CI=true a test that is left out is a failure."""
    left_out = session.config.stash.get(LEFT_OUT, 0)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = left_out
    elif left_out and "ROOT_LATER" not in os.environ and os.environ.get("CI") == "true":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Count the tests that are left out in one line."""
    left_out = config.stash.get(LEFT_OUT, 0)
    if left_out:
        then = "run next, by sudo" if "ROOT_LATER" in os.environ else "did not run; run them with: sudo make test"
        terminalreporter.write_line(f"{left_out} tests need root and {then}", yellow=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """With CI=true a skipped test is a failure: what cannot run there has not been shown."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's own type for the yield is not exported
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
