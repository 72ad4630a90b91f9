"""What a process that sees a key or a PIN does before anything else, and how a child ends with its parent.

Each is a second line of defence, so where a sandbox forbids it the process goes on: refusing to work would leave the
device without a certificate.
"""

import contextlib
import ctypes
import os
import resource
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # of <linux/prctl.h>


def keep_private() -> None:
    """Let nothing of this process's memory reach a disk or another user's process: no core dump, no ptrace."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_DUMPABLE, 0)


def end_with(parent: int) -> None:
    """Be killed by the kernel when `parent`, which has started us, ends: even inside a library that hangs."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(os.EX_TEMPFAIL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
