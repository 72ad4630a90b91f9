"""How setup and the fleet's commands fail: with what is wrong and what to do about it, never with a traceback."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED: Final = 130  # what a shell reports of a program that Ctrl-C has ended


class SetupError(Exception):
    """`problem` says what is wrong, `remedy` what the operator can do about it."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def reported(program: str, run: Callable[[], int]) -> int:
    """Run a command; what it raises is told on standard error, in the program's name, and becomes its exit status."""
    try:
        return run()
    except SetupError as error:
        problem, remedy = error.problem, error.remedy
    except (ClientError, BotoCoreError) as error:
        problem, remedy = f"AWS says: {error}", "once that is solved, run the same command again"
    except OSError as error:
        problem = f"a file cannot be used: {error}"
        remedy = "choose another place, or put that one right, and run it again"
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{program}: interrupted; run the same command again to continue\n")
        return INTERRUPTED
    sys.stderr.write(f"{program}: {problem}\n" + (f"  what to do: {remedy}\n" if remedy else ""))
    return 1
