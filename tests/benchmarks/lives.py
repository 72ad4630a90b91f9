"""The agent, as installed, living on a local cloud: how long, how much on the wire, how much on the disk."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iot_agent.host import control_socket
from tests.benchmarks import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.wire import Relay
    from tests.end_to_end.conftest import Stack

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "build/env/agent/bin"
PATIENCE_S = 60.0
SETTLED = "the certificate is active"


@dataclass(frozen=True)
class Life:
    """Seconds until READY, onboarding and a rotation; bytes on the wire of the rotation; KiB of the largest worker."""

    ready: float
    onboarding: float
    rotation: float
    wire: int
    worker_peak: int


class Agent:
    """The installed agent with the sd_notify socket in our hands: what it says is timed as it is said, not polled."""

    def __init__(self, bundle: Path, watchdog_s: int | None = None) -> None:
        self.bundle = bundle
        self._said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._said.bind(str(bundle / "notify"))
        self._heard: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._last = (0.0, "")
        threading.Thread(target=self._listen, daemon=True).start()
        environment = {**os.environ, "NOTIFY_SOCKET": str(bundle / "notify")}
        if watchdog_s:
            environment["WATCHDOG_USEC"] = str(watchdog_s * 1_000_000)
        self.begun = time.monotonic()
        with (bundle / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / "iot-agent", "--config", bundle / "agent.yaml"], stderr=log, env=environment
            )

    def until(self, what: str) -> float:
        """Wait until it says that, or has said it last; return when (monotonic)."""
        while what not in self._last[1]:
            try:
                self._last = self._heard.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise TimeoutError(f"{what} was not said; see {self.bundle / 'log'}") from None
        return self._last[0]

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while said := self._said.recv(4096).decode():
                if said != "WATCHDOG=1":
                    self._heard.put((time.monotonic(), said))

    def rotate(self) -> float:
        """Have it rotate; return the seconds until it is back at rest, with the old key gone."""
        begun = time.monotonic()
        assert control_socket.ask(self.bundle / "run/control.sock", "rotate")["ok"]
        self.until("STATUS=rotated")
        promoted = self.until("STATUS=acked")
        self.until(SETTLED)
        return promoted - begun

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        self._said.close()
        (self.bundle / "notify").unlink()


@contextlib.contextmanager
def largest_child(pid: int) -> Iterator[list[int]]:
    """Look at the process's children all the while; the list's one number is the most KiB that one ever had."""
    largest, over = [0], threading.Event()

    def look() -> None:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        while not over.wait(0.005):
            with contextlib.suppress(OSError):
                largest[0] = max([largest[0], *(processes.peak(int(child)) for child in children.read_text().split())])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield largest
    finally:
        over.set()
        looking.join()


def device(stack: Stack, port: int) -> Path:
    """Make a device at the factory whose broker is at `port`."""
    bundle = stack.new_device().directory
    settings = bundle / "agent.yaml"
    settings.write_text(re.sub(r"(?m)^  port: .*$", f"  port: {port}", settings.read_text()))
    return bundle


def live(bundle: Path, relay: Relay) -> Life:
    """Onboard and rotate once, through the relay."""
    agent = Agent(bundle)
    ready = agent.until("READY=1") - agent.begun
    onboarding = agent.until("STATUS=acked") - agent.begun
    agent.until(SETTLED)
    before = relay.counted
    with largest_child(agent.process.pid) as largest:
        rotation = agent.rotate()
    agent.stop()
    return Life(ready, onboarding, rotation, relay.counted - before, largest[0])


def floor(bundle: Path, host: str, port: int) -> dict[str, float]:
    """Do the same round trips with nothing around them."""
    words: list[str | Path] = [
        PROGRAMS / "python",
        "-m",
        "tests.benchmarks.floor",
        bundle,
        bundle.name,
        host,
        str(port),
    ]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True, timeout=120)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@dataclass(frozen=True)
class Commits:
    """How often the record was replaced, other files and links were, and the disk was told to keep something."""

    record: int
    others: int
    syncs: int


def commits(bundle: Path) -> Commits:
    """Rotate under strace and count."""
    agent = Agent(bundle)
    agent.until(SETTLED)
    trace = bundle / "trace"
    words: list[str | Path] = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-e",
        "trace=fsync,fdatasync,rename,renameat,renameat2",
        "-o",
        trace,
    ]
    with subprocess.Popen([*words, "-p", str(agent.process.pid)], stderr=subprocess.PIPE) as strace:
        time.sleep(1)  # until it is attached, of which it says nothing with -qq
        agent.rotate()
        strace.send_signal(signal.SIGINT)
    agent.stop()
    lines = trace.read_text().splitlines()
    renames = [line for line in lines if "rename" in line and line.endswith("= 0")]
    return Commits(
        record=sum('/state.json")' in line or 'state.json"' in line.rsplit(", ", 1)[-1] for line in renames),
        others=sum('state.json"' not in line.rsplit(", ", 1)[-1] for line in renames),
        syncs=sum("sync(" in line and line.endswith("= 0") for line in lines),
    )
