"""`iot-agent`, the daemon: connects the rooms, and chooses the adapter behind each port.

If the configuration is missing, wrong, or of another device, `resident/unconfigured.py` waits until it is corrected.
Exit statuses (sysexits.h): `EXIT_STATUS`.
"""

import argparse
import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from iot_agent import __version__
from iot_agent.core import journal_events
from iot_agent.core.codec import LaterFormat
from iot_agent.core.record import Record
from iot_agent.core.settings import Settings
from iot_agent.host import agent_user, journal
from iot_agent.host.argument_parser import Parser
from iot_agent.host.control_socket import ControlServer, InUse
from iot_agent.host.signals import Signals
from iot_agent.host.subprocesses import BadConfiguration, Worker, read_configuration
from iot_agent.host.systemd import Notifier, given_directory, watchdog_interval
from iot_agent.resident.clock import FlooredClock
from iot_agent.resident.cycle import Cycle, Means
from iot_agent.resident.daemon import Daemon, Dependencies
from iot_agent.resident.unconfigured import Unconfigured
from iot_agent.status import prometheus
from iot_agent.storage import layout
from iot_agent.storage.application_access import ApplicationAccess
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.record_store import RecordStore

DEFAULT_CONFIG = Path("/etc/iot-agent/agent.yaml")
DEFAULT_STATE, DEFAULT_RUN = Path("/var/lib/iot-agent"), Path("/run/iot-agent")
FIXED = ("serial", "state_directory", "run_directory", "metrics_textfile", "identity_group")
EXIT_STATUS = {
    os.EX_OK: "stopped as asked; with --check: the configuration is good",
    os.EX_USAGE: "wrong arguments",
    os.EX_CANTCREAT: "the state directory, the run directory or the control socket cannot be made",
    os.EX_TEMPFAIL: "another daemon serves this state directory, or answers at the control socket",
    os.EX_CONFIG: "with --check only: the configuration is wrong",
}
logger = logging.getLogger("iot_agent")


class Stop(Exception):
    """The daemon cannot start: (exit status, what to tell)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def main() -> int:
    """Run the daemon until it is told to stop."""
    arguments = arguments_parser().parse_args()
    journal.configure("info")
    os.umask(0o077)
    try:
        if arguments.check:
            return _check(arguments.config)
        _run(arguments.config)
    except Stop as stop:
        logger.error("%s", stop)  # noqa: TRY400 - the message is complete
        return stop.status
    except InUse as error:
        logger.error("%s; stop it first", error)  # noqa: TRY400 - the same
        return os.EX_TEMPFAIL
    return os.EX_OK


def arguments_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = Parser(
        prog="iot-agent", description="Onboards this device to AWS IoT Core and keeps its certificate fresh."
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="configuration file (default: %(default)s)"
    )
    parser.add_argument(
        "--check", action="store_true", help="check the configuration file and exit (78 if it is wrong)"
    )
    parser.add_argument("--version", action="version", version=f"iot-agent {__version__}")
    return parser


def _check(config: Path) -> int:
    try:
        settings = read_configuration(config)
        if user := agent_user.become(settings.state_directory):
            read_configuration(config, **user)  # what root can read says nothing about what the agent can read
    except BadConfiguration as problem:
        sys.stderr.write(f"iot-agent: the configuration is refused:\n{problem}\n")
        return os.EX_CONFIG
    sys.stdout.write(f"{config}: good; serial {settings.serial}, endpoint {settings.endpoint_host}\n")
    return os.EX_OK


def _run(config: Path) -> None:
    """Run with the configuration, or wait for one that it can run with."""
    signals, notifier = Signals(), Notifier()
    run, state = given_directory("RUNTIME_DIRECTORY", DEFAULT_RUN), given_directory("STATE_DIRECTORY", DEFAULT_STATE)
    waiting = Unconfigured(config, state, run, notifier, watchdog_interval(), signals)
    while not signals.stop:
        seen = waiting.look()
        try:
            _serve(config, read_configuration(config, starting=True), signals, notifier)
        except BadConfiguration as problem:
            if not waiting.watch(problem.files):
                continue  # a file that was not looked at before it was read may have changed in between
            _make_directory(run, layout.RUN_DIRECTORY_MODE)
            try:
                with _lock(state) if state.is_dir() else contextlib.nullcontext():  # without it no other daemon can run
                    waiting.until_changed(seen, str(problem), passing=problem.passing)
            except OSError as error:
                raise Stop(
                    os.EX_CANTCREAT, f"{problem}\nand the control socket cannot be made: {run}: {error.strerror}"
                ) from error


def _serve(config: Path, settings: Settings, signals: Signals, notifier: Notifier) -> None:
    """Run the loop until a signal ends it; raises `BadConfiguration`."""
    journal.configure(settings.log_level)
    _make_directory(settings.state_directory, layout.PRIVATE_DIRECTORY_MODE)
    _make_directory(settings.run_directory, layout.RUN_DIRECTORY_MODE)
    with _lock(settings.state_directory):
        identities = IdentityDirectories(settings.state_directory)
        store = RecordStore(settings.state_directory, identities, settings.serial)
        record = _load(store, settings)
        clock = FlooredClock(record.time_floor)
        applications = ApplicationAccess(identities, settings)
        means = Means(
            store=store,
            applications=applications,
            clock=clock,
            policy=settings.policy,
            new_label=lambda: layout.new_label(clock.now(), os.urandom(4)),
            new_request_id=lambda: os.urandom(8).hex(),
        )
        cycle = Cycle(means, record)
        about = journal_events.of("started", **journal_events.facts(cycle.record))
        logger.info("iot-agent %s, serial %s, state %s", __version__, settings.serial, cycle.record.state, extra=about)
        applications.begin(cycle.record)
        numbers = prometheus.Textfile(settings.metrics_textfile)
        socket = settings.run_directory / layout.CONTROL_SOCKET
        given = Dependencies(
            config=config.absolute(),
            settings=settings,
            notifier=notifier,
            launch=Worker,
            serve=lambda selector, handler: ControlServer(socket, selector, handler),
            reload=lambda: _reload(config, settings, applications),
            watchdog=watchdog_interval(),
            signals=signals,
            publish=numbers.publish,
        )
        try:
            Daemon(given, cycle).run()
        finally:
            numbers.close()


def _load(store: RecordStore, settings: Settings) -> Record:
    """Load the record; raises `BadConfiguration` for one of a later agent or of another device."""
    try:
        record = store.load()
    except LaterFormat as error:
        raise BadConfiguration(f"cannot use the state in {settings.state_directory}: {error}") from error
    if record.serial != settings.serial:
        raise BadConfiguration(
            f"{settings.state_directory} belongs to serial {record.serial}; the configuration says {settings.serial}. "
            "If the device was re-provisioned on purpose, move that directory away; a copied image must not keep it."
        )
    return record


def _reload(config: Path, running: Settings, applications: ApplicationAccess) -> Settings:
    """Read the configuration again; raises `ValueError` with what is wrong with it."""
    try:
        settings = read_configuration(config)
    except BadConfiguration as error:
        raise ValueError(str(error)) from error
    changed = [name for name in FIXED if getattr(settings, name) != getattr(running, name)]
    if changed:
        raise ValueError(f"{', '.join(changed)} can only change with a restart")
    journal.configure(settings.log_level)
    applications.reload(settings)
    return settings


def _make_directory(path: Path, mode: int) -> None:
    try:
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(mode)  # whatever the umask
    except OSError as error:
        raise Stop(os.EX_CANTCREAT, f"cannot make {path}: {error.strerror}") from error


@contextlib.contextmanager
def _lock(state: Path) -> Iterator[None]:
    """Hold the file `lock` in the state directory; the kernel releases it however the process ends."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(state / layout.LOCK, flags, layout.PRIVATE_FILE_MODE)
    except OSError as error:
        raise Stop(os.EX_CANTCREAT, f"cannot lock {state}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise Stop(os.EX_TEMPFAIL, f"another daemon (pid {holder}) serves {state}; stop it first") from error
        with contextlib.suppress(OSError):  # the pid is for people; a full disk must not prevent the start
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
