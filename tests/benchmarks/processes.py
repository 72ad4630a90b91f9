"""What the kernel says of a process: memory, wake-ups, writes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

KIB = 1024


@dataclass(frozen=True)
class Idle:
    """A process that has nothing to do: KiB of memory, threads, and per hour: wake-ups and bytes written."""

    name: str
    rss: int
    private_dirty: int
    threads: int
    wakeups: float
    written: float


def memory(pid: int) -> tuple[int, int]:
    """Return resident and private dirty KiB (proc(5), smaps_rollup)."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Rss"].split()[0]), int(fields["Private_Dirty"].split()[0])


def threads(pid: int) -> list[str]:
    """Return the ids of the threads."""
    return [task.name for task in Path(f"/proc/{pid}/task").iterdir()]


def switches(pid: int) -> int:
    """Return how often its threads were put on a CPU after they had waited."""
    count = 0
    for thread in threads(pid):
        for line in Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                count += int(line.split()[1])
    return count


def written(pid: int) -> int:
    """Return the bytes it has handed to write(2) and its like (proc(5), io, wchar)."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["wchar"])


def watch_together(processes: dict[str, int], seconds: float) -> list[Idle]:
    """Watch them through the same stretch of time."""
    before = {name: (switches(pid), written(pid)) for name, pid in processes.items()}
    time.sleep(seconds)
    found = []
    for name, pid in processes.items():
        if not Path(f"/proc/{pid}/smaps_rollup").exists() or "(zombie)" in Path(f"/proc/{pid}/status").read_text():
            raise RuntimeError(f"{name} has ended while it was watched")
        rss, dirty = memory(pid)
        woken, wrote = switches(pid) - before[name][0], written(pid) - before[name][1]
        found.append(Idle(name, rss, dirty, len(threads(pid)), woken * 3600 / seconds, wrote * 3600 / seconds))
    return found


def peak(pid: int) -> int:
    """Return the most KiB that were ever resident (proc(5), status, VmHWM); 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")), 0)
