"""A list of serials is judged as a whole, before anything is done with it."""

import io

import pytest

from cloud.common import serial_list
from cloud.common.arguments import SERIAL
from cloud.common.progress import shown

GOOD = [
    ("one a line", "SN-1\nSN-2\n"),
    ("with another system's line ends", "SN-1\r\nSN-2\r\n"),
    ("with a byte order mark", "\ufeffSN-1\nSN-2"),
    ("blank lines and remarks", "# the first batch\n\nSN-1\n   \nSN-2\n"),
    ("a CSV, first column", "SN-1,red\nSN-2,blue\n"),
    ("a CSV with a heading", "colour,serial\nred,SN-1\nblue,SN-2\n"),
    ("quoted", '"SN-1","a, b"\n"SN-2",x\n'),
    ("heading after a byte order mark", "\ufeffserial,colour\nSN-1,red\nSN-2,blue\n"),
]


@pytest.mark.parametrize(("_what", "text"), GOOD)
def test_what_is_a_list(_what: str, text: str) -> None:
    found, faults = serial_list.read(text.splitlines(), SERIAL)
    assert [row.serial for row in found] == ["SN-1", "SN-2"]
    assert faults == []


def test_every_wrong_line_is_named() -> None:
    text = "SN-1\nSN 2\n\n../SN-3\nSN-1\n" + "x" * 65 + "\nSN-4\n"
    found, faults = serial_list.read(text.splitlines(), SERIAL)
    assert [(row.line, row.serial) for row in found] == [(1, "SN-1"), (7, "SN-4")]
    assert [fault.line for fault in faults] == [2, 4, 5, 6]
    assert str(faults[2]) == "line 5: 'SN-1' is there already, on line 1"


def test_a_row_without_its_column_is_wrong() -> None:
    _, faults = serial_list.read(["colour,serial", "red"], SERIAL)
    assert [fault.line for fault in faults] == [2]


class Terminal(io.StringIO):
    """Somewhere a person looks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()], ids=["terminal", "log"])
def test_a_terminal_sees_a_bar_and_a_log_a_line_now_and_then(out: io.StringIO) -> None:
    ticks = iter(range(100))
    assert list(shown(range(20), "devices", out, lambda: float(next(ticks)))) == list(range(20))
    said = out.getvalue()
    assert said.endswith("20 devices in 21 s\n")
    assert "9/20  1/s, 12 s left" in said
    if isinstance(out, Terminal):
        assert "[###############...............] 10/20" in said
        assert said.count("\n") == 1
    else:
        assert "[" not in said
        assert said.count("\n") == 3
