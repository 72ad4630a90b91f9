"""Starts the local cloud as a child process, waits until it is ready, and removes its files when it stops.

Everything the emulator writes is under DIR/tmp, which is deleted when it stops; DIR/emulator.log is kept. The child
watches its standard input, so it ends when this process ends, however that happens.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cloud.common import local_endpoint
from cloud.common.local_endpoint import Credentials, Description

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "build/env/local/bin/python"
LOOPBACK = "127.0.0.1"
ACCOUNT = "000000000000"
CREDENTIALS = Credentials("test", "test")  # the emulator's root account
START_LIMIT_S = 180.0
STOP_LIMIT_S = 30.0
EMULATOR_LOG_TAIL_LINES = 20


class LocalCloudError(Exception):
    """The local cloud did not start; the message says why and ends with the tail of its log."""


class LocalCloud:
    """A local cloud in `directory`, running inside a `with` block or between `start()` and `stop()`.

    Ports that are not given are any free ones. `jitp_delay_s` is how long just-in-time provisioning takes: as on AWS, a
    device that reconnects earlier is disconnected again.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        mqtt_port: int = 0,
        region: str = "eu-west-1",
        jitp_delay_s: float = 0.2,
    ) -> None:
        self.directory = directory.resolve()
        self.log = self.directory / "emulator.log"
        self._temporary = self.directory / "tmp"
        self._ca = self.directory / "mqtt-ca.pem"
        self._port, self._mqtt_port = port, mqtt_port
        self._region, self._jitp_delay_s = region, jitp_delay_s
        self._process: subprocess.Popen[bytes] | None = None
        self._description: Description | None = None

    @property
    def description(self) -> Description:
        """The addresses of the running cloud. Raises LocalCloudError if it is not running."""
        if self._description is None:
            raise LocalCloudError(f"the local cloud in {self.directory} is not running")
        return self._description

    def environment(self) -> dict[str, str]:
        """Return this process's environment, changed so that boto3, sam and any AWS client use this cloud."""
        return self.description.environment(os.environ)

    def start(self) -> Self:
        """Start the cloud and wait until the AWS API and MQTT are ready. Raises LocalCloudError."""
        if not PYTHON.exists():
            raise LocalCloudError(f"{PYTHON} does not exist; create it with `make env-local`")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._refuse_a_second()
        shutil.rmtree(self._temporary, ignore_errors=True)  # left by a cloud that was killed
        self._temporary.mkdir(mode=0o700)
        port, mqtt_port = self._port or _free_port(), self._mqtt_port or _free_port()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [PYTHON, "-m", "cloud.local.emulator", str(self._jitp_delay_s)],
                cwd=ROOT,
                env=self._emulator_environment(port, mqtt_port),
                stdin=subprocess.PIPE,  # never written to; its end tells the child that this process has ended
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only; the group has all the Lambda's processes
            )
        try:
            self._wait(port, mqtt_port)
        except BaseException:
            self.stop()
            raise
        self._description = Description(
            endpoint_url=f"http://{LOOPBACK}:{port}",
            region=self._region,
            account=ACCOUNT,
            mqtt_host="localhost",
            mqtt_port=mqtt_port,
            mqtt_ca=str(self._ca),
            pid=self._process.pid,
            credentials=CREDENTIALS,
        )
        local_endpoint.write(self.directory, self._description)
        return self

    def stop(self) -> None:
        """Stop the cloud, if it runs, with every process it started, and delete all its files but the log."""
        process, self._process, self._description = self._process, None, None
        if process is None:
            return
        local_endpoint.remove(self.directory)
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError):  # the usual case: no process is left
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._ca.unlink(missing_ok=True)

    def wait(self) -> int:
        """Wait until the emulator ends by itself, which it should not, and return its exit status."""
        return self._process.wait() if self._process else 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _refuse_a_second(self) -> None:
        try:
            other = local_endpoint.read(self.directory)
            os.kill(other.pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return
        raise LocalCloudError(f"a local cloud is already running in {self.directory} (process {other.pid})")

    def _emulator_environment(self, port: int, mqtt_port: int) -> dict[str, str]:
        """Return the emulator's environment: of the caller's only PATH, so no credentials, proxies or settings."""
        temporary = str(self._temporary)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": temporary,
            "LANG": "C.UTF-8",
            "TMPDIR": temporary,
            "S3_DATA_DIR": f"{temporary}/s3",
            "STATE_DIR": f"{temporary}/state",
            "DOCKER_HOST": f"unix://{temporary}/no-docker",
            "AUTH": "true",  # enforce IAM and IoT policies; off by default
            "BIND_HOST": LOOPBACK,
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_PORT": str(mqtt_port),
            "LAMBDA_EXECUTOR": "local",
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": self._region,
            "SFTP_ENABLED": "0",
        }

    def _wait(self, port: int, mqtt_port: int) -> None:
        """Wait until the API is ready and the broker has completed a TLS handshake."""
        limit = time.monotonic() + START_LIMIT_S
        while True:
            try:
                if json.loads(_get(port, "/_ministack/ready")).get("iot_mtls") == "listening":
                    self._ca.write_bytes(_get(port, "/_ministack/iot/ca.pem"))
                    _handshake(mqtt_port, self._ca)
                    return
                problem = "its broker is not listening yet"
            except (OSError, ValueError, http.client.HTTPException) as error:
                problem = str(error)
            if self._process is None or self._process.poll() is not None:
                raise LocalCloudError(f"the local cloud ended while starting\n{self._log_tail()}")
            if time.monotonic() > limit:
                raise LocalCloudError(
                    f"the local cloud was not ready within {START_LIMIT_S:.0f} s: {problem}\n{self._log_tail()}"
                )
            time.sleep(0.05)

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-EMULATOR_LOG_TAIL_LINES:]
        return "\n".join([f"--- {self.log}", *lines])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _get(port: int, path: str) -> bytes:
    """GET from the emulator, without any proxy that the environment names."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _handshake(port: int, ca: Path) -> None:
    context = ssl.create_default_context(cafile=str(ca))
    with socket.create_connection((LOOPBACK, port), timeout=2) as plain:
        context.wrap_socket(plain, server_hostname="localhost").close()
