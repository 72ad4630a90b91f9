"""agentctl's part of the doctor: find the configuration, ask the daemon, start the examination, show what it finds."""

import json
import os
import pwd
import subprocess
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
from iot_agent.host.subprocesses import BadConfiguration, how_it_ended, read_configuration

CREDENTIALS = "/run/credentials/iot-agent.service"  # the unit's, which its user can read from outside too

# Between the service manager and the daemon alone.
MANAGERS = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"})


def run(config: Path, *, as_json: bool) -> int:
    """Examine this device; gives the exit status of the worst finding."""
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
    """Give all findings, one by one."""
    try:
        given = read_configuration(config, starting=True)  # what is wrong with a file, the examination tells
    except BadConfiguration as problem:
        readable = os.access(config, os.R_OK, effective_ids=True) or os.geteuid() == 0
        remedy = (
            "Mend the file; iot-agent --check says whether it is right." if readable else "Run: sudo agentctl doctor"
        )
        for line in str(problem).splitlines():
            yield findings.error("configuration", line, remedy)
        return
    said = f"{config}: serial {given.serial}, endpoint {given.endpoint_host}:{given.endpoint_port}"
    yield findings.fine("configuration", said)
    yield from _ask_the_daemon(given)
    yield from _examine(config, given)


def _ask_the_daemon(given: Settings) -> Iterator[Finding]:
    try:
        yield from daemon.judge(control_socket.ask(given.socket, "status")["status"])
    except PermissionError:
        yield findings.skipped("daemon", f"no permission to ask it at {given.socket}; try with sudo")
    except (OSError, *control_socket.SENSELESS) as error:
        yield daemon.down(f"{given.socket}: {error}")


def _examine(config: Path, given: Settings) -> Iterator[Finding]:
    """Run the examination as the agent's user, and pass on what it finds, also when it does not live to its end."""
    try:
        child = _start(given)
    except (OSError, KeyError) as problem:
        remedy = (
            f"See that {sys.executable} and the agent's package can be read by the owner of {given.state_directory}."
        )
        yield findings.error("doctor", f"the examination cannot start: {problem}", remedy)
        return
    request = json.dumps({"config": str(config), "settings": settings.dump(given)})
    with child:
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - for mypy
        try:
            child.stdin.write(request + "\n")
            child.stdin.flush()
            yield from map(_finding, child.stdout)
        except BrokenPipeError:
            pass  # it died at once; its status says how
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        remedy = "What was found so far holds. This is a fault in the agent or in a library; please report it."
        yield findings.error("doctor", f"the examination {how_it_ended(child.returncode)} before it was done", remedy)


def _finding(line: str) -> Finding:
    """Read a line of the examination; a library in it may have put in a word of its own."""
    try:
        return findings.decode(line)
    except ValueError as error:
        said = f"the examination said something that is no finding ({error}): {line.strip():.200}"
        return findings.warning("doctor", said, "What else was found holds. Please report this line.")


def _start(given: Settings) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "iot_agent.doctor.examine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd="/",
        env=environment(given.socket),
        start_new_session=True,  # stopping agentctl with Ctrl-Z must not stop it while it holds its turn
        **_as_the_agent(given.state_directory),
    )


def environment(daemon_socket: Path) -> dict[str, str]:
    """Give the daemon's own environment, if it can be read: it tells a token's module where its tokens are."""
    try:
        told = Path(f"/proc/{control_socket.daemon_pid(daemon_socket)}/environ").read_text(errors="surrogateescape")
    except OSError:  # it is not running, or somebody else's: then what the unit gives it as a rule
        return {"CREDENTIALS_DIRECTORY": CREDENTIALS, **os.environ}
    given = dict(entry.split("=", 1) for entry in told.split("\0") if "=" in entry)
    return {name: value for name, value in given.items() if name not in MANAGERS}


def _as_the_agent(state: Path) -> dict[str, Any]:
    """Give up root for the examination: the state directory's owner is the agent's user."""
    if os.getuid() != 0 or not state.exists() or state.stat().st_uid == 0:
        return {}
    user = pwd.getpwuid(state.stat().st_uid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid)}
