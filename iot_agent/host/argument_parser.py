"""The argument parser of our programs: wrong arguments end with 64 (EX_USAGE, sysexits.h), not with argparse's 2."""

import argparse
import os
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser with the exit status of sysexits.h."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and how they should be."""
        self.print_usage(sys.stderr)
        self.exit(os.EX_USAGE, f"{self.prog}: {message}; try {self.prog} --help\n")
