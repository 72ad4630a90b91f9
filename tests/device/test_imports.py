"""Rooms may import only rooms below them; each library has one owner; what the resident process really holds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "iot_agent"
FLOORS = (
    {"core"},  # the rules: they can be tested and explored without a machine
    {"host", "storage"},  # the machine and the disk know the rules, and not each other
    {"keys", "status"},  # keys lie on the disk; a report may be read from it
    {"config"},  # the files that agent.yaml names are checked as keys and certificates are
    {"doctor", "resident", "worker"},  # three processes: what one imports must not be loaded into another
    {"agentctl", "main"},  # the programs wire them
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
OWNERS = {
    "cryptography": {"keys.certificates", "keys.remote_key"},
    "awscrt": {"worker.mqtt"},
    "awsiot": {"worker.mqtt"},
    "tenacity": {"worker.mqtt"},
    "pkcs11": {"keys.pkcs11_helper"},
    "yaml": {"config.agent_yaml"},
    "sdnotify": {"host.systemd"},
    "ssl": {"host.handshake"},
    "boto3": set(),
    "cloud": set(),
}
PURE = ("core.", "doctor.rules.")
ALSO_PURE = {
    "doctor.findings",
    "keys.pkcs11_uri",
    "keys.token_messages",
    "status.health",
    "status.report",
    "status.text",
    "storage.announcement",
    "storage.layout",
}
WORLDLY = {"os", "time", "socket", "subprocess", "selectors", "signal", "logging", "random", "secrets", "threading"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
PACKAGES = {".".join(["iot_agent", *path.parent.relative_to(PACKAGE).parts]) for path in PACKAGE.rglob("__init__.py")}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in PACKAGES:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def own(path: Path) -> set[str]:
    """Our own modules that a module imports; the package itself holds only the version."""
    names = {name.removeprefix("iot_agent.") for name in imports(path) if name.startswith("iot_agent.")}
    return names - {"__version__"}


def room(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def is_pure(name: str) -> bool:
    return name.startswith(PURE) or name in ALSO_PURE


def climbs(name: str, imported: set[str]) -> set[str]:
    """Tell what a module imports that is not of its own room, nor of a floor below."""
    here = room(name)
    return {other for other in imported if room(other) != here and FLOOR_OF[room(other)] >= FLOOR_OF[here]}


def test_every_room_has_its_floor_and_few_stand_at_the_front_door() -> None:
    assert {room(name) for name in MODULES} == FLOOR_OF.keys()
    assert len(list(PACKAGE.glob("*.py"))) <= 6


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_room_imports_only_rooms_below_it(name: str) -> None:
    assert climbs(name, own(MODULES[name])) == set()


def test_a_room_that_climbs_is_noticed() -> None:
    assert climbs("core.lifecycle", {"core.record", "storage.atomic"}) == {"storage.atomic"}
    assert climbs("resident.daemon", {"worker.mqtt", "core.codec"}) == {"worker.mqtt"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_library_has_one_owner(name: str) -> None:
    tops = {imported.split(".")[0] for imported in imports(MODULES[name])}
    assert {library for library in tops & OWNERS.keys() if name not in OWNERS[library]} == set()


@pytest.mark.parametrize("name", sorted(filter(is_pure, MODULES)))
def test_a_pure_module_sees_no_clock_file_socket_or_log(name: str) -> None:
    tops = {imported.split(".")[0] for imported in imports(MODULES[name])}
    assert tops & WORLDLY == set()
    assert all(map(is_pure, own(MODULES[name])))


def test_the_cloud_knows_nothing_of_the_device() -> None:
    for path in (PACKAGE.parent / "cloud").rglob("*.py"):
        assert not {name for name in imports(path) if name.split(".")[0] == "iot_agent"}, path


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["iot_agent.main", "iot_agent.agentctl"])
def test_the_resident_process_and_agentctl_carry_nothing_heavy(module: str) -> None:
    heavy = {"awscrt", "awsiot", "cryptography", "asyncio", "boto3", "pkcs11", "yaml", "tenacity", "_hashlib", "_ssl"}
    assert loaded_by(module) & heavy == set()


def test_the_check_for_heavy_modules_can_fail() -> None:
    assert {"awscrt", "cryptography"} <= loaded_by("iot_agent.worker.__main__")


def test_awscrt_and_python_pkcs11_are_never_in_one_process() -> None:
    """Both initialise a token's module, and together they end in a segmentation fault."""
    assert "pkcs11" not in loaded_by("iot_agent.worker.__main__")
    assert loaded_by("iot_agent.keys.pkcs11_helper") & {"awscrt", "cryptography", "pkcs11"} == {"pkcs11"}
