"""The examination, a child process of `agentctl doctor`: one finding a line on stdout, as soon as there is one.

It runs as the agent's own user, so that what it can read the agent can read. A request is one line of JSON on stdin:
{"config": path, "settings": …}. It ends by itself: SIGALRM, should a probe or a native library hang.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iot_agent.config import bundle
from iot_agent.core import settings as settings_room
from iot_agent.core.record import CheckedIn, Record
from iot_agent.core.settings import Settings, Token
from iot_agent.doctor import findings
from iot_agent.doctor.findings import Finding
from iot_agent.doctor.probes import clock, cloud, disk, files, identities, keystore, network
from iot_agent.doctor.probes.keystore import FileInspector, Inspector, TokenInspector
from iot_agent.doctor.rules import clock as clock_rules
from iot_agent.doctor.rules import cloud as cloud_rules
from iot_agent.doctor.rules import disk as disk_rules
from iot_agent.doctor.rules import files as file_rules
from iot_agent.doctor.rules import identities as identity_rules
from iot_agent.doctor.rules import keystore as key_rules
from iot_agent.doctor.rules import network as network_rules
from iot_agent.doctor.rules import renewal as renewal_rules
from iot_agent.doctor.rules.network import Network
from iot_agent.keys.keyring import KeyRing
from iot_agent.keys.token import TokenKeys
from iot_agent.storage.identity_lock import LONGEST_WAIT, exclusive_use

LIMIT = 170  # seconds for all of it
LOOKS = 3
TOKEN_LIMIT = 30.0  # seconds for one operation of a token


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
    """Look at everything, the cheap and local first; the clock last, because the cloud may vouch for it."""
    yield from _files(config, settings)
    where = settings.endpoint_host, settings.endpoint_port, settings.endpoint_ca_file
    way = network.look(*where, on_token=settings.keys_token is not None)
    yield from network_rules.judge(way, time.time())
    with exclusive_use(settings.state_directory, LONGEST_WAIT) as ours:
        seen = _settled(settings, way, ours=ours)
    yield from seen.findings
    yield from clock_rules.judge(
        clock_rules.Clock(time.time(), seen.record.time_floor, clock.synchronised(), seen.cloud_time)
    )


@dataclass(frozen=True)
class Seen:
    """What was found with one record; `cloud_time` (seconds) if the cloud has told it."""

    record: Record
    findings: tuple[Finding, ...]
    cloud_time: int | None


def _settled(settings: Settings, way: Network, *, ours: bool) -> Seen:
    """Look again if the record changed meanwhile: the daemon saves an outcome after the turn of its worker."""
    for _ in range(LOOKS):
        seen = _look(settings, way, ours=ours)
        if identities.record(settings)[0] == seen.record:
            break
    return seen


def _look(settings: Settings, way: Network, *, ours: bool) -> Seen:
    """Look at all that depends on the record."""
    record, damage = identities.record(settings)
    kept_bad = sorted(path.name for path in settings.state_directory.glob("*.bad"))
    now = max(time.time(), record.time_floor)
    found = list(identity_rules.judge_record(record.serial, settings.serial, damage, kept_bad))
    found += _identities(settings, record, now)
    found += renewal_rules.judge(record, now, settings.policy)
    if record.active is None:
        return Seen(record, (*found, cloud_rules.nothing_yet()), None)
    if not way.good:
        return Seen(record, (*found, cloud_rules.unreachable()), None)
    if not ours:
        return Seen(record, (*found, cloud_rules.busy()), None)
    outcome = cloud.check_in(settings, record, now, trusted=time.time() >= record.time_floor)
    told = outcome.cloud_time if isinstance(outcome, CheckedIn) else None
    return Seen(record, (*found, *cloud_rules.judge(outcome, settings.client_id)), told)


def _files(config: Path, settings: Settings) -> Iterator[Finding]:
    try:
        yield from disk_rules.judge(disk.look(settings.state_directory))
    except OSError as error:
        yield findings.error(
            "disk", f"{error}", "Start the agent once: it makes its state directory. Or run with sudo."
        )
    active = identities.record(settings)[0].active
    seen, agent = files.look(config, settings, None if active is None else active.label), files.agent(settings)
    yield from file_rules.judge(seen, agent)
    unreadable = {file.path for file in seen if file.problem is not None}
    for problem in bundle.problems(settings, starting=False):
        if str(problem.path) not in unreadable:
            yield findings.error("files.content", problem.wrong, problem.remedy)
    if settings.identity_group is not None:
        yield file_rules.judge_group(settings.identity_group, seen, agent)


def _identities(settings: Settings, record: Record, now: float) -> Iterator[Finding]:
    labels = list(identities.roles(record))
    keys = keystore.inspect(_inspector(settings), labels, record)
    yield from key_rules.judge(keys)
    public = {label: key for label, key in keys.found.items() if isinstance(key, bytes)}
    yield from identity_rules.judge(list(identities.look(settings, record, public, now)), record, now)
    yield identity_rules.judge_current(*identities.current(settings), record)


def _inspector(settings: Settings) -> Inspector:
    """Look where new keys are made; a key that is still elsewhere is found by the ring."""
    state, token = settings.state_directory, settings.keys_token

    def on_token(which: Token) -> TokenKeys:
        return TokenKeys(state, which, TOKEN_LIMIT)

    ring = KeyRing(state, settings.keys_backend, token, on_token)
    if token is None:
        return FileInspector(ring)
    return TokenInspector(ring, f"token {token.label!r} of {token.module}", on_token(token).look)


if __name__ == "__main__":
    sys.exit(main())
