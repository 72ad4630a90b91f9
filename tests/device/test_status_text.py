"""Reports and histories, written for a person."""

from typing import Any

import pytest

from iot_agent.status import text
from tests.device.reports import failing, report


def lines(shown: dict[str, Any]) -> dict[str, str]:
    """Give the lines of a report by their names; `` is the first."""
    first, *rest = text.status(shown).splitlines()
    return {"": first} | {line[2:16].rstrip(): line[16:] for line in rest}


def test_a_report_names_what_is_known() -> None:
    assert lines(report()) == {
        "": "SN-0001  acked  (waiting)",
        "health": "good",
        "daemon": "running, version 0.1.0",
        "identity": "abababababababab… (iot-agent-1)",
        "valid": "1970-01-01 00:16:40Z to 1970-01-01 00:33:20Z, in 8 min",
        "renewal": "1970-01-01 00:28:20Z, in 3 min",
        "next": "wait, now",
        "rotations": "3",
        "last contact": "5 min ago",
    }


def test_an_error_is_written_with_its_remedy() -> None:
    shown = lines(report(failing(2)))
    assert shown["last error"] == "request: no route [unreachable], 100 s ago"
    assert shown["what to do"] == "Check the network."


def test_each_problem_of_a_configuration_is_a_line_of_its_own() -> None:
    written = text.status(report(configuration={"error": "a:1: x\na:2: y", "remedy": "Correct it."}))
    assert "  configuration a:1: x\n                a:2: y\n  what to do    Correct it." in written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "now"), (119, "in 119 s"), (120, "in 2 min"), (7200, "in 2 h"), (-172800, "2 days ago")],
)
def test_a_distance_in_time_has_one_unit(seconds: int, written: str) -> None:
    assert text._in(1_000_000 + seconds, 1_000_000) == written


@pytest.mark.parametrize("moment", [-1, 0, text.LAST, text.LAST + 1, 10**30])
def test_no_moment_is_too_odd_to_be_written(moment: int) -> None:
    assert text.history([{"at": moment, "event": "issued", "detail": ""}])
