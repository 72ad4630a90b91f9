"""What our command lines share: wrong arguments end with 64 (EX_USAGE, sysexits.h), not with argparse's 2."""

from __future__ import annotations

import argparse
import os

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which would be an eighth of agentctl's time
if TYPE_CHECKING:
    from typing import NoReturn

WITHOUT_A_TERMINAL = 80


class Parser(argparse.ArgumentParser):
    """An argument parser that speaks sysexits."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments and how they should be."""
        self.print_usage()
        self.exit(os.EX_USAGE, f"{self.prog}: {message}; try {self.prog} --help\n")

    def _get_formatter(self) -> argparse.HelpFormatter:
        """Tell the width: to find it out argparse would load shutil, with each argument that it is given."""
        return self.formatter_class(prog=self.prog, width=_columns() - 2)  # type: ignore[call-arg]  # all of them take it


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size().columns or WITHOUT_A_TERMINAL
    except OSError:
        return WITHOUT_A_TERMINAL
