"""What a process that sees a key, a PIN or a broker does before anything else, and how a child ends with its parent.

Each is a second line of defence, so where a sandbox forbids it the process goes on: refusing to work would leave the
device without a certificate.
"""

import contextlib
import ctypes
import os
import resource
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # of <linux/prctl.h>
# What a worker may write to. Measured in a session: 35 MiB with a key in a file, 52 MiB with SoftHSM, 76 MiB with a
# TPM, of which 8 MiB are each thread's stack; so this is twice the most. The size of the address space (RLIMIT_AS) is
# no measure: mapped libraries and unused reservations make it 280 to 430 MiB, which is more than the unit's
# MemoryMax.
MEMORY = 96 * 1024 * 1024  # bytes, beside the stacks
THREADS = 8
USUAL_STACK = 8 * 1024 * 1024  # bytes


def keep_private() -> None:
    """Let nothing of this process's memory reach a disk or another user's process: no core dump, no ptrace."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_DUMPABLE, 0)


def limit_memory() -> None:
    """Have the kernel refuse this process, and those that it starts, more memory than their work can need.

    Python then raises `MemoryError`, and a native library ends the process: either way one attempt is lost, whatever a
    broker sends. Private memory that can be written to counts, from Linux 4.7 on (getrlimit(2), RLIMIT_DATA).
    """
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    room = MEMORY + THREADS * (USUAL_STACK if stack == resource.RLIM_INFINITY else stack)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = room if hard == resource.RLIM_INFINITY else min(room, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def end_with(parent: int) -> None:
    """Be killed by the kernel when `parent`, which has started us, ends: even inside a library that hangs."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(os.EX_TEMPFAIL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
