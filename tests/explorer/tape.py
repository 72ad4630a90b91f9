"""Production code run over a log of its calls, so that it can be stopped before any call, copied, and resumed.

A process (a step of the device, a run of the Lambda, an order) is kept as what it was started with and the answers
that it has had. To go on, it is run again from its start: it hears the recorded answers, makes `live` further calls for
real, and is stopped before the one after them. So a process is a value, and no thread is needed to interleave two of
them at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ALL = 1 << 60
"""As many calls as the process makes."""


class Paused(BaseException):
    """The process is stopped before its next call. Not an Exception: nothing in it may notice."""


@dataclass(frozen=True)
class Raised:
    """An answer that is an exception."""

    error: Exception

    def again(self) -> Exception:
        """Give the exception as new: what it dragged along the last time is dropped."""
        self.error.__context__ = self.error.__cause__ = None
        return self.error.with_traceback(None)


class Tape:
    """The answers so far, and how many calls may still be made; the first fails with `instead`, if that is given."""

    def __init__(
        self, answers: tuple[Any, ...], live: int, judge: Callable[[], None], instead: Exception | None = None
    ) -> None:
        self.answers = list(answers)
        self.calls = 0  # with the recorded ones
        self._at = 0
        self._live = live
        self._judge = judge
        self._instead = instead

    def call(self, name: str, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - any call's answer
        """Make a call that others can come before; `judge` looks at the world after it."""
        if self._at < len(self.answers):
            self.calls += 1
            return self._recorded()
        if self._live <= 0:
            raise Paused(name)
        self._live -= 1
        self.calls += 1
        try:
            return self._made(act if self._instead is None else self._fail)
        finally:
            self._judge()

    @property
    def so_far(self) -> tuple[Any, ...]:
        """The answers to keep: none before the first call, for a process that waits sees the world as it begins."""
        return tuple(self.answers) if self.calls else ()

    def note(self, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - likewise
        """Do what nobody can come between, such as a look at a clock; it is recorded all the same."""
        return self._recorded() if self._at < len(self.answers) else self._made(act)

    def _fail(self) -> None:
        instead, self._instead = self._instead, None
        assert instead is not None
        raise instead

    def _recorded(self) -> Any:  # noqa: ANN401 - likewise
        answer = self.answers[self._at]
        self._at += 1
        if isinstance(answer, Raised):
            raise answer.again()
        return answer

    def _made(self, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - likewise
        self._at += 1
        try:
            answer = act()
        except Exception as error:
            self.answers.append(Raised(error))
            raise
        self.answers.append(answer)
        return answer
