"""The whole world of one device as a value: its disk and daemon, the cloud's table and registry, what is under way.

Whatever a world holds is immutable or replaced as a whole, so a copy is shallow. Times are seconds since the epoch, by
a clock that is right; `elapsed` of the device is that same number.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cloud.rotation.record import Device
from iot_agent.core.ports import Clock, StateStore
from iot_agent.core.reconcile import OnDisk, rebuild
from iot_agent.core.record import Identity, Kind, Outcome, Record
from iot_agent.core.schedule import Policy
from iot_agent.resident.cycle import Cycle, Means
from tests.explorer import paper
from tests.explorer.paper import MANUFACTURER_CA, VENDOR_CA, Paper
from tests.harness import NoApplications

SERIAL, STRANGER = "SN-1", "SN-2"
START = 1_790_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
LIFETIME, VENDOR_LIFETIME = 90 * DAY, 10 * 365 * DAY
POLICY = Policy()
REPLY_TIMEOUT = 20.0  # seconds, as iot_agent.mqtt has it
NEVER = float("inf")
BOOTSTRAP = "bootstrap"  # where the vendor identity is on the disk: no label of the agent's


class Violation(BaseException):
    """A promise is broken. Not an Exception: no code under exploration may handle it."""


@dataclass(frozen=True)
class Entry:
    """An identity's directory: its key, its certificate ("PEM", with its facts), what cannot be used until when.

    `bad` is "key", "certificate" or "facts".
    """

    key: str | None = None
    certificate: str | None = None
    bad: str = ""
    until: float = NEVER

    @property
    def usable(self) -> bool:
        """Whether a session can be made with it."""
        return bool(self.key and self.certificate) and self.bad in ("", "facts")

    @property
    def complete(self) -> bool:
        """Whether it looks complete to `Identities.complete`, which does not read keys or certificates."""
        return bool(self.key and self.certificate) and self.bad != "facts"

    @property
    def orphaned(self) -> bool:
        """Whether it has no facts or no key: to a look at the directory, what a crash has left."""
        return self.certificate is None or self.key is None


@dataclass(frozen=True)
class Disk:
    """What a power cut leaves."""

    record: Record | None = None
    previous: Record | None = None
    current: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def with_entry(self, label: str, entry: Entry | None) -> Disk:
        """Give the disk with this directory as told, or without it."""
        rest = {name: kept for name, kept in self.entries.items() if entry is not None or name != label}
        return replace(self, entries=rest if entry is None else {**rest, label: entry})

    def identities(self) -> OnDisk:
        """Give what the device's own look at the disk finds."""
        ours = {label: entry for label, entry in self.entries.items() if label != BOOTSTRAP}
        complete = tuple(
            Identity(label, paper.facts(paper.read(str(entry.certificate))))
            for label, entry in ours.items()
            if entry.complete
        )
        orphans = frozenset(label for label, entry in ours.items() if entry.orphaned)
        return OnDisk(complete, orphans, self.current)


@dataclass(frozen=True)
class Listed:
    """A certificate in the registry."""

    pem: str
    status: str
    ca: str
    policies: frozenset[str] = frozenset()
    thing: bool = False


@dataclass(frozen=True)
class Job:
    """A step in the worker: how far it is, and its outcome when it has ended but is not folded in yet."""

    kind: Kind
    record: Record
    now: float
    tape: tuple[Any, ...] = ()
    next: str = ""
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Run:
    """A run in the cloud: of the Lambda for an event, of the sweeper, of an order, of the provisioning template.

    `program` is its kind and arguments. It begins at `ready_at`. One that is `held` waits for the explorer to let it go
    on, at the latest at `deadline`.
    """

    program: tuple[Any, ...]
    ready_at: float
    tape: tuple[Any, ...] = ()
    next: str = ""
    held: bool = False
    deadline: float = NEVER
    retries: int = 0

    def __str__(self) -> str:
        return str(self.program[1])


@dataclass
class World:
    """See the module. `quiet` names what is disturbed until when; `excuses` say why a readmission may be needed."""

    now: float = START
    disk: Disk = field(default_factory=Disk)
    cycle: Cycle | None = None  # None while the power is off
    off_until: float = START
    job: Job | None = None
    session: tuple[str, tuple[str, ...]] | None = None  # the certificate, and the topics subscribed to
    inbox: tuple[tuple[str, bytes], ...] = ()  # topics and payloads
    patience: float | None = None  # until when the step waits for a reply
    full: bool = False  # the disk refuses the next save

    clock_error: float = 0.0
    clock_right_at: float = NEVER
    floor: float = 0.0
    floor_at: float = START

    table: Mapping[str, Device] = field(default_factory=dict)
    registry: Mapping[str, Listed] = field(default_factory=dict)
    thing: bool = False
    runs: tuple[Run, ...] = ()
    swept_at: float = 0.0

    quiet: Mapping[str, float] = field(default_factory=dict)
    backup: Disk | None = None
    counter: int = 0

    # What the judge remembers.
    excuses: frozenset[str] = frozenset()
    boarded: bool = False
    destroyed: frozenset[str] = frozenset()  # certificates of identities that are lost for good
    used: frozenset[str] = frozenset()
    own_keys: frozenset[str] = frozenset()
    failed_at: float | None = None
    last_wait: int = 0
    ordered: str | None = None  # the certificate that was in force when a rotation was ordered on the device
    advised: str | None = None  # the same, when it was advised
    revoked: bool = False  # an order to revoke was carried out to its end
    let_in: bool = False  # an order has let vendor certificates register again
    help_at: float | None = None
    limit_at: float = START + 8 * DAY
    lap: int = 0

    def copy(self) -> World:
        """Give an independent world like this one."""
        other = copy.copy(self)
        if self.cycle is not None:
            other.cycle = copy.copy(self.cycle)
            other.cycle.means = other.means()
        return other

    # ---- the device's daemon ----------------------------------------------------------------------------------------

    def means(self) -> Means:
        """Give what the daemon's cycle works with here."""
        return Means(
            Store(self), NoApplications(), DeviceClock(self), POLICY, self._label, self._request_id, lambda: 0.5
        )

    def boot(self) -> None:
        """Start the daemon: what was only in memory is gone."""
        loaded = self.disk.record or self.disk.previous or rebuild(SERIAL, self.disk.identities())
        self.floor, self.floor_at, self.off_until = float(loaded.time_floor), self.now, NEVER
        self.failed_at, self.last_wait = None, 0
        self.cycle = Cycle(self.means(), loaded)

    def power_off(self, seconds: float) -> None:
        """Lose the power, for that long."""
        self.cycle = self.job = None
        self.end_session()
        self.off_until = self.now + seconds

    def end_session(self) -> None:
        """End the device's session: what was on its way to it is lost."""
        self.session, self.inbox, self.patience = None, (), None

    def put(self, label: str, entry: Entry | None) -> None:
        """Change a directory on the disk."""
        self.disk = self.disk.with_entry(label, entry)

    def wall(self) -> float:
        """Give what the device's system clock says."""
        return self.now + self.clock_error

    def _label(self) -> str:
        return f"iot-agent-{self.count()}"

    def _request_id(self) -> str:
        return f"request-{self.count()}"

    def count(self) -> int:
        """Give a number that was never given."""
        self.counter += 1
        return self.counter

    # ---- the cloud --------------------------------------------------------------------------------------------------

    def sign(self, key: str, serial: str, ca: str = MANUFACTURER_CA) -> str:
        """Issue a certificate ("PEM")."""
        vendor = ca == VENDOR_CA
        start = int(self.now - (DAY if vendor else HOUR))
        end = int(self.now + (VENDOR_LIFETIME if vendor else LIFETIME))
        return paper.write(Paper(f"{self.count():064x}", serial, key, ca, start, end))

    @property
    def device(self) -> Device | None:
        """The cloud's record of the device."""
        return self.table.get(SERIAL)

    def list(self, certificate_id: str, entry: Listed | None) -> None:
        """Change the registry."""
        kept = {name: held for name, held in self.registry.items() if entry is not None or name != certificate_id}
        self.registry = kept if entry is None else {**kept, certificate_id: entry}

    def disturbed(self, what: str) -> bool:
        """Whether this is disturbed now."""
        return self.quiet.get(what, 0) > self.now

    def accepts(self, entry: Entry) -> bool:
        """Whether a session with this identity is of use now, or after it has registered itself just in time."""
        if not entry.usable:
            return False
        known, facts = self.device, paper.read(str(entry.certificate))
        listed = self.registry.get(facts.certificate_id)
        if known is None or facts.not_after <= self.now:
            return False
        if facts.ca == VENDOR_CA:
            welcome = known.active is None or known.readmitted(int(self.now * 1000))
            return welcome and (listed is None or listed.status in ("ACTIVE", "PENDING_ACTIVATION"))
        held = facts.certificate_id in {one.certificate_id for one in (known.active, known.pending) if one}
        return held and listed is not None and listed.status == "ACTIVE" and bool(listed.policies)


class Store(StateStore):
    """The record on the disk of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def disk(self) -> OnDisk:
        """Look at the identities."""
        return self._world.disk.identities()

    def save(self, record: Record) -> None:
        """Write the record and `current`."""
        world = self._world
        if world.full:
            world.full = False
            raise OSError("no space left on device")
        current = world.disk.current if record.active is None else record.active.label
        world.disk = replace(world.disk, record=record, previous=world.disk.record, current=current)


class DeviceClock(Clock):
    """The device's clock, which may be wrong; as `iot_agent.clock` it never runs behind its floor."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        """Give what the device takes for the time."""
        world = self._world
        return max(world.wall(), world.floor + world.now - world.floor_at)

    def elapsed(self) -> float:
        """Give seconds that no setting of the clock moves."""
        return self._world.now

    @property
    def trusted(self) -> bool:
        """Whether the system clock agrees."""
        return self._world.wall() >= self._world.floor

    def lift(self, floor: int) -> None:
        """Learn that this much time has passed for sure."""
        if floor > self._world.floor:
            self._world.floor, self._world.floor_at = float(floor), self._world.now
