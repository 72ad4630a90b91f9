"""Tokens without hardware, for tests and the demo: SoftHSM, and a software TPM behind the modules that devices use.

    python -m cloud.local.tokens DIR    run a software TPM in DIR until SIGTERM; DIR/ready appears when it is ready

A device reaches a real TPM at /dev/tpmrm0. Here swtpm is the TPM, and tpm2-abrmd manages access to it, as
the kernel does there, on a message bus of its own; everything above is the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LABEL, PIN, SO_PIN = "iot-agent", "1234-device", "8765-factory"
SOFTHSM_MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
TPM_MODULE = next(Path("/usr/lib").glob("*/pkcs11/libtpm2_pkcs11.so"), Path("/usr/lib/pkcs11/libtpm2_pkcs11.so"))
TPM_LIMIT_S = 120


class LocalToken:
    """A token in a directory: its module, the environment that its users need, and a file with its PIN."""

    def __init__(self, directory: Path, module: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.module = module
        self.environment = environment
        self.pin_file = directory / "pin"

    def yaml(self) -> str:
        """Return the keys section of an agent.yaml."""
        return f"keys: {{backend: pkcs11, module: {self.module}, token: {LABEL}, pin: {self.pin_file}}}\n"

    def tool(self, *arguments: str, pin: str = PIN) -> str:
        """Run pkcs11-tool on the token, as its user."""
        login = ("--token-label", LABEL, "--login", "--pin", "env:PIN")
        return _run("pkcs11-tool", "--module", str(self.module), *login, *arguments, **self.environment, PIN=pin)

    def _write_pin(self) -> None:
        self.pin_file.touch(mode=0o600)
        self.pin_file.write_text(f"{PIN}\n")


class SoftHsm(LocalToken):
    """A token of SoftHSM; it is created when the object is."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, SOFTHSM_MODULE, {"SOFTHSM2_CONF": str(directory / "softhsm2.conf")})
        self.objects = directory / "tokens"
        self.objects.mkdir(parents=True)
        Path(self.environment["SOFTHSM2_CONF"]).write_text(f"directories.tokendir = {self.objects}\n")
        initialise = ("--init-token", "--free", "--label", LABEL, "--so-pin", SO_PIN, "--pin", PIN)
        _run("softhsm2-util", *initialise, **self.environment)
        self._write_pin()


class TpmToken(LocalToken):
    """A token of tpm2-pkcs11 on a running software TPM; it is created when the object is."""

    def __init__(self, directory: Path, bus: Path) -> None:
        environment = {
            "TPM2_PKCS11_STORE": str(directory / "store"),
            "TPM2_PKCS11_TCTI": "tabrmd:bus_type=session",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}",
        }
        super().__init__(directory, TPM_MODULE, environment)
        (directory / "store").mkdir(parents=True)
        tool = ("pkcs11-tool", "--module", str(TPM_MODULE), "--so-pin", "env:SO_PIN")
        secrets = {"SO_PIN": SO_PIN, "PIN": PIN}
        _run(*tool, "--slot-index", "0", "--init-token", "--label", LABEL, **environment, **secrets)
        _run(*tool, "--token-label", LABEL, "--init-pin", "--pin", "env:PIN", **environment, **secrets)
        self._write_pin()


class SoftTpm:
    """A software TPM with its resource manager, as child processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bus = directory / "bus"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the TPM and wait until it is ready. Raises `TimeoutError`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        address = f"unix:path={self.bus}"
        port = _free_port_pair()
        tpm = f"--tpm2 --tpmstate dir={self.directory} --flags not-need-init,startup-clear".split()
        serving = f"--server type=tcp,port={port},bindaddr=127.0.0.1 --ctrl type=tcp,port={port + 1},bindaddr=127.0.0.1"
        self._spawn("swtpm", "socket", *tpm, *serving.split())
        _wait(lambda: _listening(port + 1))
        self._spawn("dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}")
        _wait(self.bus.exists)
        broker = ("tpm2-abrmd", "--session", "--allow-root", "--tcti", f"swtpm:host=127.0.0.1,port={port}")
        self._spawn(*broker, DBUS_SESSION_BUS_ADDRESS=address)
        _wait(self._answers)

    def stop(self) -> None:
        """Stop the TPM."""
        for process in reversed(self._running):
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(TPM_LIMIT_S)
        self._running.clear()
        self.bus.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Clear the count of wrong PINs; the TPM locks after a few of them."""
        self._tool("tpm2_dictionarylockout", "--clear-lockout")

    def wrong_pins(self) -> int:
        """Return how many wrong PINs the TPM has counted."""
        shown = self._tool("tpm2_getcap", "properties-variable")
        line = next(line for line in shown.splitlines() if line.startswith("TPM2_PT_LOCKOUT_COUNTER"))
        return int(line.split(":")[1], 16)

    def handles(self) -> str:
        """List what is loaded in the TPM: transient objects and sessions."""
        kinds = ("handles-transient", "handles-loaded-session", "handles-saved-session")
        return "".join(self._tool("tpm2_getcap", kind) for kind in kinds)

    def hold(self) -> None:
        """Suspend the TPM: it answers nothing, but its process still exists."""
        self._running[-1].send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the TPM."""
        self._running[-1].send_signal(signal.SIGCONT)

    def _tool(self, *command: str) -> str:
        bus = {"TPM2TOOLS_TCTI": "tabrmd:bus_type=session", "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.bus}"}
        return _run(*command, **bus)

    def _answers(self) -> bool:
        try:
            self._tool("tpm2_getcap", "properties-fixed")
        except OSError:
            return False
        return True

    def _spawn(self, *command: str, **environment: str) -> None:
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # an unprivileged user's PATH leaves out tpm2-abrmd
        with (self.directory / f"{command[0]}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the programs named above
                [shutil.which(command[0], path=path) or command[0], *command[1:]],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._running.append(process)


def _run(*command: str, **environment: str) -> str:
    done = subprocess.run(  # noqa: S603 - the programs named above
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=180
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def _free_port_pair() -> int:
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return port
            except (OSError, OverflowError):
                continue


def _listening(port: int) -> bool:
    """Look in the kernel's table, because the TPM would take a connection for a client."""
    return f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


def _wait(look: Callable[[], bool]) -> None:
    limit = time.monotonic() + TPM_LIMIT_S
    while not look():
        if time.monotonic() > limit:
            raise TimeoutError("the software TPM did not start")
        time.sleep(0.05)


def main() -> int:
    """Run a software TPM until SIGTERM."""
    tpm = SoftTpm(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        tpm.start()
        (tpm.directory / "ready").write_text("ready\n")
        signal.pause()
    finally:
        tpm.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
