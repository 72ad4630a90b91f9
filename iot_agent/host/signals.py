"""SIGTERM, SIGINT and SIGHUP as flags, and as bytes on a socket so that a selector wakes up for them.

Made once, before anything else: a signal that comes between two stages of the daemon's life is not lost.
"""

import signal
import socket


class Signals:
    """`stop` is set by SIGTERM and SIGINT; `reload` by SIGHUP, until whoever serves it clears it."""

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
        """Take what woke the selector; the flags say what it was."""
        self._receiving.recv(64)
