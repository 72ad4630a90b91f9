"""The socket in the daemon's own loop: who may ask what, and what abuse comes to nothing."""

import json
import os
import resource
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from iot_agent.host import control_socket
from iot_agent.host.control_socket import ControlServer, InUse, ask
from tests.device.faulty_device import acting_as


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
    monkeypatch.setattr(control_socket, "CLIENT_LIMIT", 0.5)
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
    monkeypatch.setattr(control_socket, "peer_uid", lambda _connection: os.getuid() + 4242)
    assert ask(loop.path, "status")["ok"]
    refused = ask(loop.path, "rotate")
    assert refused["error"] == "not-permitted"
    assert refused["message"].endswith("run: sudo agentctl rotate")
    assert loop.asked == ["status"]


def test_the_kernel_names_the_peer() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert control_socket.peer_uid(ours) == os.getuid()


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


# ---- more clients than there is room for ----------------------------------------------------------------------------


class Served:
    """A server whose loop the test turns by hand: `turn` is one look at the selector."""

    def __init__(self, path: Path) -> None:
        self.path, self.selector = path, selectors.DefaultSelector()
        self.server = ControlServer(path, self.selector, lambda _: {"ok": True})
        self._open = ExitStack()

    def turn(self) -> int:
        """Serve what is ready; give how much was."""
        ready = self.selector.select(0)
        for key, _ in ready:
            key.data()
        return len(ready)

    def connect(self, said: bytes = b"") -> socket.socket:
        connection = self._open.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(5)
        connection.connect(str(self.path))
        if said:
            connection.sendall(said)
        return connection

    def served(self, connection: socket.socket) -> bool:
        for _ in range(4):
            self.turn()
        try:
            return connection.recv(100) == b'{"ok": true}\n'
        except (ConnectionError, TimeoutError):
            return False

    def close(self) -> None:
        self._open.close()
        self.server.close()
        self.selector.close()


@pytest.fixture
def hand(open_place: Path) -> Iterator[Served]:
    served = Served(open_place / "control.sock")
    served.path.chmod(0o666)  # for strangers without a group of ours
    yield served
    served.close()


REQUEST = b'{"command": "status"}\n'


def crowd(hand: Served, count: int) -> list[socket.socket]:
    """Let strangers in who say nothing."""
    with acting_as(4321, 4321):
        return [hand.connect() for _ in range(count)]


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "count", [control_socket.MAX_CLIENTS, 5 * control_socket.MAX_CLIENTS, control_socket.BACKLOG - 1]
)
def test_root_is_served_whoever_crowds_the_socket(hand: Served, count: int) -> None:
    crowd(hand, count)
    assert hand.served(hand.connect(REQUEST))


@pytest.mark.needs_root
def test_root_that_is_being_served_is_not_dropped_for_a_crowd(hand: Served) -> None:
    root = hand.connect()
    hand.turn()
    crowd(hand, 3 * control_socket.MAX_CLIENTS)
    hand.turn()
    root.sendall(REQUEST)
    assert hand.served(root)


@pytest.mark.needs_root
def test_a_stranger_takes_the_place_of_the_one_that_has_been_there_longest(hand: Served) -> None:
    silent = crowd(hand, control_socket.MAX_CLIENTS)
    hand.turn()
    with acting_as(4321, 4321):
        asking = hand.connect(REQUEST)
    assert hand.served(asking)
    assert silent[0].recv(1) == b"", "the first was dropped"
    silent[1].sendall(REQUEST)
    assert hand.served(silent[1]), "and no other"


@pytest.mark.needs_root
def test_nobody_is_dropped_for_a_stranger_while_root_has_every_place(hand: Served) -> None:
    roots = [hand.connect() for _ in range(control_socket.MAX_CLIENTS)]
    hand.turn()
    (stranger,) = crowd(hand, 1)
    hand.turn()
    assert stranger.recv(1) == b""
    roots[0].sendall(REQUEST)
    assert hand.served(roots[0])
    assert hand.served(hand.connect(REQUEST)), "root's own newcomer takes the oldest place"


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("place", "name", "bug"),
    [
        (ControlServer, "_make_room", lambda self, _: len(self._clients) < control_socket.MAX_CLIENTS),
        (control_socket, "BACKLOG", 1),
    ],
    ids=["no room is made", "one is let in at a time"],
)
def test_a_planted_bug_would_keep_root_out(
    hand: Served, monkeypatch: pytest.MonkeyPatch, place: object, name: str, bug: object
) -> None:
    monkeypatch.setattr(place, name, bug)
    crowd(hand, 5 * control_socket.MAX_CLIENTS)
    root = hand.connect(REQUEST)
    root.settimeout(0.1)
    assert not hand.served(root)


@pytest.mark.needs_root
def test_a_client_that_was_dropped_in_the_same_turn_is_not_served_any_more(hand: Served) -> None:
    silent = crowd(hand, control_socket.MAX_CLIENTS)
    hand.turn()
    for connection in silent:
        connection.sendall(REQUEST)
    crowd(hand, control_socket.MAX_CLIENTS)
    for _ in range(4):
        hand.turn()
    assert hand.served(hand.connect(REQUEST))


# ---- a machine without descriptors ----------------------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process no descriptor to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    os.close(probe)
    filler = []
    try:
        while True:
            try:
                filler.append(os.dup(0))
            except OSError:
                break
        yield
    finally:
        for descriptor in filler:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_it_neither_spins_nor_ends_and_serves_when_there_are_some(
    hand: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "NO_ACCEPT", 0.0)
    waiting = hand.connect(REQUEST)
    with no_descriptors():
        assert hand.turn() == 1
        assert [hand.turn() for _ in range(5)] == [0] * 5, "the listener would be ready for ever"
        hand.server.expire()
        assert hand.turn() == 1, "it listens again, and is told so again"
    hand.server.expire()
    assert hand.served(waiting)


def test_the_daemon_wakes_up_to_listen_again(hand: Served) -> None:
    hand.connect()
    with no_descriptors():
        hand.turn()
    pause = hand.server.expire()
    assert pause is not None
    assert 0 < pause <= control_socket.NO_ACCEPT


# ---- whose socket it is ---------------------------------------------------------------------------------------------


def test_a_socket_that_answers_is_left_alone(hand: Served) -> None:
    with pytest.raises(InUse, match=rf"another daemon \(pid {os.getpid()}\) answers at "):
        ControlServer(hand.path, selectors.DefaultSelector(), lambda _: {})
    assert hand.served(hand.connect(REQUEST))


def test_a_socket_that_is_too_busy_to_answer_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket, "CLIENT_LIMIT", 0.1)
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as crowd:
        busy.bind(str(path))
        busy.listen(0)
        crowd.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        with pytest.raises(InUse, match="pid unknown"):
            ControlServer(path, selectors.DefaultSelector(), lambda _: {})
        assert path.exists()


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    served = Served(path)
    assert served.served(served.connect(REQUEST))
    served.close()


def test_taking_the_socket_without_asking_would_be_noticed(hand: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket, "_remove_left_behind", lambda path: path.unlink(missing_ok=True))
    thief = Served(hand.path)
    asking = hand.connect(REQUEST)
    asking.settimeout(0.1)
    assert not hand.served(asking)
    thief.close()
