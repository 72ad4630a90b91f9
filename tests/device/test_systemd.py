"""The messages to systemd."""

import socket
from pathlib import Path

import pytest

from iot_agent.host import systemd
from iot_agent.host.systemd import Notifier
from tests.device.evil_text import EVIL, obeyed


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "notify"))
    made.settimeout(5)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return made


@pytest.mark.parametrize("text", [EVIL, "x\n" * 5000, "…" * 5000, "\n", ""])
def test_a_status_is_one_line_that_systemd_takes(manager: socket.socket, text: str) -> None:
    notifier = Notifier()
    notifier.status(f"acked: {text}")
    with manager:
        heard = manager.recv(65536)
    assert len(heard) < 4096, "systemd would pass over it"
    assert heard.decode().startswith("STATUS=acked: ")
    assert heard.count(b"\n") == 0
    assert obeyed(heard.decode()) == set()


def test_a_status_that_is_not_cleaned_would_be_noticed(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "printable", lambda text: text.replace("\ud800", ""))
    Notifier().status(EVIL)
    with manager:
        assert b"\nWATCHDOG=trigger" in manager.recv(65536)
