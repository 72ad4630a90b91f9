"""The local cloud as a process: where it listens, what it leaves behind, when it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloud.local import LocalCloud, LocalCloudError
from cloud.local.handle import ROOT
from tests.local.local_stack import eventually

if TYPE_CHECKING:
    from tests.local.local_stack import Stage

pytestmark = pytest.mark.local_cloud


def session_of(pid: int) -> list[int]:
    """Return the processes of the session that the process leads (proc(5), stat)."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            members.append(int(path.parent.name))
    return members


def listening(pid: int) -> list[str]:
    """Return the addresses that the process listens on."""
    lines = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[3] for line in lines if f"pid={pid}," in line]


def test_it_listens_on_loopback_only(stage: Stage) -> None:
    addresses = listening(stage.here.pid)
    assert len(addresses) == 2
    assert all(address.startswith("127.0.0.1:") for address in addresses), addresses


def test_the_check_above_would_see_another_interface() -> None:
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))  # noqa: S104 - the planted bug
        everywhere.listen()
        assert any(address.startswith("0.0.0.0:") for address in listening(os.getpid()))


def test_it_says_where_it_is(stage: Stage) -> None:
    told = json.loads((stage.cloud.directory / "cloud.json").read_text())
    assert set(told) == {
        "endpoint_url", "region", "account", "mqtt_host", "mqtt_port", "mqtt_ca", "pid", "credentials",
    }  # fmt: skip
    assert (
        stage.session.client("sts", endpoint_url=told["endpoint_url"]).get_caller_identity()["Account"]
        == told["account"]
    )


def test_its_environment_leaves_out_the_callers_own_aws(stage: Stage) -> None:
    environment = stage.here.environment({"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "x", "PATH": "/bin"})
    assert environment["PATH"] == "/bin"
    assert "AWS_PROFILE" not in environment
    assert "AWS_SESSION_TOKEN" not in environment
    assert environment["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")


def test_a_second_in_the_same_directory_is_refused(stage: Stage) -> None:
    with pytest.raises(LocalCloudError, match="running in"):
        LocalCloud(stage.cloud.directory).start()
    assert (stage.cloud.directory / "cloud.json").exists()


def test_stopped_it_leaves_only_its_log(tmp_path: Path) -> None:
    with LocalCloud(tmp_path) as cloud:
        pid = cloud.description.pid
        assert session_of(pid)
    assert [path.name for path in tmp_path.iterdir()] == ["emulator.log"]
    assert not session_of(pid)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_whoever_started_it(tmp_path: Path, how: signal.Signals) -> None:
    words = [sys.executable, "-m", "cloud.local", "up", "--dir", str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert "ready" in up.stdout.readline()
        pid = json.loads((tmp_path / "cloud.json").read_text())["pid"]
        up.send_signal(how)
        assert up.wait(15) == (-how if how == signal.SIGKILL else 0)
    assert eventually(lambda: not session_of(pid))
    if how != signal.SIGKILL:
        assert [path.name for path in tmp_path.iterdir()] == ["emulator.log"]


def test_after_a_kill_it_starts_again_in_the_same_directory(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path).start()
    os.kill(cloud.description.pid, signal.SIGKILL)
    cloud.wait()
    with LocalCloud(tmp_path):
        pass
    cloud.stop()
    assert [path.name for path in tmp_path.iterdir()] == ["emulator.log"]


def test_a_port_that_is_taken_is_an_error_with_the_log(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LocalCloudError, match="already in use"):
            LocalCloud(tmp_path, port=taken.getsockname()[1]).start()
