"""The limit of memory: what it refuses, and what it must leave possible."""

import resource
import subprocess
import sys

import pytest

from iot_agent.host import hardening

ALLOCATES = """
import threading
from iot_agent.host import hardening
hardening.limit_memory()
done = threading.Event()
threads = [threading.Thread(target=done.wait) for _ in range(hardening.THREADS - 1)]
for thread in threads:
    thread.start()
done.set()
for thread in threads:
    thread.join()
bytes({size})
"""


def allocate(size: int, stack: int | None = None) -> str:
    """Have a process start its threads and take so many bytes at once; gives the last line of its complaint."""
    limit = resource.getrlimit(resource.RLIMIT_STACK)

    def grow() -> None:
        if stack is not None:
            resource.setrlimit(resource.RLIMIT_STACK, (stack, limit[1]))

    done = subprocess.run(
        [sys.executable, "-c", ALLOCATES.format(size=size)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=grow,
    )
    return "".join(done.stderr.splitlines()[-1:])


def test_more_than_the_limit_is_refused() -> None:
    assert allocate(hardening.MEMORY + hardening.THREADS * hardening.USUAL_STACK) == "MemoryError"


@pytest.mark.parametrize("stack", [None, 64 * 2**20, resource.RLIM_INFINITY])
def test_stacks_of_any_size_leave_room_for_work(stack: int | None) -> None:
    """A machine may give each thread a larger stack; that must not stop a worker."""
    assert allocate(hardening.MEMORY // 2, stack) == ""
