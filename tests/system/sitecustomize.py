"""Loaded by the agent's interpreter in one test: SIGUSR2 hangs the loop in a process that lives on.

With LAB_FEED a thread feeds the watchdog meanwhile: the mistake that the test must be able to see.
"""

import os
import signal
import threading
import time

from sdnotify import SystemdNotifier


def feed() -> None:
    notifier = SystemdNotifier()
    while True:
        notifier.notify("WATCHDOG=1")
        time.sleep(0.5)


signal.signal(signal.SIGUSR2, lambda *_: time.sleep(3600))
if "LAB_FEED" in os.environ:
    threading.Thread(target=feed, daemon=True).start()
