"""Other daemons of a device, and a bare interpreter, started as they are with nothing to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.harness import wait_for

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = {"certmonger": "certmonger", "prometheus-node-exporter": "prometheus-node-exporter", "strace": "strace"}
NOTHING_TO_DO = "import time\nwhile True: time.sleep(3600)"


def missing() -> list[str]:
    """Return the Debian packages that are not there."""
    return [package for program, package in PACKAGES.items() if shutil.which(program) is None]


class Peers:
    """The others, running until the stack ends; `certmonger` has a bus of its own."""

    def __init__(self, stack: ExitStack, directory: Path, python: Path) -> None:
        self._stack, self._directory = stack, directory
        self.environment = {**os.environ, "HOME": str(directory)}
        bus = self._start(["dbus-daemon", "--session", "--nofork", "--print-address=1"], stdout=subprocess.PIPE)
        assert bus.stdout is not None
        self.environment["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().decode().strip()
        self.pids = {
            "certmonger": self._start(["certmonger", "-s", "-n", "-B"]).pid,
            "node_exporter": self._start(
                ["prometheus-node-exporter", "--web.listen-address=127.0.0.1:0", "--log.level=error"]
            ).pid,
            "bare python3": self._start([str(python), "-c", NOTHING_TO_DO]).pid,
        }
        wait_for(lambda: self.list_certificates().returncode == 0)

    def list_certificates(self) -> subprocess.CompletedProcess[bytes]:
        """Do certmonger's equivalent of `agentctl status`."""
        return subprocess.run(["getcert", "list", "-s"], env=self.environment, capture_output=True, check=False)

    def _start(self, words: list[str], stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(words, env=self.environment, stdout=stdout, stderr=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process
