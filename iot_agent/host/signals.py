"""SIGTERM, SIGINT and SIGHUP set flags and write to a socket, so that a selector that waits for it wakes up.

Made once, at the start, so that no signal is lost between waiting for a configuration and running with it.
"""

import signal
import socket


class Signals:
    """`stop` is set by SIGTERM and SIGINT; `reload` by SIGHUP, until the loop that obeys it clears it."""

    def __init__(self) -> None:
        self.stop = self.reload = False
        self._receiving, self._sending = socket.socketpair()
        for end in (self._receiving, self._sending):
            end.setblocking(False)  # noqa: FBT003 - positional only
        signal.set_wakeup_fd(self._sending.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop", True))
        signal.signal(signal.SIGINT, lambda *_: setattr(self, "stop", True))
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "reload", True))

    def fileno(self) -> int:
        """For the selector."""
        return self._receiving.fileno()

    def drain(self) -> None:
        """Read what woke the selector; the flags say which signal it was."""
        self._receiving.recv(64)
