"""Hooks under real systemd: an unprivileged agent replaces a file, and root's services follow."""

import shutil
from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import ROOT
from tests.harness import wait_for
from tests.system.machine import Machine
from tests.system.machine import machine as booted

pytestmark = pytest.mark.needs_root

UNITS = ROOT / "packaging" / "systemd"
HOOKS = "/etc/iot-agent/hooks.d"
FAKE = """[Service]
ExecStart=/bin/sleep infinity
User=nobody
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted() as machine:
        for unit in UNITS.iterdir():
            shutil.copy(unit, machine.root / "etc" / "systemd" / "system")
        (machine.root / "etc/systemd/system/mosquitto.service").write_text(FAKE)
        machine.shell(f"mkdir -p {HOOKS} && systemctl daemon-reload && systemctl start mosquitto iot-agent-hooks.path")
        yield machine


@pytest.fixture(autouse=True)
def no_hooks(machine: Machine) -> None:
    machine.shell(f"rm -rf {HOOKS}/* /run/seen; mkdir -p /run/iot-agent; chown nobody /run/iot-agent")


def promote(machine: Machine, certificate_id: str) -> None:
    """Replace identity.json as the agent's user does: another file, renamed over it."""
    file = "/run/iot-agent/identity.json"
    machine.shell(f"runuser -u nobody -- sh -c 'echo {certificate_id} >{file}.new && mv {file}.new {file}'")


def hook(machine: Machine, name: str, body: str) -> None:
    path = machine.root / HOOKS.lstrip("/") / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def settled(machine: Machine) -> dict[str, str]:
    """Wait until the hooks have run; give how they ended."""
    shown = ("ActiveState", "Result", "ExecMainStartTimestampMonotonic")
    wait_for(lambda: machine.show(*shown, unit="iot-agent-hooks.service")["ActiveState"] in ("inactive", "failed"))
    return machine.show(*shown, unit="iot-agent-hooks.service")


def test_each_promotion_runs_every_hook_once_even_if_one_fails(machine: Machine) -> None:
    hook(machine, "10-fails", "exit 7")
    hook(machine, "20-sees", 'systemctl set-environment "SEEN_$(cat "$1")=$(cat "$1")"')
    for certificate_id in ("aa", "bb", "cc"):
        promote(machine, certificate_id)
        wait_for(lambda seen=f"SEEN_{certificate_id}=": seen in machine.run("systemctl", "show-environment").stdout)  # type: ignore[misc]
        assert settled(machine)["Result"] == "exit-code", "a failed hook shows"
    assert machine.show("ActiveState", unit="iot-agent-hooks.path")["ActiveState"] == "active"


def test_the_example_restarts_mosquitto(machine: Machine) -> None:
    shutil.copy(ROOT / "docs" / "applications" / "hooks" / "restart-mosquitto", machine.root / HOOKS.lstrip("/"))
    before = machine.show("MainPID", unit="mosquitto")["MainPID"]
    promote(machine, "dd")
    wait_for(lambda: machine.show("MainPID", unit="mosquitto")["MainPID"] not in (before, "0"))
    assert settled(machine)["Result"] == "success"


@pytest.mark.parametrize(("drop_in", "found"), [("", "contained"), ("[Service]\nProtectSystem=no\n", "free")])
def test_a_hook_is_root_without_its_powers(machine: Machine, drop_in: str, found: str) -> None:
    """And with its sandbox planted away, the test would see that."""
    directory = machine.root / "etc/systemd/system/iot-agent-hooks.service.d"
    directory.mkdir(exist_ok=True)
    (directory / "planted.conf").write_text(drop_in)
    machine.shell("systemctl daemon-reload; systemctl unset-environment TRIED")
    powerless = "grep -q '^CapEff:.*0000000000000000$' /proc/self/status && ! touch /etc/planted"
    tell = "systemctl set-environment TRIED="
    hook(machine, "tries", f"if {powerless}; then {tell}contained; else {tell}free; fi")
    promote(machine, f"ee-{found}")
    wait_for(lambda: f"TRIED={found}" in machine.run("systemctl", "show-environment").stdout)
    assert settled(machine)["Result"] == "success"
    shutil.rmtree(directory)
    machine.shell("systemctl daemon-reload")


def test_without_hooks_nothing_runs(machine: Machine) -> None:
    promote(machine, "ff")
    wait_for(lambda: machine.show("ConditionResult", unit="iot-agent-hooks.service")["ConditionResult"] == "no")


GIVE = """
import grp, os, pathlib, sys
from iot_agent.storage.application_access import _set
path = pathlib.Path(sys.argv[1])
_set(path, 0o640, grp.getgrnam(sys.argv[2]).gr_gid)
"""


@pytest.mark.parametrize(
    ("group", "options", "given"),
    [
        ("agent", ["PrivateUsers=yes"], True),
        ("others", ["PrivateUsers=yes", "SupplementaryGroups=others"], False),
        ("others", ["PrivateUsers=no", "SupplementaryGroups=others"], True),
    ],
)
def test_which_group_the_unit_lets_the_agent_give_its_key_to(
    machine: Machine, group: str, options: list[str], *, given: bool
) -> None:
    """As docs/applications.md says: its own, or another one that the unit lets it see."""
    machine.shell("getent group others || { groupadd others; useradd -M agent; }")
    machine.shell("install -o agent -g agent -m 600 /dev/null /opt/key")
    shutil.copytree(ROOT / "iot_agent", machine.root / "opt/iot_agent", dirs_exist_ok=True)
    properties = [f"--property={option}" for option in ("User=agent", "Group=agent", *options)]
    script = ["env", "PYTHONPATH=/opt", "/usr/bin/python3", "-c", GIVE, "/opt/key", group]
    done = machine.run("systemd-run", "--wait", "--pipe", "--quiet", *properties, *script, check=False)
    assert (done.returncode == 0) == given, done.stderr
    assert machine.shell("stat -c '%a %G' /opt/key").strip() == (f"640 {group}" if given else "600 agent")
