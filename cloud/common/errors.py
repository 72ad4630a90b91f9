"""Errors of setup and of the fleet's commands: what is wrong and what to do about it, never a traceback."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED: Final = 130  # what a shell reports for a program that Ctrl-C ended


class SetupError(Exception):
    """`problem` says what is wrong, `remedy` what the operator can do about it."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def reported(program: str, run: Callable[[], int]) -> int:
    """Run a command and return its exit status; an error is written to standard error, after the program's name."""
    try:
        return run()
    except SetupError as error:
        problem, remedy = error.problem, error.remedy
    except (ClientError, BotoCoreError) as error:
        problem, remedy = f"AWS answers: {error}", "solve that and run the same command again"
    except OSError as error:
        problem = f"a file cannot be used: {error}"
        remedy = "correct that, or choose another place, and run the command again"
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{program}: interrupted; run the same command again to continue\n")
        return INTERRUPTED
    sys.stderr.write(f"{program}: {problem}\n" + (f"  what to do: {remedy}\n" if remedy else ""))
    return 1
