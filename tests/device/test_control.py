"""The socket in the daemon's own loop: who may ask what, and what abuse comes to nothing."""

import json
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot_agent import control
from iot_agent.control import ControlServer, ask


class Loop:
    """A selector loop in a thread, as the daemon's."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, list[str]()
        self._selector = selectors.DefaultSelector()
        self._server = ControlServer(path, self._selector, self._answer)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _answer(self, command: str) -> dict[str, Any]:
        self.asked.append(command)
        return {"ok": True, "padding": "x" * 300_000} if command == "history" else {"ok": True}

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.02):
                key.data()
            self._server.expire()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._server.close()


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    monkeypatch.setattr(control, "PATIENCE", 0.5)
    loop = Loop(tmp_path / "control.sock")
    yield loop
    loop.close()


def raw(loop: Loop, *pieces: bytes) -> bytes:
    """Send bytes as they are and read until the end."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(loop.path))
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while piece := connection.recv(65536):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
        return received


def test_root_and_the_agents_own_user_may_do_everything(loop: Loop) -> None:
    assert ask(loop.path, "status")["ok"]
    assert ask(loop.path, "rotate")["ok"]
    assert loop.asked == ["status", "rotate"]


def test_a_stranger_may_look_but_not_touch(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "peer_uid", lambda _connection: os.getuid() + 4242)
    assert ask(loop.path, "status")["ok"]
    refused = ask(loop.path, "rotate")
    assert refused["error"] == "not-permitted"
    assert "you are uid" in refused["message"]
    assert loop.asked == ["status"]


def test_the_kernel_names_the_peer() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert control.peer_uid(ours) == os.getuid()


def test_the_socket_is_not_for_everyone(loop: Loop) -> None:
    assert loop.path.stat().st_mode & 0o777 == 0o660


def test_a_long_answer_arrives_whole(loop: Loop) -> None:
    assert len(ask(loop.path, "history")["padding"]) == 300_000


NONSENSE = [b"hello", b"{}", b"[]", b"null", b"[" * 4000, b'{"command": 5}', b'{"command": "halt"}']


@pytest.mark.parametrize("line", NONSENSE)
def test_nonsense_is_answered_as_such(line: bytes, loop: Loop) -> None:
    assert json.loads(raw(loop, line + b"\n"))["error"] == "bad-request"
    assert loop.asked == []


@pytest.mark.parametrize("sent", [b"x" * 100_000, b'{"command"', b""], ids=["endless line", "half a line", "silence"])
def test_what_is_too_long_or_too_slow_is_dropped_without_an_answer(sent: bytes, loop: Loop) -> None:
    assert raw(loop, sent) == b""
    assert ask(loop.path, "status")["ok"]


def test_a_flood_of_silent_clients_delays_others_only_until_they_are_dropped(loop: Loop) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(control.MAX_CLIENTS)]
    for connection in silent:
        connection.connect(str(loop.path))
    with pytest.raises((OSError, ValueError)):
        ask(loop.path, "status")
    assert [connection.recv(1) for connection in silent] == [b""] * len(silent)
    assert ask(loop.path, "status")["ok"]
    for connection in silent:
        connection.close()
