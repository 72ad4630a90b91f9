"""What the kernel says about the clock."""

import ctypes

TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def synchronised() -> bool | None:
    """Ask the kernel whether the clock is synchronised; None if it does not say (a container may forbid the call)."""
    timex = ctypes.create_string_buffer(512)  # struct timex and more; all zero: change nothing, only report
    try:
        state = ctypes.CDLL(None).adjtimex(timex)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state != TIME_ERROR)
