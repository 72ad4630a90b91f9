"""A machine with real systemd as its first process, booted in a second from this machine's own root on an overlay.

Everything it writes is in memory and survives its power cut (`power_off`, then `boot` again), as a disk would. It has
a network of its own: a veth pair, over which the port of a server on this machine's loopback can be reached; the cable
can be pulled. Needs root, systemd-nspawn, and control groups that may be written: a container must be privileged.
"""

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PATIENCE, gone, wait_for

SIZE, JOURNAL_SIZE = "192m", "32m"
CLEAN_STOP = signal.SIGRTMIN + 4  # systemd(1): start poweroff.target
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")


class Machine:
    """One machine under `directory`. `run` runs a command in it, as root."""

    def __init__(self, directory: Path) -> None:
        self.name = f"lab-{os.getpid()}"
        self._base, self._log = directory, directory / "console"
        net = ipaddress.IPv4Address("10.213.0.0") + os.getpid() % 2**14 * 4  # a /30 for each process that runs tests
        self.host, self.guest = str(net + 1), str(net + 2)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0

    # ---- power ------------------------------------------------------------------------------------------------------

    def assemble(self) -> None:
        """Mount the disk and lay the cable."""
        disk = self._base / "disk"
        for place, size in ((disk, SIZE), (self._base / "journal", JOURNAL_SIZE)):
            place.mkdir()
            _do("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(place))
        for part in ("up", "work", "root"):
            (disk / part).mkdir()
        layers = f"lowerdir=/,upperdir={disk / 'up'},workdir={disk / 'work'}"
        _do("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        self._make_it_a_plain_machine()
        _do("ip", "netns", "add", self.name)
        _do("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _do("ip", "address", "add", f"{self.host}/30", "dev", self._cable)
        _do("ip", "-n", self.name, "address", "add", f"{self.guest}/30", "dev", "eth0")
        for command in (["ip", "link", "set", self._cable, "up"], ["ip", "-n", self.name, "link", "set", "eth0", "up"]):
            _do(*command)

    def _make_it_a_plain_machine(self) -> None:
        """Take away what this host would start, and what keeps a container from starting anything."""
        for wants in [*self.root.glob("etc/systemd/system/*.wants"), *self.root.glob("etc/rc?.d")]:
            shutil.rmtree(wants)
        (self.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        for unit in ("systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service"):
            with contextlib.suppress(FileExistsError):
                (self.root / "etc/systemd/system" / unit).symlink_to("/dev/null")
        (self.root / "etc/machine-id").unlink(missing_ok=True)
        (self.root / "etc/machine-id").write_text("")
        (self.root / "var/lib/man-db/auto-update").unlink(missing_ok=True)  # seconds for each installation
        # The server's certificate is for localhost; on this machine that name leads over the cable.
        (self.root / "etc/hosts").unlink(missing_ok=True)
        (self.root / "etc/hosts").write_text(f"{self.host} localhost\n")

    @property
    def root(self) -> Path:
        """The root of its file system, as seen from here."""
        return self._base / "disk" / "root"

    def boot(self) -> None:
        """Switch it on and wait until it is up. Fails the test, with what the console said, when it cannot boot."""
        enter = "".join(
            f"mkdir -p {group}/{self.name} && echo $$ >{group}/{self.name}/cgroup.procs;"
            for group in CGROUPS
            if (Path(group) / "cgroup.procs").exists()
        )
        nspawn = (
            f"exec systemd-nspawn --directory={self.root} --machine={self.name} --register=no --keep-unit --boot "
            f"--link-journal=no --console=pipe --capability=all --system-call-filter=bpf "
            f"{self._nspawn_options()}"
        )
        with self._log.open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["bash", "-c", enter + nspawn],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        try:
            self.leader = wait_for(self._find_leader)
            wait_for(self._is_up)
        except AssertionError:
            pytest.fail(
                "systemd does not boot here, so nothing about Debian has been shown. It needs root, a kernel with "
                "overlay file systems, and writable control groups: run the container with --privileged and "
                f"--cgroupns=host. The console said:\n{self._log.read_text(errors='replace')[-3000:]}"
            )

    def _nspawn_options(self) -> str:
        """Name its network and its mounts."""
        return f"--network-namespace-path=/run/netns/{self.name} --bind={self._base / 'journal'}:/var/log/journal"

    def _find_leader(self) -> int:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise AssertionError("systemd-nspawn has ended")
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        systemd = [child for child in children if Path(f"/proc/{child}/comm").read_text() == "systemd\n"]
        return int(systemd[0]) if systemd else 0  # there are helpers for a moment before

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def power_off(self) -> None:
        """Take the power away: its first process and so every other is killed at once."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """Ask it to stop, as a person would."""
        self._end(CLEAN_STOP)

    def _end(self, how: int) -> None:
        assert self._nspawn is not None
        os.kill(self.leader, how)
        self._nspawn.wait(PATIENCE)
        wait_for(lambda: gone(self.leader))
        self._nspawn = None

    def dismantle(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._nspawn is not None and self._nspawn.poll() is None:
            children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
            for process in [*map(int, children), self._nspawn.pid]:
                os.kill(process, signal.SIGKILL)
            self._nspawn.wait(PATIENCE)
        self._remove_cable()
        for mount in (self.root, self._base / "disk", self._base / "journal"):
            _do("umount", "--lazy", str(mount), check=False)
        wait_for(lambda: all(_removed(Path(group, self.name)) for group in CGROUPS))

    def _remove_cable(self) -> None:
        _do("ip", "netns", "delete", self.name, check=False)
        _do("ip", "link", "delete", self._cable, check=False)

    # ---- at the keyboard --------------------------------------------------------------------------------------------

    def run(self, *command: str, check: bool = True, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root; with `check`, fail the test when it fails."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "env", "-i"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        whole = [*enter, path, "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *command]
        done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=timeout)
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def shell(self, line: str) -> str:
        """Run a line of shell in it; give what it said."""
        return self.run("bash", "-o", "pipefail", "-ec", line).stdout

    def show(self, *properties: str, unit: str = "iot-agent") -> dict[str, str]:
        """Give properties of a unit, as systemctl names them."""
        shown = self.run("systemctl", "show", unit, "--property", ",".join(properties)).stdout
        return dict(line.split("=", 1) for line in shown.splitlines())

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Give the agent's lines that match, oldest first, with all their fields."""
        lines = self.run("journalctl", "--unit=iot-agent", "--output=json", "--all", *matches).stdout.splitlines()
        return [json.loads(line) for line in lines]

    # ---- the cable --------------------------------------------------------------------------------------------------

    @property
    def _cable(self) -> str:
        return f"lab{os.getpid()}"

    def unplug(self) -> None:
        """Pull the cable: packets are lost without a word, and connections hang."""
        _do("ip", "-n", self.name, "link", "set", "eth0", "down")

    def plug_in(self) -> None:
        """Put it back."""
        _do("ip", "-n", self.name, "link", "set", "eth0", "up")

    @contextlib.contextmanager
    def forwarded(self, port: int) -> Iterator[None]:
        """Have the same port at this machine's end of the cable lead to the server on its loopback."""
        with socket.create_server((self.host, port)) as listener:
            threading.Thread(target=_serve, args=(listener, port), daemon=True).start()
            yield


def _serve(listener: socket.socket, port: int) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return  # the test is over
        far = socket.create_connection(("127.0.0.1", port))
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """Give a machine that is assembled and switched on."""
    base = Path(tempfile.mkdtemp(prefix="lab-", dir="/var/tmp"))
    made = Machine(base)
    try:
        made.assemble()
        made.boot()
        yield made
    finally:
        made.dismantle()
        shutil.rmtree(base, ignore_errors=True)


def _removed(group: Path) -> bool:
    """Remove a control group and all below it; raises `OSError` while a killed process is still on its way out."""
    if group.exists():
        for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            path.rmdir()
        group.rmdir()
    return True


def _do(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: {done.stderr} (these tests need root and a privileged container)")
