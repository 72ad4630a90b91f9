"""Crashes and faults on demand: every effect of a life passes through a fuse, which may blow."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

DISK_CALLS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "symlink", "fsync")


class Crash(BaseException):
    """The power is gone. Not an Exception: nothing may catch it."""


class Fuse:
    """Counts effects; `blow` says, by count and name, whether this is the one before which the power goes."""

    def __init__(self, blow: Callable[[int, str], bool] = lambda _count, _name: False) -> None:
        self.count = 0
        self.names: list[str] = []
        self._blow = blow
        self.watch: Callable[[], None] = lambda: None

    def burn(self, name: str) -> None:
        """Announce an effect called `name` that is about to happen."""
        self.watch()
        self.count += 1
        self.names.append(name)
        if self._blow(self.count, name):
            raise Crash(f"effect {self.count}: {name}")

    @contextmanager
    def on_disk(self, directory: str) -> Iterator[None]:
        """Pass every system call that changes `directory` through this fuse."""

        def fused(name: str) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - stands in for any of them
                changed = arguments[1] if name == "symlink" else arguments[0]  # symlink(2) names what it makes last
                if isinstance(changed, int) or str(changed).startswith(directory):
                    self.burn(name)
                return real(*arguments, **keywords)

            return call

        real_open = os.open

        def open_fused(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:  # noqa: ANN401 - as os.open
            if flags & os.O_CREAT and str(path).startswith(directory):
                self.burn("open")
            return real_open(path, flags, *arguments, **keywords)

        calls: dict[str, Any] = {"open": open_fused, **{name: fused(name) for name in DISK_CALLS}}
        with mock.patch.multiple(os, **calls):
            yield
