"""The permissions that docs/operations.md names for each command are those of the calls that it makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloud.setup import permissions
from tests.cloud.lambda_bench import before_each_call

if TYPE_CHECKING:
    from tests.fleet.conftest import Fleet

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
TABLES = {"GetItem", "PutItem", "Query", "Scan", "UpdateItem"}
FREE = {"GetCallerIdentity"}  # needs no permission


def told() -> dict[str, set[str]]:
    """Return the actions that the document names, by its row's commands."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*(?:dynamodb|iot):.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    found = {names.replace("`", ""): set(re.findall(r"(?:dynamodb|iot):\w+", cells)) for names, cells in rows}
    for row, other in (("revoke", "allow, readmit"), ("remove", "revoke")):
        found[row] |= {action for action in found[other] if action.startswith("iot:")}
    return found


@pytest.mark.parametrize(
    ("row", "lines"),
    [
        ("list, forecast", ["list", "forecast"]),
        ("show", ["show SN-1"]),
        ("rotate", ["rotate SN-1", "rotate --all"]),
        ("allow, readmit", ["allow SN-8", "allow SN-7", "readmit SN-1"]),
        ("revoke", ["revoke SN-1 --yes"]),
        ("remove", ["remove SN-1 --yes"]),
    ],
)
def test_a_commands_permissions_are_those_of_its_calls(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, row: str, lines: list[str]
) -> None:
    fleet.aboard()
    stranger = fleet.bench.vendor("SN-7")
    fleet.bench.deliver(fleet.bench.registered_event(stranger))
    called: set[str] = set()

    def note(_number: int, operation: str) -> None:
        called.update(["UpdateItem", "PutItem"] if operation == "TransactWriteItems" else [operation])

    with before_each_call(monkeypatch, note):
        for line in lines:
            assert fleet(line).status == 0
    assert {f"{'dynamodb' if name in TABLES else 'iot'}:{name}" for name in called - FREE} == told()[row]


def test_setup_asks_beforehand_for_what_allowing_a_device_out_of_quarantine_calls() -> None:
    """What stands in the way of its certificate is removed too, as for `revoke`."""
    called = {action for row in ("allow, readmit", "revoke") for action in told()[row] if action.startswith("iot:")}
    asked = {action for action in permissions.CALLS["device"] if action.startswith("iot:")}
    assert asked == called | {"iot:DescribeEndpoint"}


def test_every_command_has_a_row() -> None:
    assert {name for row in told() for name in row.split(", ")} == {
        "list",
        "forecast",
        "show",
        "rotate",
        "allow",
        "readmit",
        "revoke",
        "remove",
    }
