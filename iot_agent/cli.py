"""What our command lines share: wrong arguments end with 64 (EX_USAGE, sysexits.h), not with argparse's 2."""

import argparse
import os
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser that speaks sysexits."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments and how they should be."""
        self.print_usage()
        self.exit(os.EX_USAGE, f"{self.prog}: {message}; try {self.prog} --help\n")
