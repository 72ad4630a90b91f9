"""The child process of the local cloud: MiniStack on loopback only, with JITP; it ends when its parent ends.

Run by `handle`, which gives it its environment: `python -m cloud.local.emulator JITP_DELAY_SECONDS`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import threading
import time
from typing import Any

from cloud.local import jitp

STOP_GRACE_S = 5.0


def main() -> None:
    """Serve until SIGTERM, SIGINT or the end of standard input."""
    delay_s = float(sys.argv.pop(1))  # MiniStack reads the rest of the command line itself
    # MiniStack is installed in the local cloud's environment only, not where types are checked.
    iot: Any = importlib.import_module("ministack.services.iot")
    keep_to_loopback()
    make_certificate_before_listening(iot)
    jitp.install(iot, importlib.import_module("ministack.core.responses"), delay_s)
    threading.Thread(target=end_with_parent, daemon=True).start()
    importlib.import_module("ministack.app").main()


def keep_to_loopback() -> None:
    """Bind every listener to BIND_HOST: MiniStack's MQTT listener would ignore it and bind every interface."""
    create_server = asyncio.BaseEventLoop.create_server

    async def create_loopback_server(
        self: asyncio.BaseEventLoop,
        factory: object,
        host: object = None,
        *args: object,
        **options: object,
    ) -> object:
        if options.get("sock") is None:
            host = os.environ["BIND_HOST"]
        return await create_server(self, factory, host, *args, **options)  # type: ignore[call-overload] # passed on unchanged

    asyncio.BaseEventLoop.create_server = create_loopback_server  # type: ignore[assignment,method-assign] # replaced on purpose


def make_certificate_before_listening(iot: Any) -> None:  # noqa: ANN401 - an untyped module
    """Make the broker's certificate before its first client, which would otherwise wait for it.

    The asyncio of Python 3.11.2, which is Debian 12's, reads from a new connection although it is paused: what that
    client sends meanwhile would be lost, and the client hang.
    """
    start = iot.mtls_start

    async def prepare_and_start() -> None:
        await iot._mtls_context()  # noqa: SLF001 - it creates the certificate once
        await start()

    iot.mtls_start = prepare_and_start


def end_with_parent() -> None:
    """Stop when standard input ends, which is when the parent process has ended; after a grace period by force."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
