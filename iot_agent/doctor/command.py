"""agentctl's part of the doctor: read the configuration, ask the daemon, start the examination, show the findings."""

import json
import os
import pwd
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iot_agent.core import settings
from iot_agent.core.settings import Settings
from iot_agent.doctor import findings
from iot_agent.doctor.findings import Finding
from iot_agent.doctor.rules import daemon
from iot_agent.host import control_socket
from iot_agent.host.subprocesses import BadConfiguration, Child, NoAnswer, read_configuration
from iot_agent.storage import layout

LIMIT = 180.0  # seconds; the examination ends itself before
CREDENTIALS = "/run/credentials/iot-agent.service"  # of the unit; its user can read it from outside, too

# Variables that concern only the service manager and the daemon.
OF_SYSTEMD = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"})


def run(config: Path, *, as_json: bool) -> int:
    """Examine this device; give the exit status of the worst finding."""
    found: list[Finding] = []
    for finding in diagnose(config.absolute()):
        found.append(finding)
        if not as_json:
            sys.stdout.write(findings.write(finding) + "\n")
            sys.stdout.flush()
    last = json.dumps(findings.report(found, time.time())) if as_json else findings.summary(found)
    sys.stdout.write(last + "\n")
    return findings.exit_status(found)


def diagnose(config: Path) -> Iterator[Finding]:
    """Give each finding as soon as it is there."""
    try:
        given = read_configuration(config, starting=True)  # the examination checks the files
    except BadConfiguration as problem:
        readable = os.access(config, os.R_OK, effective_ids=True) or os.geteuid() == 0
        remedy = "Correct this, then check it with: iot-agent --check" if readable else "Run: sudo agentctl doctor"
        for line in str(problem).splitlines():
            yield findings.error("configuration", line, remedy)
        return
    said = f"{config}: serial {given.serial}, endpoint {given.endpoint_host}:{given.endpoint_port}"
    yield findings.fine("configuration", said)
    yield from _ask_the_daemon(given)
    yield from _examine(config, given)


def _ask_the_daemon(given: Settings) -> Iterator[Finding]:
    socket = given.run_directory / layout.CONTROL_SOCKET
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
            **_as_the_agent(given.state_directory),
        )
    except (OSError, KeyError) as problem:
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


def _as_the_agent(state: Path) -> dict[str, Any]:
    """Give up root for the examination: the agent's user owns the state directory."""
    if os.getuid() != 0 or not state.exists() or state.stat().st_uid == 0:
        return {}
    user = pwd.getpwuid(state.stat().st_uid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid)}
