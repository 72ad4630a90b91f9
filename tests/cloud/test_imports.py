"""Rooms of the cloud import only rooms below them; the Lambda's zip holds nothing but its own."""

import ast
from pathlib import Path

import pytest

CLOUD = Path(__file__).parents[2] / "cloud"
FLOOR_OF = {
    "rotation": 0,  # the Lambda: its zip has this folder and nothing else
    "common": 1,  # what the operator's programs share; an order goes through the Lambda's own rules
    "setup": 2,
    "fleet": 3,  # it finds a stack as setup made it
    "local": 2,  # a cloud on this machine
    "costs": 3,
    "__init__": 0,
}
MODULES = {".".join(path.relative_to(CLOUD).with_suffix("").parts): path for path in CLOUD.rglob("*.py")}


def room(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def imported(path: Path) -> set[str]:
    """Name the modules of `cloud` that a module imports, also those it needs for annotations only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cloud."):
            found.add((node.module or "").removeprefix("cloud."))
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("cloud.") for alias in node.names if alias.name.startswith("cloud.")}
    return found


def climbs(name: str, others: set[str]) -> set[str]:
    here = room(name)
    return {other for other in others if room(other) != here and FLOOR_OF[room(other)] >= FLOOR_OF[here]}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_room_imports_only_rooms_below_it(name: str) -> None:
    assert climbs(name, imported(MODULES[name])) == set()


def test_a_room_that_climbs_is_noticed() -> None:
    assert climbs("setup.factory", {"fleet.connect", "common.errors"}) == {"fleet.connect"}
    assert climbs("rotation.handler", {"common.progress"}) == {"common.progress"}
