"""A relay between agent and broker that counts the bytes of both directions, TLS and all."""

from __future__ import annotations

import selectors
import socket
import threading


class Relay:
    """Listens on localhost and passes everything on to `port` there."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("localhost", 0))
        self.port: int = self._listener.getsockname()[1]
        self.counted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        server = socket.create_connection(("localhost", self._target))
        other = {client: server, server: client}
        with selectors.DefaultSelector() as ready, client, server:
            for end, opposite in other.items():
                ready.register(end, selectors.EVENT_READ, opposite)
            while True:
                for key, _ in ready.select():
                    source, target = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    try:
                        data = source.recv(65536)
                        target.sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    self.counted += len(data)
