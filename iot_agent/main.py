"""`iot-agent`, the composition root of the daemon: the only module that knows everyone.

Exit status (sysexits.h): 0 stopped as asked, 64 wrong arguments, 73 the state or run directory cannot be made,
75 another daemon serves this state directory, 78 the configuration or the state is not one to run with.
"""

import argparse
import fcntl
import logging
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from iot_agent import __version__, durable, log
from iot_agent.applications import TellingStore
from iot_agent.children import BadConfiguration, Worker, read_configuration
from iot_agent.cli import Parser
from iot_agent.clock import FlooredClock
from iot_agent.codec import LaterFormat
from iot_agent.control import ControlServer
from iot_agent.daemon import Daemon, Parts
from iot_agent.identities import IdentityDirectories
from iot_agent.record import Record
from iot_agent.settings import Settings
from iot_agent.store import RecordStore
from iot_agent.systemd import Notifier, watchdog_interval

DEFAULT_CONFIG = Path("/etc/iot-agent/agent.yaml")
FIXED = ("serial", "state_directory", "run_directory", "identity_group")
logger = logging.getLogger("iot_agent")


class Stop(Exception):
    """The daemon cannot start: (exit status, what to tell)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def main() -> int:
    """Run the daemon until it is told to stop."""
    arguments = _arguments()
    log.configure("info")
    os.umask(0o077)
    try:
        settings = _read(arguments.config)
        if arguments.check:
            sys.stdout.write(f"{arguments.config}: good; serial {settings.serial}, endpoint {settings.endpoint_host}\n")
            return os.EX_OK
        log.configure(settings.log_level)
        _serve(arguments.config, settings)
    except Stop as stop:
        sys.stderr.write(f"iot-agent: {stop}\n")
        return stop.status
    return os.EX_OK


def _arguments() -> argparse.Namespace:
    parser = Parser(
        prog="iot-agent", description="Onboards this device to AWS IoT Core and keeps its certificate fresh."
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="configuration file (default: %(default)s)")
    parser.add_argument(
        "--check", action="store_true", help="check the configuration file and exit (78 if it is wrong)"
    )
    parser.add_argument("--version", action="version", version=f"iot-agent {__version__}")
    return parser.parse_args()


def _read(path: Path) -> Settings:
    try:
        return read_configuration(path)
    except BadConfiguration as error:
        raise Stop(os.EX_CONFIG, f"the configuration is refused:\n{error}") from error


def _serve(config: Path, settings: Settings) -> None:
    _make_directories(settings)
    lock = _lock(settings.state_directory)
    identities = IdentityDirectories(settings.state_directory)
    store = RecordStore(settings.state_directory, identities, settings.serial)
    try:
        record = _load(store, identities, settings)
    except (LaterFormat, OSError) as error:
        raise Stop(os.EX_CONFIG, f"cannot use the state in {settings.state_directory}: {error}") from error
    logger.info("iot-agent %s, serial %s, state %s", __version__, record.serial, record.state)
    applications = TellingStore(store, identities, settings)
    applications.begin(record)
    clock = FlooredClock(record.time_floor)
    parts = Parts(
        settings=settings,
        store=applications,
        clock=clock,
        notifier=Notifier(),
        launch=Worker,
        serve=lambda selector, handler: ControlServer(settings.socket, selector, handler),
        reload=lambda: _reload(config, settings, applications),
        new_label=lambda: _new_label(clock.now()),
        new_request_id=lambda: os.urandom(8).hex(),
        watchdog=watchdog_interval(),
    )
    try:
        Daemon(parts, record).run()
    finally:
        os.close(lock)


def _load(store: RecordStore, identities: IdentityDirectories, settings: Settings) -> Record:
    """Load the record, repair `current` to match it, and mark what nothing refers to as left over."""
    record = store.load()
    if record.serial != settings.serial:
        raise Stop(
            os.EX_CONFIG,
            f"{settings.state_directory} belongs to serial {record.serial}; the configuration says {settings.serial}. "
            "If the device was re-provisioned on purpose, move that directory away; a copied image must not keep it.",
        )
    if record.active is not None:
        identities.point_current(record.active.label)
    orphans = identities.labels() - record.kept - set(record.leftovers)
    return replace(record, leftovers=(*record.leftovers, *sorted(orphans))) if orphans else record


def _reload(config: Path, running: Settings, applications: TellingStore) -> Settings:
    """Read the configuration again; raises `ValueError` with what is wrong with it."""
    try:
        settings = read_configuration(config)
    except BadConfiguration as error:
        raise ValueError(str(error)) from error
    changed = [name for name in FIXED if getattr(settings, name) != getattr(running, name)]
    if changed:
        raise ValueError(f"{', '.join(changed)} can only change with a restart")
    log.configure(settings.log_level)
    applications.reload(settings)
    return settings


def _make_directories(settings: Settings) -> None:
    for path, mode in ((settings.state_directory, 0o700), (settings.run_directory, 0o755)):
        try:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise Stop(os.EX_CANTCREAT, f"cannot make {path}: {error.strerror}") from error


def _lock(state: Path) -> int:
    """Hold the state directory for this process's life; the kernel lets go of it however the process ends."""
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, durable.PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        raise Stop(os.EX_TEMPFAIL, f"another daemon (pid {holder}) serves {state}; stop it first") from error
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _new_label(now: float) -> str:
    return f"iot-agent-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}"


if __name__ == "__main__":
    sys.exit(main())
