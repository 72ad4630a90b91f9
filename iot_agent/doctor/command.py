"""agentctl's part of the doctor: read the configuration, ask the daemon, start the examination, show the findings."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from iot_agent.core import settings
from iot_agent.core.settings import Settings
from iot_agent.doctor import findings
from iot_agent.doctor.findings import Finding
from iot_agent.doctor.rules import daemon
from iot_agent.host import agent_user, control_socket
from iot_agent.host.subprocesses import BadConfiguration, Child, NoAnswer, read_configuration
from iot_agent.storage import layout

LIMIT = 180.0  # seconds; the examination ends itself before
CONFIG = Path("/etc/iot-agent/agent.yaml")
SUDO = "Run: sudo agentctl doctor"
CREDENTIALS = "/run/credentials/iot-agent.service"  # of the unit; its user can read it from outside, too

# Variables that concern only the service manager and the daemon.
OF_SYSTEMD = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"})


def run(config: Path | None, run_directory: Path, *, as_json: bool) -> int:
    """Examine this device; give the exit status of the worst finding.

    `config` is agent.yaml. If it is not given, it is the file that the daemon serving `run_directory` uses.
    """
    found: list[Finding] = []
    socket = run_directory / layout.CONTROL_SOCKET
    for finding in diagnose((config or _config_of(socket)).absolute(), socket):
        found.append(finding)
        if not as_json:
            sys.stdout.write(findings.write(finding) + "\n")
            sys.stdout.flush()
    last = json.dumps(findings.report(found, time.time())) if as_json else findings.summary(found)
    sys.stdout.write(last + "\n")
    return findings.exit_status(found)


def diagnose(config: Path, socket: Path) -> Iterator[Finding]:
    """Give each finding as soon as it is there; `socket` is the daemon's, unless agent.yaml names another."""
    try:
        given = read_configuration(config, starting=True)  # the examination checks the files
    except BadConfiguration as problem:
        remedy = _repair(config)
        for line in str(problem).splitlines():
            yield findings.error("configuration", line, remedy)
        yield from _ask_the_daemon(socket)  # it may run with the configuration that it read before
        return
    said = f"{config}: serial {given.serial}, endpoint {given.endpoint_host}:{given.endpoint_port}"
    yield findings.fine("configuration", said)
    yield from _ask_the_daemon(given.run_directory / layout.CONTROL_SOCKET)
    yield from _examine(config, given)


def _config_of(socket: Path) -> Path:
    """Ask the daemon which agent.yaml it uses; the default if it is not running."""
    try:
        return Path(control_socket.ask(socket, "status")["status"]["configuration"]["file"])
    except (OSError, ValueError, LookupError, TypeError):
        return CONFIG


def _repair(config: Path) -> str:
    """Say what to do about a configuration that cannot be used."""
    root = os.geteuid() == 0
    if not (root or os.access(config.parent, os.X_OK, effective_ids=True)):
        return SUDO
    if not config.exists():
        return (
            f"Copy the bundle that was made for this device to {config.parent}, or write the file: agent.yaml(5). "
            "If the agent uses another file, name it with --config."
        )
    if not (root or os.access(config, os.R_OK, effective_ids=True)):
        return SUDO
    return f"Correct this, then check it with: iot-agent --check --config {config}"


def _ask_the_daemon(socket: Path) -> Iterator[Finding]:
    try:
        yield from daemon.judge(control_socket.ask(socket, "status")["status"])
    except PermissionError:
        yield findings.skipped("daemon", f"no permission to ask it at {socket}; run: sudo agentctl doctor")
    except OSError as error:
        yield daemon.down(f"{socket}: {error.strerror or error}")
    except control_socket.SENSELESS as error:
        yield daemon.down(f"{socket}: {error}")


def _examine(config: Path, given: Settings) -> Iterator[Finding]:
    """Run the examination as the agent's user, and pass its findings on; if it ends early, that is a finding too."""
    request = json.dumps({"config": str(config), "settings": settings.dump(given)}).encode() + b"\n"
    try:
        child = Child(
            "iot_agent.doctor.examine",
            request,
            LIMIT,
            cwd="/",
            env=environment(given.run_directory / layout.CONTROL_SOCKET),
            **agent_user.become(given.state_directory),
        )
    except OSError as problem:
        remedy = f"Let the owner of {given.state_directory} read {sys.executable} and the agent's package."
        yield findings.error("doctor", f"the examination cannot start: {problem}", remedy)
        return
    try:
        with child:  # in its own process group: Ctrl-Z must not stop it while it holds the identity lock
            yield from map(_finding, child.lines())
    except NoAnswer as problem:
        remedy = "The findings above are valid. This is a fault in the agent or in a library; please report it."
        yield findings.error("doctor", f"the examination {problem}", remedy)


def _finding(line: bytes) -> Finding:
    """Read a line of the examination; a library in it may have written a line of its own."""
    try:
        return findings.decode(line)
    except ValueError as error:
        said = f"the examination wrote a line that is no finding ({error}): {line.decode(errors='replace'):.200}"
        return findings.warning("doctor", said, "The other findings are valid. Please report this line.")


def environment(daemon_socket: Path) -> dict[str, str]:
    """Give the daemon's own environment, if it can be read: from it a token's module knows where its tokens are."""
    try:
        environ = Path(f"/proc/{control_socket.daemon_pid(daemon_socket)}/environ").read_text(errors="surrogateescape")
    except OSError:  # it is not running, or belongs to somebody else
        return {"CREDENTIALS_DIRECTORY": CREDENTIALS, **os.environ}
    given = dict(entry.split("=", 1) for entry in environ.split("\0") if "=" in entry)
    return {name: value for name, value in given.items() if name not in OF_SYSTEMD}
