"""A local cloud with what a test does to it: run cloud/setup.sh, call AWS, connect as a device would."""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from cloud.local import LocalCloud

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud.local import Description

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "cloud/setup.sh"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A running local cloud in `directory`."""

    cloud: LocalCloud

    @property
    def here(self) -> Description:
        """Where it is."""
        return self.cloud.description

    @property
    def session(self) -> boto3.Session:
        """A session with its root account, whatever the environment says."""
        keys = self.here.credentials
        return boto3.Session(keys.access_key_id, keys.secret_access_key, region_name=self.here.region)

    def setup(self, command: str, *words: str, succeeds: bool = True) -> str:
        """Run cloud/setup.sh on this cloud; return all it says."""
        done = subprocess.run(
            [SETUP, command, *words, "--local", str(self.cloud.directory)],
            cwd=self.cloud.directory,
            env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == succeeds, done.stdout
        return done.stdout

    def device(self, serial: str, *words: str) -> Path:
        """Prepare a device with setup.sh; return its bundle."""
        bundle = self.cloud.directory / serial
        self.setup("device", serial, "--out", str(bundle), *words)
        return bundle

    def connect(self, certificate: Path, key: Path, client_id: str) -> int | None:
        """Connect once with MQTT 3.1.1; return the CONNACK's code (0: accepted), or None when dropped without one."""
        context = ssl.create_default_context(cafile=self.here.mqtt_ca)
        context.load_cert_chain(certificate, key)
        where = (self.here.mqtt_host, self.here.mqtt_port)
        try:
            with (
                socket.create_connection(where, timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=self.here.mqtt_host) as secure,
            ):
                secure.sendall(connect_packet(client_id))
                answer = secure.recv(4)
        except (ConnectionError, ssl.SSLError):
            return None
        return answer[3] if len(answer) == 4 and answer[0] == 0x20 else None


def connect_packet(client_id: str) -> bytes:
    """Return a CONNECT with a clean session and keep-alive of a minute (MQTT 3.1.1, section 3.1)."""
    name = client_id.encode()
    body = struct.pack("!H4sBBH", 4, b"MQTT", 4, 2, 60) + struct.pack("!H", len(name)) + name
    return bytes([0x10, len(body)]) + body


def eventually(look: Callable[[], bool], limit_s: float = 10) -> bool:
    """Look again and again; whether it became true within the limit."""
    limit = time.monotonic() + limit_s
    while not (seen := look()) and time.monotonic() < limit:
        time.sleep(0.1)
    return seen
