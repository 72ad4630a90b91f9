"""The examination, a child process of `agentctl doctor`: it writes one finding a line to stdout, as JSON.

It runs as the agent's own user, so whatever it can read, the agent can read. A request is one line of JSON on stdin:
{"config": path, "settings": …}. If a probe or a native library hangs, SIGALRM ends the process.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from iot_agent.core import settings as settings_room
from iot_agent.core.settings import Settings
from iot_agent.doctor import findings
from iot_agent.doctor.checks import CHECKS, RECORD_CHECKS, Context
from iot_agent.doctor.findings import Finding
from iot_agent.doctor.probes import identities
from iot_agent.storage.identity_lock import LONGEST_WAIT, exclusive_use

LIMIT = 170  # seconds for all of it
LOOKS = 3  # how often the checks of the record run, if it changes each time


def main() -> int:
    """Serve one request."""
    signal.alarm(LIMIT)
    os.umask(0o077)
    request = json.loads(sys.stdin.readline())
    for finding in examine(Path(request["config"]), settings_room.load(request["settings"])):
        sys.stdout.write(findings.encode(finding) + "\n")
        sys.stdout.flush()
    return 0


def examine(config: Path, settings: Settings) -> Iterator[Finding]:
    """Run every check; give each finding as soon as it is final."""
    context = Context(config, settings, *identities.record(settings))
    for check in CHECKS:
        yield from check(context)
    with exclusive_use(settings.state_directory, LONGEST_WAIT) as lock_held:
        found = _examine_record(replace(context, lock_held=lock_held))
    yield from found


def _examine_record(context: Context) -> list[Finding]:
    """Run the checks of the record, and again if it has changed: the daemon saves an outcome after its worker's end."""
    for _ in range(LOOKS):
        record, damage = identities.record(context.settings)
        look = replace(context, record=record, damage=damage)
        found = [finding for check in RECORD_CHECKS for finding in check(look)]
        if identities.record(context.settings)[0] == record:
            break
    return found


if __name__ == "__main__":
    sys.exit(main())
