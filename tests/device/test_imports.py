"""Who may import whom: the table of ARCHITECTURE.md as a test, and what the resident process really holds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "iot_agent"
PURE = {
    "errors",
    "messages",
    "schedule",
    "record",
    "fallback",
    "lifecycle",
    "reconcile",
    "typed_json",
    "codec",
    "settings",
    "status",
    "render",
    "events",
    "health",
    "keys.uri",
}
OWNERS = {
    "cryptography": {"certificates"},
    "awscrt": {"mqtt"},
    "awsiot": {"mqtt"},
    "tenacity": {"mqtt"},
    "pkcs11": {"keys.pkcs11"},
    "yaml": {"config"},
    "sdnotify": {"systemd"},
    "ssl": {"handshake"},
    "boto3": set(),
    "cloud": set(),
}
PACKAGES = {"iot_agent", "iot_agent.keys", "iot_agent.doctor", "iot_agent.doctor.probes", "iot_agent.doctor.rules"}
RULES = ("clock", "cloud", "daemon", "disk", "files", "identities", "keystore", "network", "renewal")
PURE |= {"announcement", "doctor.findings", *(f"doctor.rules.{subject}" for subject in RULES)}
WORLDLY = {"os", "time", "socket", "subprocess", "selectors", "signal", "logging", "random", "secrets", "threading"}
ADAPTERS = {
    "store": {"codec", "durable", "events", "ports", "reconcile", "record"},
    "identities": {"durable", "record", "typed_json"},
    "keys.file": {"certificates", "durable", "errors", "ports"},
    "keys.pin": {"durable", "errors", "settings"},
    "keys.token": {"certificates", "durable", "errors", "keys.uri", "ports", "settings"},
    "mqtt": {"errors", "handshake", "inbox", "messages", "ports", "settings"},
    "handshake": set(),
    "inbox": set(),
    "process": set(),
    "control": set(),
    "systemd": {"errors"},
    "signals": set(),
    "metrics": {"durable", "record"},
    "clock": set(),
    "durable": set(),
    "children": {"codec", "errors", "record", "settings"},
    "certificates": {"errors", "record"},
    "applications": {"announcement", "durable", "ports", "reconcile", "record", "settings"},
    "turns": set(),
    "pace": set(),
    "doctor.probes.clock": set(),
    "doctor.probes.cloud": {"children", "codec", "record", "settings", "turns"},
    "doctor.probes.disk": {"doctor.rules.disk", "durable"},
    "doctor.probes.files": {"doctor.rules.files", "identities", "settings"},
    "doctor.probes.identities": {
        "bundle", "certificates", "codec", "doctor.rules.identities", "durable", "errors", "identities", "record",
        "settings",
    },
    "doctor.probes.keystore": {"doctor.rules.keystore", "errors", "ports", "record"},
    "doctor.probes.network": {"doctor.rules.network", "handshake"},
}  # fmt: skip
USERS = {
    "keys.ring": {"durable", "errors", "keys.file", "keys.token", "keys.uri", "ports", "settings"},
    "steps": {"errors", "lifecycle", "messages", "ports", "record", "schedule"},
    "cycle": {"errors", "lifecycle", "ports", "reconcile", "record", "schedule"},
    "daemon": {"codec", "cycle", "errors", "events", "ports", "record", "settings", "signals", "status"},
    "waiting": {"control", "events", "offline", "ports", "record", "signals", "status"},
    "agentctl": {"cli", "control", "doctor.command", "offline", "render"},
    "doctor.command": {"children", "control", "doctor.findings", "doctor.rules.daemon", "settings"},
    "bundle": {"certificates", "errors", "identities", "settings"},
    "offline": {"codec", "durable", "record", "status"},
}
COMPOSITION_ROOTS = {"main", "worker", "keys.pkcs11", "doctor.examine", "reader"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}


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


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_library_has_one_owner(name: str) -> None:
    tops = {imported.split(".")[0] for imported in imports(MODULES[name])}
    assert {library for library in tops & OWNERS.keys() if name not in OWNERS[library]} == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_room_sees_no_clock_file_socket_or_log(name: str) -> None:
    tops = {imported.split(".")[0] for imported in imports(MODULES[name])}
    assert tops & WORLDLY == set()
    assert own(MODULES[name]) <= PURE


@pytest.mark.parametrize(("name", "allowed"), [*ADAPTERS.items(), *USERS.items()])
def test_a_room_imports_only_what_it_may(name: str, allowed: set[str]) -> None:
    assert own(MODULES[name]) <= allowed


def test_only_the_composition_roots_know_everyone() -> None:
    rooms = PURE | ADAPTERS.keys() | USERS.keys() | COMPOSITION_ROOTS | {"config", "cli", "log", "ports"}
    assert MODULES.keys() == rooms


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
    assert {"awscrt", "cryptography"} <= loaded_by("iot_agent.worker")


def test_awscrt_and_python_pkcs11_are_never_in_one_process() -> None:
    """Both initialise a token's module, and together they end in a segmentation fault."""
    assert "pkcs11" not in loaded_by("iot_agent.worker")
    assert loaded_by("iot_agent.keys.pkcs11") & {"awscrt", "cryptography", "pkcs11"} == {"pkcs11"}
