"""What an operator gives to a command besides its options: an answer to a question, and a list of serials."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud.common import serial_list
from cloud.common.errors import SetupError
from cloud.rotation.messages import SERIAL

if TYPE_CHECKING:
    from cloud.common.serial_list import Row

FAULTS_SHOWN: Final = 20


def confirmed(question: str) -> bool:
    """Ask, and return whether the answer is yes; no answer is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def listed_serials(name: str) -> list[Row]:
    """Return the serials in the file `name`, `-` for standard input. SetupError names the lines that are wrong."""
    place = "standard input" if name == "-" else name
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"cannot read {place}: {error}", "give a text file with one serial a line") from error
    found, faults = serial_list.read(text.splitlines(), SERIAL)
    if faults:
        told = [f"  {fault}" for fault in faults[:FAULTS_SHOWN]]
        if len(faults) > FAULTS_SHOWN:
            told.append(f"  … and {len(faults) - FAULTS_SHOWN} more")
        counted = "1 line is" if len(faults) == 1 else f"{len(faults)} lines are"
        problem = f"nothing was done: in {place} {counted} wrong:\n" + "\n".join(told)
        raise SetupError(problem, "correct the list and run the same command again")
    if not found:
        raise SetupError(f"there is no serial in {place}", "give a text file with one serial a line")
    return found
