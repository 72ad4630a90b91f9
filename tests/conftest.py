import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """With CI=true a skipped test is a failure: what cannot run there has not been shown."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's own type for the yield is not exported
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
