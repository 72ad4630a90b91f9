"""Protects a process that uses a key, a PIN or a broker (core dumps, tracing, memory), and ends it with its parent.

If a sandbox forbids one of these, the process goes on: it is an additional protection only, and a process that refused
to work would leave the device without a certificate.
"""

import contextlib
import ctypes
import os
import resource
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # of <linux/prctl.h>
# Memory that a worker may write to. Measured: 35 MiB with a key in a file, 52 MiB with SoftHSM, 76 MiB with a
# TPM, of which 8 MiB are each thread's stack; so this is twice the most. The size of the address space (RLIMIT_AS)
# cannot be limited instead: with mapped libraries and unused reservations it is 280 to 430 MiB, more than the unit's
# MemoryMax.
MEMORY = 96 * 1024 * 1024  # bytes, beside the stacks
THREADS = 8
USUAL_STACK = 8 * 1024 * 1024  # bytes


def keep_private() -> None:
    """Forbid core dumps and ptrace: this process's memory must reach no disk and no process of another user."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_DUMPABLE, 0)


def limit_memory() -> None:
    """Limit the memory of this process, and of those that it starts.

    Beyond the limit Python raises `MemoryError`, and a native library ends the process: so a broker can cost one
    attempt and no more. From Linux 4.7 on, private memory that can be written to counts (getrlimit(2), RLIMIT_DATA).
    """
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    room = MEMORY + THREADS * (USUAL_STACK if stack == resource.RLIM_INFINITY else stack)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = room if hard == resource.RLIM_INFINITY else min(room, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, `parent`, ends, even inside a library that hangs."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(os.EX_TEMPFAIL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
