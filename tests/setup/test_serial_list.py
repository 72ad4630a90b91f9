"""A list of serials is judged as a whole, before anything is done with it."""

import io
from pathlib import Path

import pytest

from cloud.common import serial_list
from cloud.common.errors import SetupError
from cloud.common.operator_input import listed_serials
from cloud.common.progress import shown
from cloud.rotation.messages import SERIAL

GOOD = [
    ("one a line", "SN-1\nSN-2\n"),
    ("with another system's line ends", "SN-1\r\nSN-2\r\n"),
    ("with a byte order mark", "\ufeffSN-1\nSN-2"),
    ("blank lines and remarks", "# the first batch\n\nSN-1\n   \nSN-2\n"),
    ("a CSV whose heading is written otherwise", "Colour,SERIAL\nred,SN-1\nblue,SN-2\n"),
    ("a CSV with a heading", "colour,serial\nred,SN-1\nblue,SN-2\n"),
    ("quoted", 'serial,remark\n"SN-1","a, b"\n"SN-2",x\n'),
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


def test_several_columns_need_a_heading() -> None:
    found, faults = serial_list.read(["red,SN-1", "blue,SN-2"], SERIAL)
    assert found == []
    assert [str(fault) for fault in faults] == [
        "line 1: 'red,SN-1' has several columns: begin the file with a line that names them, one of them serial"
    ]


def written(directory: Path, *lines: str) -> str:
    path = directory / "list"
    path.write_text("\n".join(lines))
    return str(path)


def test_many_wrong_lines_are_summed_up(tmp_path: Path) -> None:
    name = written(tmp_path, *["not a serial"] * 100_000)
    with pytest.raises(SetupError) as refused:
        listed_serials(name)
    told = refused.value.problem.splitlines()
    assert told[0] == f"nothing was done: in {name} 100000 lines are wrong:"
    assert told[-1] == "  … and 99980 more"
    assert len(told) == 22


@pytest.mark.parametrize("lines", [(), ("# nothing yet", "")])
def test_a_list_without_a_serial_is_refused(tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(SetupError, match="there is no serial in"):
        listed_serials(written(tmp_path, *lines))


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
