"""The checks of the examination, in order.

A check is a function: it asks a probe for facts and gives what a rule finds in them. To add one, write it here and put
its name into one of the two lists; add its row in docs/doctor.md.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from iot_agent.config import bundle
from iot_agent.core.errors import Code
from iot_agent.core.record import CheckedIn, Failed, Record
from iot_agent.core.schedule import NEVER
from iot_agent.core.settings import Settings
from iot_agent.doctor import findings
from iot_agent.doctor.findings import Finding
from iot_agent.doctor.probes import clock, cloud, disk, files, identities, keystore, network
from iot_agent.doctor.rules import clock as clock_rules
from iot_agent.doctor.rules import cloud as cloud_rules
from iot_agent.doctor.rules import disk as disk_rules
from iot_agent.doctor.rules import files as file_rules
from iot_agent.doctor.rules import identities as identity_rules
from iot_agent.doctor.rules import keystore as key_rules
from iot_agent.doctor.rules import network as network_rules
from iot_agent.doctor.rules import renewal as renewal_rules
from iot_agent.doctor.rules.files import File
from iot_agent.doctor.rules.network import Network


@dataclass
class Context:
    """What a check is given. The last four are facts that one check leaves for the checks after it."""

    config: Path
    settings: Settings
    record: Record
    damage: str | None  # why the record cannot be read
    lock_held: bool = False  # whether the examination holds the identity lock
    files: list[File] = field(default_factory=list)  # from `modes`
    network: Network | None = None  # from `endpoint`
    public_keys: dict[str, bytes] = field(default_factory=dict)  # DER by label, from `keys`
    cloud_time: int | None = None  # seconds since the epoch, from `check_in`

    @property
    def now(self) -> float:
        """The daemon's time: never before the record's floor."""
        return max(time.time(), self.record.time_floor)


Check = Callable[[Context], Iterator[Finding]]


def state_disk(context: Context) -> Iterator[Finding]:
    """Check the file system of the state directory."""
    state = context.settings.state_directory
    try:
        yield from disk_rules.judge(disk.look(state))
    except OSError as error:
        remedy = "Start the agent: it makes its state directory. If you are not root, run: sudo agentctl doctor"
        yield findings.error("disk", f"{state}: {error.strerror or error}", remedy)


def modes(context: Context) -> Iterator[Finding]:
    """Check modes and owners."""
    active = context.record.active
    context.files = files.look(context.config, context.settings, None if active is None else active.label)
    yield from file_rules.judge(context.files, files.agent(context.settings))


def contents(context: Context) -> Iterator[Finding]:
    """Check what is in the files that agent.yaml names; a file that cannot be read has its finding already."""
    unreadable = {file.path for file in context.files if file.problem is not None}
    for problem in bundle.problems(context.settings, starting=False):
        if str(problem.path) not in unreadable:
            yield findings.error("files.content", problem.wrong, problem.remedy)


def shared_group(context: Context) -> Iterator[Finding]:
    """Check that `identity.group`, if it is set, can read the active identity."""
    group = context.settings.identity_group
    if group is not None:
        yield file_rules.judge_group(group, context.files, files.agent(context.settings))


def endpoint(context: Context) -> Iterator[Finding]:
    """Check the way to the endpoint: name, TCP, TLS."""
    settings = context.settings
    where = settings.endpoint_host, settings.endpoint_port, settings.endpoint_ca_file
    context.network = network.look(*where, on_token=settings.keys_token is not None)
    yield from network_rules.judge(context.network, time.time())


def stored_record(context: Context) -> Iterator[Finding]:
    """Check that the record is whole, and of this device."""
    settings = context.settings
    damaged = identities.damaged_records(settings)
    yield from identity_rules.judge_record(context.record.serial, settings.serial, context.damage, damaged)


def keys(context: Context) -> Iterator[Finding]:
    """Check the key store, its PIN and each key that is needed."""
    labels = list(identities.roles(context.record))
    store = keystore.inspector(context.settings)
    found = keystore.inspect(store, labels, context.record, lock_held=context.lock_held)
    context.public_keys = {label: key for label, key in found.found.items() if isinstance(key, bytes)}
    yield from key_rules.judge(found)


def certificates(context: Context) -> Iterator[Finding]:
    """Check each certificate, against its key, this device and the time."""
    found = identities.look(context.settings, context.record, context.public_keys, context.now)
    yield from identity_rules.judge(list(found), context.record, context.now)


def current_link(context: Context) -> Iterator[Finding]:
    """Check that `current` points at the active identity."""
    yield identity_rules.judge_current(*identities.current(context.settings), context.record)


def renewal(context: Context) -> Iterator[Finding]:
    """Check that the next renewal will come in time."""
    yield from renewal_rules.judge(context.record, context.now, context.settings.policy)


def check_in(context: Context) -> Iterator[Finding]:
    """Check that the cloud answers the active identity, where nothing found so far forbids or prevents a session."""
    record = context.record
    if record.active is None:
        yield cloud_rules.nothing_yet()
    elif context.settings.policy.check_in_interval >= NEVER:
        yield cloud_rules.off()
    elif context.network is None or not context.network.good:
        yield cloud_rules.unreachable()
    elif not context.lock_held:
        yield cloud_rules.busy()
    else:
        outcome = cloud.check_in(context.settings, record, context.now, trusted=time.time() >= record.time_floor)
        context.cloud_time = outcome.cloud_time if isinstance(outcome, CheckedIn) else None
        if record.answers_once and isinstance(outcome, Failed) and outcome.code == Code.NO_REPLY:
            yield cloud_rules.unanswered(context.settings.client_id)
        else:
            yield from cloud_rules.judge(outcome, context.settings.client_id)


def system_clock(context: Context) -> Iterator[Finding]:
    """Check the clock, last: by then the cloud may have answered with its time."""
    facts = clock_rules.ClockFacts(time.time(), context.record.time_floor, clock.synchronised(), context.cloud_time)
    yield from clock_rules.judge(facts)


CHECKS: list[Check] = [state_disk, modes, contents, shared_group, endpoint]

# These look at the record or at what it names, so they run while the examination holds the identity lock, and again if
# the daemon saves another record meanwhile.
RECORD_CHECKS: list[Check] = [stored_record, keys, certificates, current_link, renewal, check_in, system_clock]
