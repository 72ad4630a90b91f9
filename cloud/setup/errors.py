"""How setup fails: with what is wrong and what to do about it, never with a traceback."""

from __future__ import annotations


class SetupError(Exception):
    """`problem` says what is wrong, `remedy` what the operator can do about it."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
