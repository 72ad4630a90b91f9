"""What tests need to run the real programs: an agent with its own directories, and patience."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from iot_agent.core.record import Record
from iot_agent.host import control_socket

PATIENCE = 30.0
T = TypeVar("T")


class NoApplications:
    """The `Applications` port of a device on which only the agent uses the identity."""

    def prepare(self, record: Record) -> None: ...

    def publish(self, record: Record) -> None: ...


class Agent:
    """An agent in `directory`, whose agent.yaml keeps state and socket in `state` and `run` beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None

    def command(self) -> list[str]:
        return [sys.executable, "-m", "iot_agent.main", "--config", str(self.directory / "agent.yaml")]

    def start(self, **environment: str) -> subprocess.Popen[str]:
        log = (self.directory / "log").open("a")
        self.process = subprocess.Popen(
            self.command(), stderr=log, text=True, env={**os.environ, **environment}, start_new_session=True
        )
        wait_for(lambda: (self.directory / "run" / "control.sock").exists() and self.status())
        return self.process

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = control_socket.ask(self.directory / "run" / "control.sock", "status")["status"]
        return shown

    def history(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = control_socket.ask(self.directory / "run" / "control.sock", "history")["history"]
        return events

    @property
    def serial(self) -> str:
        return self.directory.name

    def settled(self, rotations: int) -> bool:
        """Say whether so many rotations are done and nothing is under way."""
        shown = self.status()
        resting = shown["state"] == "acked" and shown["next_step"]["kind"] == "wait"
        return bool(resting and shown["rotations"] >= rotations)

    def agentctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        where = ["--run", str(self.directory / "run"), "--state", str(self.directory / "state")]
        command = [sys.executable, "-m", "iot_agent.agentctl", *where, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def wait_for_changes(self, count: int) -> None:
        """Wait until its files and its worker have changed so many times; a while only, if nothing changes any more."""
        for _ in range(count):
            before = wait_for(self._seen)  # a file may go while it is looked at
            with contextlib.suppress(AssertionError):
                wait_for(lambda before=before: self._seen() != before, patience=1)  # type: ignore[misc]  # binds it

    def _seen(self) -> tuple[object, ...]:
        assert self.process is not None
        files = (self.directory / "state").rglob("*")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return children.read_text(), sorted((str(path), path.lstat().st_mtime_ns) for path in files)

    def worker(self) -> int:
        """Process id of the running worker."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(wait_for(lambda: children.read_text().split())[0])


IMPATIENT = """
import sys
if "iot_agent.config" in sys.orig_argv:
    from iot_agent.config import agent_yaml
    for key in ("limits.step", "limits.key_generation"):
        attribute = agent_yaml.SETTINGS[key].attribute
        agent_yaml.SETTINGS[key] = agent_yaml.Setting(attribute, agent_yaml._duration(1.0, 60.0), 60.0)
"""


def impatient(directory: Path) -> dict[str, str]:
    """Give an environment in which limits may be shorter than agent.yaml allows: a test need not wait so long."""
    there = directory / "impatient"
    there.mkdir(exist_ok=True)
    (there / "sitecustomize.py").write_text(IMPATIENT)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(there), os.environ.get("PYTHONPATH")]))}


def wait_for(look: Callable[[], T], patience: float = PATIENCE) -> T:
    """Look until there is something to see."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if seen := look():
                return seen
        time.sleep(0.05)
    raise AssertionError("it never came about")


def gone(pid: int) -> bool:
    """Say whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except FileNotFoundError:
        return True
