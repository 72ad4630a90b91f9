"""The clock, and what the kernel says of who keeps it."""

import ctypes

TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def synchronised() -> bool | None:
    """Ask the kernel whether NTP keeps the clock; None where it does not say (a container may forbid the question)."""
    timex = ctypes.create_string_buffer(512)  # struct timex with room to spare; all zero: change nothing, only tell
    try:
        state = ctypes.CDLL(None).adjtimex(timex)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state != TIME_ERROR)
