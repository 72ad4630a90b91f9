"""The Unix socket between `agentctl` and the daemon: one line of JSON each way.

The mode and group of the socket decide who may read (`status`, `history`). Only root and the daemon's own user may
change something (`rotate`, `cancel`); the kernel says who the client is (SO_PEERCRED, unix(7)). A request has at most
4 KiB and must come within five seconds. At most eight clients are served at a time: a ninth replaces the oldest one,
but root and the daemon's own user are replaced only by each other. No client can block the daemon.
"""

import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Handler = Callable[[str], dict[str, Any]]
MAX_REQUEST = 4096
MAX_REPLY = 1024 * 1024
MAX_CLIENTS = 8
BACKLOG = 128  # clients that the kernel queues; all that are queued are accepted at once
CLIENT_LIMIT = 5.0
NO_ACCEPT = 1.0  # seconds after a failed accept(2): tried at once, it would fail at once, without end
# What may be raised when an answer is shown that is not one of ours: something is missing, or is of another type.
SENSELESS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
READING, CHANGING = frozenset({"status", "history"}), frozenset({"rotate", "cancel"})


class InUse(Exception):
    """A daemon answers at the socket."""


class Client:
    """One client; `trusted` if it is root or the daemon's own user."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.uid = peer_uid(connection)
        self.trusted = self.uid in (0, os.getuid())
        self.deadline = time.monotonic() + CLIENT_LIMIT
        self.received = bytearray()
        self.to_send = b""


class ControlServer:
    """Serves the socket inside the daemon's own selector; `handler` answers a permitted command.

    Raises `InUse` if somebody else serves it, and `OSError` if it cannot be made.
    """

    def __init__(self, path: Path, selector: selectors.BaseSelector, handler: Handler) -> None:
        self._path, self._selector, self._handler = path, selector, handler
        self._clients: list[Client] = []  # the oldest first
        self._accept_again_at: float | None = None
        _remove_left_behind(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        path.chmod(0o660)
        self._listener.listen(BACKLOG)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop serving and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        if self._accept_again_at is None:
            self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def expire(self) -> float | None:
        """Drop slow clients, accept again after a failure; give the seconds until one of these is due, or None."""
        now = time.monotonic()
        for client in [client for client in self._clients if client.deadline <= now]:
            self._drop(client)
        if self._accept_again_at is not None and self._accept_again_at <= now:
            self._listen(now)
        moments = [client.deadline for client in self._clients]
        if self._accept_again_at is not None:
            moments.append(self._accept_again_at)
        return min((moment - now for moment in moments), default=None)

    def _listen(self, now: float) -> None:
        try:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._accept_again_at = None
        except OSError:  # the kernel has no memory for it
            self._accept_again_at = now + NO_ACCEPT

    def _accept(self) -> None:
        """Accept all who are queued: root may be the last of many."""
        for _ in range(BACKLOG):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return  # no client is left, or it has gone
            except OSError:  # no descriptor or memory is left: the listener would be ready again at once
                self._selector.unregister(self._listener)
                self._accept_again_at = time.monotonic() + NO_ACCEPT
                return
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # noqa: FBT003 - positional only
        try:
            client = Client(connection)
            if not self._make_room(client):
                connection.close()
                return
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(client))
        except OSError:
            connection.close()
            return
        self._clients.append(client)

    def _make_room(self, newcomer: Client) -> bool:
        """If there are too many, drop the oldest client that the newcomer may replace; give False if there is none."""
        if len(self._clients) < MAX_CLIENTS:
            return True
        strangers = [client for client in self._clients if not client.trusted]
        droppable = strangers or (self._clients if newcomer.trusted else [])
        if droppable:
            self._drop(droppable[0])
        return bool(droppable)

    def _serve(self, client: Client) -> None:
        if client not in self._clients:
            return  # it was replaced after the selector had named it
        try:
            if client.to_send:
                self._send(client)
            else:
                self._receive(client)
        except OSError:
            self._drop(client)

    def _receive(self, client: Client) -> None:
        piece = client.connection.recv(MAX_REQUEST)
        client.received += piece
        line, newline, _ = bytes(client.received).partition(b"\n")
        if newline:
            client.to_send = json.dumps(self._answer(line, client)).encode() + b"\n"
            self._selector.modify(client.connection, selectors.EVENT_WRITE, lambda: self._serve(client))
            self._send(client)
        elif not piece or len(client.received) > MAX_REQUEST:
            self._drop(client)

    def _send(self, client: Client) -> None:
        try:
            client.to_send = client.to_send[client.connection.send(client.to_send) :]
        except BlockingIOError:
            return
        if not client.to_send:
            self._drop(client)

    def _answer(self, line: bytes, client: Client) -> dict[str, Any]:
        try:
            command = json.loads(line)["command"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"ok": False, "error": "bad-request", "message": 'a request is one line: {"command": "status"}'}
        known = READING | CHANGING
        if not isinstance(command, str) or command not in known:
            return {"ok": False, "error": "bad-request", "message": f"unknown command; known: {sorted(known)}"}
        if command in CHANGING and not client.trusted:
            message = f"{command} is for root and the agent's own user; run: sudo agentctl {command}"
            return {"ok": False, "error": "not-permitted", "message": message}
        return self._handler(command)

    def _drop(self, client: Client) -> None:
        self._clients.remove(client)
        self._selector.unregister(client.connection)
        client.connection.close()


def _remove_left_behind(path: Path) -> None:
    """Remove the socket of a daemon that was killed; raises `InUse` if a daemon answers, or is too busy to answer."""
    try:
        pid = str(daemon_pid(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except BlockingIOError:
        pid = "unknown"
    raise InUse(f"another daemon (pid {pid}) answers at {path}")


def peer_uid(connection: socket.socket) -> int:
    """Ask the kernel for the user of the process at the other end."""
    return _peer(connection)[1]


def daemon_pid(path: Path) -> int:
    """Ask the kernel which process serves this socket; raises `OSError` when none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CLIENT_LIMIT)
        _connect(connection, path, time.monotonic() + CLIENT_LIMIT)
        return _peer(connection)[0]


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """Give pid, uid and gid of the other end (struct ucred)."""
    layout = struct.Struct("3i")
    pid, uid, gid = layout.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    return pid, uid, gid


def ask(path: Path, command: str, timeout: float = CLIENT_LIMIT) -> dict[str, Any]:
    """Send one command to the daemon; raises `OSError` without an answer, `ValueError` for a wrong one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        _connect(connection, path, time.monotonic() + timeout)
        connection.sendall(json.dumps({"command": command}).encode() + b"\n")
        received = bytearray()
        while piece := connection.recv(65536):
            received += piece
            if len(received) > MAX_REPLY:
                raise ValueError("the answer is too long")
    try:
        answer = json.loads(received)
    except RecursionError as error:
        raise ValueError("the answer is nested too deep") from error
    if not isinstance(answer, dict):
        raise ValueError("the answer is not an object")  # noqa: TRY004 - the peer's fault, not the caller's type
    return answer


def _connect(connection: socket.socket, path: Path, deadline: float) -> None:
    """Connect; while the daemon's queue is full, connect(2) fails with EAGAIN, and this tries again."""
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
