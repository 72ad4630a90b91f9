"""The Unix socket between `agentctl` and the daemon: one line of JSON each way.

Reading (`status`, `history`) is for whoever the socket's mode and group let in; changing (`rotate`) is for root and for
the daemon's own user, as the kernel names the peer (SO_PEERCRED, unix(7)). A request is at most 4 KiB and must come
within five seconds; at most eight clients at a time. Nothing a client does can block the daemon.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which would be an eighth of agentctl's time
if TYPE_CHECKING:
    from typing import Any

    Handler = Callable[[str], dict[str, Any]]

MAX_REQUEST = 4096
MAX_REPLY = 1024 * 1024
MAX_CLIENTS = 8
PATIENCE = 5.0
READING, CHANGING = frozenset({"status", "history"}), frozenset({"rotate"})


class Client:
    """One connection being served."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.deadline = time.monotonic() + PATIENCE
        self.received = bytearray()
        self.to_send = b""


class ControlServer:
    """Serves the socket inside the daemon's own selector; `handler` answers a permitted command."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, handler: Handler) -> None:
        self._path, self._selector, self._handler = path, selector, handler
        self._clients: set[Client] = set()
        path.unlink(missing_ok=True)  # ours alone: whoever is here holds the state directory's lock
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        path.chmod(0o660)
        self._listener.listen(MAX_CLIENTS)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop serving and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def expire(self) -> float | None:
        """Drop clients that are too slow; give the seconds until the next one would be, or None."""
        now = time.monotonic()
        for client in [client for client in self._clients if client.deadline <= now]:
            self._drop(client)
        return min((client.deadline - now for client in self._clients), default=None)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it has gone again, or we are out of descriptors: either way there is nobody to serve
        connection.setblocking(False)  # noqa: FBT003 - positional only
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        client = Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: Client) -> None:
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
            client.to_send = json.dumps(self._answer(line, client.connection)).encode() + b"\n"
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

    def _answer(self, line: bytes, connection: socket.socket) -> dict[str, Any]:
        try:
            command = json.loads(line)["command"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"ok": False, "error": "bad-request", "message": 'a request is one line: {"command": "status"}'}
        known = READING | CHANGING
        if not isinstance(command, str) or command not in known:
            return {"ok": False, "error": "bad-request", "message": f"unknown command; known: {sorted(known)}"}
        uid = peer_uid(connection)
        if command in CHANGING and uid not in (0, os.getuid()):
            message = f"{command} is for root and the agent's own user; you are uid {uid}"
            return {"ok": False, "error": "not-permitted", "message": message}
        return self._handler(command)

    def _drop(self, client: Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()


def peer_uid(connection: socket.socket) -> int:
    """Ask the kernel whose process is at the other end."""
    return _peer(connection)[1]


def daemon_pid(path: Path) -> int:
    """Ask the kernel which process serves this socket; raises `OSError` when none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        _connect(connection, path, time.monotonic() + PATIENCE)
        return _peer(connection)[0]


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """Give pid, uid and gid of the other end (struct ucred)."""
    layout = struct.Struct("3i")
    pid, uid, gid = layout.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    return pid, uid, gid


def ask(path: Path, command: str, timeout: float = PATIENCE) -> dict[str, Any]:
    """Send one command to the daemon; raises `OSError` when nobody answers and `ValueError` for nonsense."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        _connect(connection, path, time.monotonic() + timeout)
        connection.sendall(json.dumps({"command": command}).encode() + b"\n")
        received = bytearray()
        while piece := connection.recv(65536):
            received += piece
            if len(received) > MAX_REPLY:
                raise ValueError("the answer is too long")
    answer = json.loads(received)
    if not isinstance(answer, dict):
        raise ValueError("the answer is not an object")  # noqa: TRY004 - the peer's fault, not the caller's type
    return answer


def _connect(connection: socket.socket, path: Path, deadline: float) -> None:
    """Connect, and stand in line while the daemon's queue is full: Linux says EAGAIN then, at once."""
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
