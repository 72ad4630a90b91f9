"""The package under real systemd, from `dpkg --install` to `dpkg --purge`, with all that can happen in between.

One machine lives through these tests in their order; each leaves it settled. After each, whatever happened in it, the
disk holds a complete identity that the cloud accepts over a real session (`Device.proof`).
"""

import contextlib
import json
import re
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cloud.local.handle import LocalCloud
from iot_agent.core import journal_events
from tests.end_to_end.conftest import Stack
from tests.end_to_end.test_life import Client
from tests.harness import Agent, wait_for
from tests.system.machine import Machine, machine

pytestmark = pytest.mark.needs_root

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "tests/upgrade/iot_agent-0.1.0.zip"
LONG = 60.0
STATE = "/var/lib/iot-agent"
# A machine in a hurry: two minutes of hanging would be a long test.
QUICK = "[Service]\nWatchdogSec=3s\nTimeoutStopSec=3s\nRestartSec=500ms\n"
CLOCK = "[Service]\nEnvironment=LD_PRELOAD=/usr/local/lib/lab-clock.so LAB_CLOCK=/usr/local/lib/lab-clock\n"
DAY = 86400


class Device:
    """One device: the machine, and what the factory gave it."""

    def __init__(self, machine: Machine, stack: Stack, bundle: Agent) -> None:
        self.machine, self.stack, self.bundle = machine, stack, bundle

    def agentctl(self, *arguments: str, timeout: float = LONG) -> subprocess.CompletedProcess[str]:
        return self.machine.run("agentctl", *arguments, check=False, timeout=timeout)

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.agentctl("status", "--json").stdout or "{}")
        return shown

    def settled(self, rotations: int) -> bool:
        shown = self.status()
        return bool(
            shown.get("state") == "acked"
            and shown["rotations"] >= rotations
            and (shown["next_step"] or {}).get("kind") == "wait"
        )

    def configure(self, more: str = "") -> None:
        """Write its configuration as an operator would, its directories left as the package has them."""
        given = (self.bundle.directory / "agent.yaml").read_text().replace("paths: {state: state, run: run}\n", "")
        (self.machine.root / "etc/iot-agent/agent.yaml").write_text(given + more)

    def proof(self) -> str:
        """Give the certificate id of the identity on disk, which is complete and which the cloud has just accepted."""
        disk = self.machine.root / STATE[1:]
        current = disk / "current"
        assert current.is_symlink()
        directory = disk / current.readlink()
        assert (directory / "key.pem").stat().st_mode & 0o777 == 0o600
        copy = self.bundle.directory / "proof"
        copy.mkdir(exist_ok=True)
        for name in ("certificate.pem", "key.pem"):
            (copy / name).write_bytes((directory / name).read_bytes())
        assert Client(self.stack, self.bundle, "proof").accepted()
        certificate_id = str(json.loads((directory / "identity.json").read_text())["certificate_id"])
        assert self.stack.status_of(certificate_id) == "ACTIVE"
        return certificate_id

    def main_pid(self) -> int:
        return int(self.machine.show("MainPID")["MainPID"])

    def set_clock(self, seconds: int) -> None:
        """Have the agent see the wall clock so many seconds off."""
        (self.machine.root / "usr/local/lib/lab-clock").write_bytes(struct.pack("<q", seconds))

    def told(self, event: str) -> list[dict[str, Any]]:
        """Give what the journal holds of a kind of event."""
        return self.machine.journal(f"MESSAGE_ID={journal_events.MESSAGE_IDS[event]}")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("system")
    with LocalCloud(directory / "cloud") as cloud:
        yield Stack(cloud, directory)


@pytest.fixture(scope="module")
def device(stack: Stack) -> Iterator[Device]:
    with machine() as made, made.forwarded(stack.cloud.description.mqtt_port):
        yield Device(made, stack, stack.new_device())


@pytest.fixture
def settled(device: Device) -> Iterator[Device]:
    """Give the device at rest, and afterwards see that what it holds is accepted, whatever the test did."""
    wait_for(lambda: device.settled(1), LONG)
    yield device
    wait_for(lambda: device.settled(1), LONG)
    assert device.proof() == device.status()["identity"]["certificate_id"]


def test_installed_it_is_enabled_and_waits_politely_for_its_configuration(device: Device, package: Path) -> None:
    machine = device.machine
    for name, text in (("quick", QUICK), ("clock", CLOCK)):
        drop_in = machine.root / f"etc/systemd/system/iot-agent.service.d/{name}.conf"
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(text)
    library = machine.root / "usr/local/lib/lab-clock.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, ROOT / "tests/system/clock.c"], check=True
    )
    device.set_clock(0)
    (machine.root / "root/iot-agent.deb").write_bytes(package.read_bytes())
    machine.run("dpkg", "--install", "/root/iot-agent.deb", timeout=LONG)

    assert machine.run("systemctl", "is-enabled", "iot-agent").stdout == "enabled\n"
    unit = machine.show("ActiveState", "SubState", "StatusText", "NRestarts", "User", "StateDirectoryMode")
    assert (unit["ActiveState"], unit["SubState"], unit["NRestarts"]) == ("active", "running", "0")
    assert "nothing is set yet: copy the bundle" in unit["StatusText"]
    told = device.agentctl("status")
    assert told.returncode == 78
    assert "iot-agent --check" in told.stdout
    assert device.status()["state"] == "unprovisioned"
    explained = machine.shell("journalctl -x -u iot-agent")
    assert "░░ Subject: The IoT agent waits for its configuration" in explained
    assert "systemd-tmpfiles --create iot-agent.conf" in explained
    assert machine.shell(f"stat -c '%U %a' {STATE}") == "iot-agent 700\n"
    assert machine.run("iot-agent", "--check", check=False).returncode == 78


def test_configured_it_onboards_without_a_restart(device: Device) -> None:
    machine, bundle = device.machine, device.bundle.directory
    before = device.main_pid()
    for path in [bundle / "bootstrap", *bundle.glob("*.pem"), *bundle.glob("bootstrap/*")]:
        there = machine.root / "etc/iot-agent" / path.relative_to(bundle)
        if path.is_dir():
            there.mkdir(mode=0o700)
        else:
            there.write_bytes(path.read_bytes())
            there.chmod(0o600)
    device.configure()
    unreadable = wait_for(lambda: [line for line in refusals(device) if "the agent's user cannot read it" in line])
    assert len(unreadable) == 4
    assert {line.partition("; ")[2] for line in unreadable} == {"run: sudo systemd-tmpfiles --create iot-agent.conf"}
    assert device.status()["health"]["level"] == "attention"
    machine.run("systemd-tmpfiles", "--create", "iot-agent.conf")
    wait_for(lambda: device.settled(1), LONG)
    assert device.main_pid() == before
    assert device.proof() == device.status()["identity"]["certificate_id"]
    told = device.agentctl("status")
    assert (told.returncode, device.status()["health"]["level"]) == (0, "good")
    states = [line["IOT_AGENT_STATE"] for line in device.told("state-changed")]
    assert states == ["jitp", "rotated", "acked"]
    promoted = device.told("promoted")[-1]
    assert promoted["IOT_AGENT_CERTIFICATE_ID"] == device.status()["identity"]["certificate_id"]
    assert promoted["IOT_AGENT_SERIAL"] == device.bundle.serial
    assert machine.show("StatusText")["StatusText"].startswith("acked: the certificate is active")


def refusals(device: Device) -> list[str]:
    """Tell what is wrong with its configuration; nothing in the moment between two looks at it."""
    return str(device.status().get("configuration", {}).get("error")).splitlines()


def documented_queries() -> list[str]:
    text = (ROOT / "docs/debian.md").read_text()
    return [line.strip() for line in text.splitlines() if line.startswith("    journalctl ")]


def test_the_journal_answers_what_the_documents_ask(settled: Device) -> None:
    machine = settled.machine
    certificate, serial = settled.status()["identity"]["certificate_id"], settled.bundle.serial
    answers = [machine.shell(query) for query in documented_queries()]
    explained, promoted, states, errors, warnings, serials = answers
    assert "░░ Subject: A new certificate is active" in explained
    assert promoted.splitlines()[-1].split("\t")[1] == certificate
    assert states.splitlines() == ["unprovisioned -> jitp", "jitp -> rotated", "rotated -> acked"]
    assert isinstance(json.loads(errors), list)
    assert "waiting for a configuration" in warnings
    assert serials == f"{serial}\n"


def test_its_numbers_are_where_the_configuration_says_for_everybody_to_read(settled: Device) -> None:
    machine = settled.machine
    settled.configure("metrics: {textfile: /run/iot-agent/iot-agent.prom}\n")
    machine.run("systemctl", "restart", "iot-agent")
    wait_for(lambda: settled.settled(1), LONG)
    shown = machine.shell("runuser -u nobody -- cat /run/iot-agent/iot-agent.prom")
    assert 'iot_agent_state{state="acked"} 1' in shown
    expires = settled.status()["identity"]["not_after"]
    assert f"iot_agent_certificate_not_after_timestamp_seconds {expires}\n" in shown
    machine.run("systemctl", "stop", "iot-agent")
    assert machine.run("test", "-e", "/run/iot-agent/iot-agent.prom", check=False).returncode == 1
    settled.configure()
    machine.run("systemctl", "start", "iot-agent")


def test_its_drop_ins_give_it_a_pin_and_a_device_and_nothing_else(settled: Device) -> None:
    """Under the unit's own sandbox: the service's properties are taken over by a shell that looks around."""
    machine = settled.machine
    drop_ins = machine.root / "etc/systemd/system/iot-agent.service.d"
    for name in ("tpm.conf", "token-pin.conf"):
        (drop_ins / name).write_text((ROOT / "packaging/iot-agent.service.d" / name).read_text())
    (machine.root / "etc/iot-agent/token-pin").write_text("1234")
    (machine.root / "etc/iot-agent/token-pin").chmod(0o600)
    looks = ["$CREDENTIALS_DIRECTORY/token-pin", "/etc/iot-agent/token-pin", "/dev/tpmrm0", "/dev/other"]
    look = "".join(f"head -c 4 {path}; echo; " for path in looks) + "touch /etc/x; exit 0"
    (drop_ins / "look.conf").write_text(f"[Service]\nExecStartPre=/bin/sh -c '{look}'\n")
    # The TPM's number without a TPM: who may open it learns that there is none; who may not, only that.
    machine.shell("getent group tss || groupadd --system tss; mknod /dev/tpmrm0 c 10 224; mknod /dev/other c 10 223")
    machine.shell("chgrp tss /dev/tpmrm0 /dev/other; chmod 660 /dev/tpmrm0 /dev/other")
    try:
        machine.shell("systemctl daemon-reload; systemctl restart iot-agent")
        said = machine.shell("journalctl -u iot-agent -o cat _TRANSPORT=stdout")
    finally:
        for name in ("tpm.conf", "token-pin.conf", "look.conf"):
            (drop_ins / name).unlink()
        machine.shell("rm -f /dev/tpmrm0 /dev/other /etc/iot-agent/token-pin")
        machine.shell("systemctl daemon-reload; systemctl restart iot-agent")
    assert "1234\n" in said
    assert "'/etc/iot-agent/token-pin' for reading: Permission denied" in said
    assert not re.search(r"'/dev/tpmrm0' for reading: (Operation not permitted|Permission denied)", said)
    assert "'/dev/other' for reading: Operation not permitted" in said
    assert "touch: cannot touch '/etc/x': Read-only file system" in said


def test_the_operator_rotates_it(settled: Device) -> None:
    before = settled.proof()
    done = settled.agentctl("rotate", "--wait", "50")
    assert done.returncode == 0, done.stderr
    assert settled.proof() != before
    wait_for(lambda: settled.stack.status_of(before) != "ACTIVE")


def begin_a_rotation_that_hangs(device: Device) -> None:
    """Pull the cable and ask for a rotation: it gets as far as a key and a worker that waits for the network."""
    device.machine.unplug()
    assert device.agentctl("rotate").returncode == 0
    wait_for(lambda: (device.status()["pending"] or {}).get("generated"))


def test_a_restart_in_the_middle_of_a_rotation_resumes_it_with_the_same_key(settled: Device) -> None:
    before, rotations = settled.proof(), settled.status()["rotations"]
    begin_a_rotation_that_hangs(settled)
    label = settled.status()["pending"]["label"]
    settled.machine.run("systemctl", "restart", "iot-agent")
    assert settled.status()["pending"]["label"] == label
    settled.machine.plug_in()
    wait_for(lambda: settled.settled(rotations + 1), LONG)
    assert settled.status()["identity"]["label"] == label
    assert settled.proof() != before


def test_a_network_that_is_cut_off_only_delays_a_rotation(settled: Device) -> None:
    rotations = settled.status()["rotations"]
    begin_a_rotation_that_hangs(settled)
    error = wait_for(lambda: settled.status()["last_error"], LONG)
    assert error["code"] == "unreachable"
    failed = settled.told("step-failed")[-1]
    assert (failed["IOT_AGENT_ERROR"], failed["IOT_AGENT_STEP"], failed["PRIORITY"]) == ("unreachable", "request", "4")
    assert "Check the network" in settled.machine.shell("journalctl -x -u iot-agent")
    settled.machine.plug_in()
    settled.proof()  # the old one, or already the new one: accepted either way
    wait_for(lambda: settled.settled(rotations + 1), LONG)
    assert settled.status()["last_error"] is None


def test_killed_in_a_rotation_it_is_started_again_and_finishes_it(settled: Device) -> None:
    rotations, before = settled.status()["rotations"], settled.main_pid()
    begin_a_rotation_that_hangs(settled)
    settled.machine.run("kill", "-KILL", str(before))
    settled.machine.plug_in()
    wait_for(lambda: settled.settled(rotations + 1), LONG)
    assert settled.main_pid() not in (0, before)
    assert int(settled.machine.show("NRestarts")["NRestarts"]) >= 1


def test_when_its_loop_hangs_the_watchdog_ends_it_and_it_starts_again(settled: Device) -> None:
    before = settled.main_pid()
    settled.machine.run("kill", "-STOP", str(before))
    wait_for(lambda: settled.main_pid() not in (0, before))
    ended = settled.machine.shell("journalctl -u iot-agent -o cat")
    assert "Watchdog timeout" in ended
    assert "Failed with result 'watchdog'" in ended


@contextlib.contextmanager
def hanging_on_sigusr2(device: Device, environment: str = "") -> Iterator[int]:
    """Have the agent's loop hang on SIGUSR2 while its process lives on; give its pid."""
    machine = device.machine
    plant = machine.root / "usr/local/lib/lab-hang/sitecustomize.py"
    plant.parent.mkdir(exist_ok=True)
    plant.write_text((ROOT / "tests/system/sitecustomize.py").read_text())
    drop_in = machine.root / "etc/systemd/system/iot-agent.service.d/hang.conf"
    drop_in.write_text(f"[Service]\nEnvironment=PYTHONPATH=/usr/local/lib/lab-hang {environment}\n")
    machine.shell("systemctl daemon-reload; systemctl restart iot-agent")
    pid = device.main_pid()
    machine.run("kill", "-USR2", str(pid))
    try:
        yield pid
    finally:
        drop_in.unlink()
        machine.shell("systemctl daemon-reload; systemctl kill --signal=KILL iot-agent; systemctl restart iot-agent")


def test_the_watchdog_is_fed_by_the_loop_itself(settled: Device) -> None:
    """A loop that hangs in a process that lives on is ended as well."""
    with hanging_on_sigusr2(settled) as before:
        wait_for(lambda: settled.main_pid() not in (0, before))


def test_a_watchdog_fed_by_a_thread_would_be_noticed(settled: Device) -> None:
    """The planted bug: with it, nobody ends a loop that hangs, so the test before this one would fail."""
    with hanging_on_sigusr2(settled, "LAB_FEED=1") as before:
        settled.machine.run("sleep", "7")
        assert settled.main_pid() == before


def test_the_watchdog_is_not_fed_to_death(settled: Device) -> None:
    """The control to the one before: alive, it outlives several of the watchdog's periods with nothing to do."""
    before = settled.main_pid()
    settled.machine.run("sleep", "7")
    assert settled.main_pid() == before


def test_a_good_configuration_is_taken_over_and_a_bad_one_refused_whole(settled: Device) -> None:
    machine, before = settled.machine, settled.main_pid()
    settled.configure("log: {level: debug}\nmetrics: {textfile: /run/iot-agent/iot-agent.prom}\n")
    machine.run("systemctl", "reload", "iot-agent")
    error = wait_for(lambda: settled.status()["configuration"]["error"])
    assert "metrics_textfile can only change with a restart" in error
    assert settled.agentctl("status").returncode == 1
    assert settled.told("reload-refused")[-1]["PRIORITY"] == "3"
    settled.configure("keys: {algorithm: ec-p384}\n")
    machine.run("systemctl", "reload", "iot-agent")
    wait_for(lambda: settled.status()["key"]["algorithm"] == "ec-p384")
    settled.configure("keys: {algorithm: rot13}\n")
    machine.run("systemctl", "reload", "iot-agent")
    error = wait_for(lambda: settled.status()["configuration"]["error"])
    assert "'rot13' is not one of" in error
    assert settled.status()["key"]["algorithm"] == "ec-p384"
    assert machine.show("ActiveState")["ActiveState"] == "active"
    assert settled.main_pid() == before
    settled.configure()
    machine.run("systemctl", "reload", "iot-agent")
    wait_for(lambda: settled.agentctl("status").returncode == 0)


def test_after_a_power_cut_in_a_rotation_it_boots_and_finishes_it(settled: Device) -> None:
    rotations = settled.status()["rotations"]
    begin_a_rotation_that_hangs(settled)
    settled.machine.power_off()
    disk = settled.machine.root / STATE[1:]
    assert (disk / "current" / "certificate.pem").stat().st_size
    settled.machine.plug_in()
    settled.machine.boot()
    wait_for(lambda: settled.settled(rotations + 1), LONG)
    assert settled.machine.shell("journalctl --list-boots --quiet | wc -l").strip() != "1"


def test_a_clock_that_goes_back_years_is_seen_and_nothing_is_lost(settled: Device) -> None:
    before = settled.proof()
    settled.set_clock(-3000 * DAY)
    wait_for(lambda: settled.status()["clock_trusted"] is False)
    assert settled.agentctl("status").returncode == 1
    assert settled.status()["identity"]["certificate_id"] == before
    settled.machine.run("systemctl", "restart", "iot-agent")
    assert settled.status()["clock_trusted"] is False
    assert settled.proof() == before
    settled.set_clock(0)
    wait_for(lambda: settled.agentctl("status").returncode == 0)


def test_a_clock_that_jumps_ahead_past_the_end_of_the_certificate_costs_nothing_either(settled: Device) -> None:
    settled.set_clock(30 * DAY)
    settled.machine.run("systemctl", "reload", "iot-agent")
    wait_for(lambda: settled.agentctl("status").returncode == 2)
    assert settled.status()["health"] == {"level": "critical", "why": "the active certificate has expired"}
    wait_for(lambda: settled.status()["last_error"], LONG)
    settled.proof()
    settled.set_clock(0)
    assert settled.agentctl("rotate", "--wait", "50").returncode == 0


def test_a_full_disk_stops_what_is_new_and_is_told_until_there_is_room(settled: Device) -> None:
    machine = settled.machine
    with contextlib.suppress(OSError), (machine.root / "var/filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass
    before, rotations = settled.proof(), settled.status()["rotations"]
    settled.agentctl("rotate")
    try:
        # The record may still fit, in the room of the one that it replaces; a new key does not.
        shown = wait_for(lambda: (shown := settled.status())["trouble"] or shown["last_error"], LONG)
        assert "No space left on device" in str(shown)
        wait_for(lambda: settled.agentctl("status").returncode in (1, 2), LONG)
        assert "Check free space" in settled.agentctl("status").stdout
        assert settled.proof() == before
        assert settled.main_pid()
    finally:
        (machine.root / "var/filler").unlink()
    wait_for(lambda: settled.settled(rotations + 1), LONG)
    assert settled.agentctl("status").returncode == 0


def another_package(package: Path, work: Path, version: str, code: Path | None = None) -> Path:
    """Make a package of another version from ours, perhaps with the agent's code of a zip; gives the new file."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, work / version], check=True)
    control = work / version / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    if code is not None:
        (site,) = (work / version).glob("usr/lib/iot-agent/lib/python3*/site-packages")
        shutil.rmtree(site / "iot_agent")
        with zipfile.ZipFile(code) as released:
            released.extractall(site)
    made = work / f"{version}.deb"
    options = ["-Zgzip", "-z1", "--root-owner-group"]
    subprocess.run(["dpkg-deb", *options, "--build", work / version, made], check=True, capture_output=True)
    return made


def install(device: Device, package: Path) -> None:
    """Install a package on the device; the daemon is started again with it."""
    before = device.main_pid()
    (device.machine.root / "root/next.deb").write_bytes(package.read_bytes())
    device.machine.run("dpkg", "--install", "/root/next.deb", timeout=LONG)
    assert device.main_pid() not in (0, before)


def test_an_upgrade_keeps_everything_and_restarts_it(settled: Device, package: Path, tmp_path: Path) -> None:
    history, proven = settled.agentctl("history").stdout, settled.proof()
    configured = (settled.machine.root / "etc/iot-agent/agent.yaml").read_text()
    install(settled, another_package(package, tmp_path, "1000"))
    assert (settled.machine.root / "etc/iot-agent/agent.yaml").read_text() == configured
    assert settled.proof() == proven
    assert settled.agentctl("history").stdout == history


def test_the_released_package_and_this_one_take_turns_and_keep_the_device_in_service(
    settled: Device, package: Path, tmp_path: Path
) -> None:
    """Back to the code of 0.1.0, whose modules had other places; a rotation with it; then this version, and another."""
    proven = settled.proof()
    for number, code in enumerate((RELEASED, None)):
        install(settled, another_package(package, tmp_path, f"{2000 + number}", code))
        wait_for(lambda: settled.settled(1), LONG)
        assert settled.proof() == proven
        enough = settled.status()["rotations"] + 1
        settled.agentctl("rotate", "--wait", "60")
        wait_for(partial(settled.settled, enough), LONG)
        assert settled.proof() != proven
        proven = settled.proof()


def test_stopped_it_is_said_to_be_down_with_what_the_disk_says(settled: Device) -> None:
    settled.machine.run("systemctl", "stop", "iot-agent")
    down = settled.agentctl("status", "--json")
    assert down.returncode == 69
    assert json.loads(down.stdout)["state"] == "acked"
    assert settled.machine.show("Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    assert settled.told("stopped")
    settled.machine.run("systemctl", "start", "iot-agent")


def test_no_secret_has_reached_the_journal(device: Device) -> None:
    whole = device.machine.run("journalctl", "--output=export", "--all").stdout
    assert "IOT_AGENT_EVENT=promoted" in whole
    keys = list((device.machine.root / STATE[1:]).glob("identities/*/key.pem"))
    assert keys
    for key in [*keys, device.bundle.directory / "bootstrap/key.pem"]:
        body = key.read_text().splitlines()[1:-1]
        assert body
        assert not [line for line in body if line in whole]
    assert "PRIVATE KEY" not in whole


def test_removing_keeps_the_identity_and_purging_removes_just_the_state(device: Device) -> None:
    machine = device.machine
    kept = device.proof()
    machine.run("dpkg", "--remove", "iot-agent", timeout=LONG)
    assert machine.run("systemctl", "is-active", "iot-agent", check=False).stdout == "inactive\n"
    assert device.proof() == kept
    machine.run("dpkg", "--install", "/root/iot-agent.deb", timeout=LONG)
    wait_for(lambda: device.settled(1), LONG)
    assert device.proof() == kept
    machine.shell("mkdir -p /var/lib/other && touch /var/lib/other/file")
    before = set(machine.shell("ls -d /var/lib/* /home/* /srv/* 2>/dev/null || true").split())
    machine.run("dpkg", "--purge", "iot-agent", timeout=LONG)
    after = set(machine.shell("ls -d /var/lib/* /home/* /srv/* 2>/dev/null || true").split())
    assert before - after == {STATE}
    assert not machine.shell(
        "find / -xdev -name 'iot-agent*' -path '/var/*' ! -path '*/dpkg/*' ! -path '/var/tmp/*' 2>/dev/null || true"
    ).split()
    assert (machine.root / "etc/iot-agent/bootstrap/key.pem").exists()
    assert not (machine.root / "etc/iot-agent/agent.yaml").exists()
    device.machine.shut_down()
    device.machine.boot()
    assert machine.shell("systemctl is-system-running") == "running\n"
