"""The files that a device really keeps are those of `storage/layout.py`, with its modes."""

import os
import re
import selectors
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot_agent.host.control_socket import ControlServer
from iot_agent.storage import layout
from iot_agent.worker.connect_throttle import ConnectThrottle
from tests.simulator.device import SimulatedDevice


@pytest.fixture(autouse=True)
def the_agents_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def kept(directory: Path) -> dict[str, int]:
    """Give the mode of each file and directory below, without links and the simulator's own vendor files."""
    found = {}
    for path in directory.rglob("*"):
        if not path.is_symlink() and not path.name.startswith("vendor."):
            found["<label>" if layout.is_label(path.name) else path.name] = stat.S_IMODE(path.stat().st_mode)
    return found


def documented(name: str) -> int:
    """Read a file's mode in the table at the head of the module."""
    row = re.search(rf"[ `]{re.escape(name)}\W.*?(0[0-7]{{3}})", layout.__doc__ or "")
    assert row is not None, name
    return int(row[1], 8)


def test_a_life_leaves_these_files_with_these_modes(tmp_path: Path) -> None:
    SimulatedDevice(tmp_path).life(rotations=1)
    found = kept(tmp_path)
    assert found == {
        "state.json": 0o600,
        "state.json.previous": 0o600,
        "identities": 0o700,
        "<label>": 0o700,
        "key.pem": 0o600,
        "csr.pem": 0o600,
        "certificate.pem": 0o644,
        "chain.pem": 0o644,
        "identity.json": 0o600,
    }
    assert found == {name: documented(name) for name in found}


def test_the_run_directory_s_files_have_the_modes_of_the_table(tmp_path: Path) -> None:
    with selectors.DefaultSelector() as selector:
        server = ControlServer(tmp_path / layout.CONTROL_SOCKET, selector, lambda _: {})
        ConnectThrottle(tmp_path / layout.LAST_CONNECT)()
        found = kept(tmp_path)
        server.close()
    assert found == {"control.sock": 0o660, "last-connect": 0o600}
    assert found == {name: documented(name) for name in found}


def test_a_new_label_is_a_label_of_ours() -> None:
    label = layout.new_label(1_790_000_000.5, b"\x01\x02\x03\xff")
    assert label == "iot-agent-20260921T141320Z-010203ff"
    assert layout.is_label(label)
    assert not layout.is_label("../iot-agent-1")
    assert not layout.is_label("iot-agent-" + "a" * 81)
