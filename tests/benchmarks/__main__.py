"""Measures, compares, and writes docs/benchmarks.md with its plot. `make bench` runs it; about three minutes."""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.local.handle import LocalCloud
from tests.benchmarks import lives, peers, processes, report
from tests.benchmarks.report import Paired
from tests.benchmarks.wire import Relay
from tests.end_to_end.conftest import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


ROOT = Path(__file__).parents[2]
WATCHDOG_S = 120  # as the unit has it


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--lives", type=int, default=7, help="onboardings and rotations, each beside the floor")
    parser.add_argument("--idle", type=float, default=60, help="seconds to watch the idle daemons")
    parser.add_argument("--calls", type=int, default=21, help="runs of each command line")
    options = parser.parse_args()
    if absent := peers.missing():
        print(f"to compare with, install: apt-get install {' '.join(absent)}", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say("a local cloud and a stack …")
        here = Stack(stack.enter_context(LocalCloud(directory / "cloud")), directory)
        figures = measure(stack, here, directory, options)
    (ROOT / "docs/benchmarks.md").write_text(report.page(figures, machine()), encoding="utf-8")
    (ROOT / "docs/benchmarks.svg").write_text(report.plot(figures), encoding="utf-8")
    say("written: docs/benchmarks.md, docs/benchmarks.svg")
    print("\n".join(report.lines(figures)))
    return 0


def measure(stack: ExitStack, here: Stack, directory: Path, options: argparse.Namespace) -> report.Figures:
    """Measure all."""
    where = here.cloud.description
    relay = Relay(where.mqtt_port)
    found, floors = [], []
    for number in range(options.lives):
        say(f"life {number + 1} of {options.lives}, and its floor …")
        found.append(lives.live(lives.device(here, relay.port), relay))
        floors.append(lives.floor(lives.device(here, where.mqtt_port), where.mqtt_host, where.mqtt_port))
    say("one rotation under strace …")
    commits = lives.commits(lives.device(here, where.mqtt_port))
    agent = lives.Agent(lives.device(here, where.mqtt_port), WATCHDOG_S)
    stack.callback(agent.stop)
    agent.until(lives.SETTLED)
    others = peers.Peers(stack, directory, lives.PROGRAMS / "python")
    say(f"idle daemons, for {options.idle:.0f} s …")
    idle = processes.watch_together({"iot-agent": agent.process.pid, **others.pids}, options.idle)
    say("command lines …")
    status: list[str | Path] = [lives.PROGRAMS / "agentctl", "--run", agent.bundle / "run", "status"]
    commands = {
        "agentctl status": lambda: subprocess.run(status, capture_output=True, check=True),
        "getcert list": others.list_certificates,
        "python3 -c pass": lambda: subprocess.run([lives.PROGRAMS / "python", "-c", "pass"], check=True),
    }
    return report.Figures(
        idle=idle,
        onboarding=Paired([one.onboarding for one in found], [one["onboarding"] for one in floors]),
        rotation=Paired([one.rotation for one in found], [one["rotation"] for one in floors]),
        ready=statistics.median(one.ready for one in found),
        wire=max(one.wire for one in found),
        worker_peak=max(one.worker_peak for one in found),
        commits=commits,
        commands=timed(commands, options.calls),
    )


def timed(commands: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Return the median seconds of each, taken in turn so that all see the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, run in commands.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def machine() -> str:
    """Say what it was measured on."""
    model = next(
        (
            line.split(": ")[1]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{platform.system()} {platform.release().split('-')[0]}, {model}, Python {platform.python_version()}"


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
