"""The device under exploration: the production cycle and steps over an identity directory and a broker in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from iot_agent.core.errors import Code, Fatal, Retryable
from iot_agent.core.ports import Credentials, Session
from iot_agent.core.protocol import Topics
from iot_agent.core.record import Identity, Step
from iot_agent.resident.cycle import Cycle
from iot_agent.worker import steps
from tests.explorer import cloudside, paper
from tests.explorer.cloudside import PREFIX
from tests.explorer.paper import VENDOR_CA
from tests.explorer.tape import Paused, Tape
from tests.explorer.world import BOOTSTRAP, POLICY, REPLY_TIMEOUT, SERIAL, Entry, Job, World

T = TypeVar("T")
AWAIT = "waits for the reply"
ALLOWED = {"device": frozenset(cloudside.KINDS), "bootstrap": frozenset({"create-man-cert"})}


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Keys:
    """Stands for the `KeyStore` of files."""

    world: World
    tape: Tape
    backend: str = "file"

    def generate(self, label: str, _algorithm: str) -> None:
        self.tape.call(f"makes the key of {label}", lambda: self._generate(label))

    def _generate(self, label: str) -> None:
        world, entry = self.world, self._entry(label)
        if entry.key is None:
            key = f"key-{world.count()}"
            world.own_keys |= {key}
            world.put(label, replace(entry, key=key, bad=""))

    def csr(self, label: str, serial: str) -> str:
        return self.tape.note(lambda: paper.request(self._key(label), serial))  # type: ignore[no-any-return]  # a tape's answer

    def public_key(self, label: str) -> bytes:
        return self.tape.note(lambda: self._key(label).encode())  # type: ignore[no-any-return]  # a tape's answer

    def credentials(self, label: str, certificate: Path) -> Credentials:
        return Credentials(certificate, Path(label))

    def labels(self) -> frozenset[str]:
        return self.tape.note(lambda: frozenset(self._ours()))  # type: ignore[no-any-return]  # a tape's answer

    def _ours(self) -> Iterator[str]:
        for label, entry in self.world.disk.entries.items():
            if label != BOOTSTRAP and entry.key:
                yield label

    def remove(self, label: str) -> None:
        self.tape.call(f"removes the key of {label}", lambda: self._remove(label))

    def _remove(self, label: str) -> None:
        if label in self.world.disk.entries:
            self.world.put(label, replace(self._entry(label), key=None))

    def _entry(self, label: str) -> Entry:
        return self.world.disk.entries.get(label, Entry())

    def _key(self, label: str) -> str:
        entry = self._entry(label)
        if entry.key is None:
            raise Fatal(Code.KEY_STORE, f"cannot read the key of {label}")
        if entry.bad == "key":
            raise paper.damaged(f"the key of {label}")
        return entry.key


@dataclass(frozen=True)
class Identities:
    """Stands for `IdentityDirectories`."""

    world: World
    tape: Tape

    def create(self, label: str, _csr: str) -> None:
        self.tape.call(f"makes the directory of {label}", lambda: self._change(label))

    def store(self, identity: Identity, pem: str, _chain: str | None) -> None:
        label = identity.label
        self.tape.call(f"stores the certificate of {label}", lambda: self._change(label, certificate=pem))

    def _change(self, label: str, **fields: Any) -> None:  # noqa: ANN401 - any of a directory's
        self.world.put(label, replace(self.world.disk.entries.get(label, Entry()), **fields))

    def certificate(self, label: str) -> Path:
        return Path(label)

    def labels(self) -> frozenset[str]:
        return self.tape.note(lambda: frozenset(self.world.disk.entries) - {BOOTSTRAP})  # type: ignore[no-any-return]  # a tape's answer

    def remove(self, label: str) -> None:
        self.tape.call(f"removes the directory of {label}", lambda: self.world.put(label, None))

    def complete(self) -> tuple[Identity, ...]:
        return self.tape.note(lambda: self.world.disk.identities().complete)  # type: ignore[no-any-return]  # a tape's answer

    def orphans(self) -> frozenset[str]:
        return self.tape.note(lambda: self.world.disk.identities().orphans)  # type: ignore[no-any-return]  # a tape's answer

    def current(self) -> str | None:
        return self.tape.note(lambda: self.world.disk.current)  # type: ignore[no-any-return]  # a tape's answer

    def point_current(self, label: str) -> None:
        raise AssertionError(f"a step must not move `current` to {label}")


@dataclass(frozen=True)
class Broker:
    """Stands for the way to the broker."""

    world: World
    tape: Tape
    meanwhile: Callable[[], None]

    @contextmanager
    def session(self, credentials: Credentials) -> Iterator[Session]:
        label = str(credentials.certificate)
        principal = self.tape.call(f"connects as {label}", lambda: connect(self.world, label))
        yield BrokerSession(self, principal)


@dataclass(frozen=True)
class BrokerSession:
    """One session, as one principal."""

    broker: Broker
    principal: str

    def subscribe(self, topics: Sequence[str]) -> None:
        world = self.broker.world
        self.broker.tape.note(lambda: setattr(world, "session", (self.principal, tuple(topics))))

    def exchange(self, topic: str, payload: bytes, reply_topic: str, accept: Callable[[bytes], T | None]) -> T:
        tape, world = self.broker.tape, self.broker.world
        tape.call(f"sends {topic.split('/')[1]}", lambda: send(world, self.principal, topic, payload))
        while True:
            said_on, said = tape.call(AWAIT, self._await)
            answer = accept(said) if said_on == reply_topic else None
            if answer is not None:
                return answer

    def _await(self) -> tuple[str, bytes]:
        world = self.broker.world
        self.broker.meanwhile()
        if not world.inbox:
            raise Retryable(Code.NO_REPLY, "no reply")
        first, *rest = world.inbox
        world.inbox, world.patience = tuple(rest), world.now + REPLY_TIMEOUT
        return first


def connect(world: World, label: str) -> str:
    """Open a session with the identity of this label and give its certificate's id; raises as the broker's adapter."""
    entry = world.disk.entries.get(label, Entry())
    facts = paper.read(entry.certificate) if entry.certificate else None
    if facts is None or not entry.usable or facts.key != entry.key:
        raise paper.damaged(f"the key or the certificate of {label}")
    if world.disturbed("unreachable"):
        raise Retryable(Code.UNREACHABLE, "cannot reach the endpoint")
    listed = world.registry.get(facts.certificate_id)
    if listed is None and facts.ca == VENDOR_CA:
        cloudside.register_just_in_time(world, facts.certificate_id, str(entry.certificate))
    in_service = listed is not None and listed.status == "ACTIVE" and listed.policies
    if not in_service or facts.not_after <= world.now or world.disturbed("refused"):
        raise Retryable(Code.REFUSED, "the cloud closed the connection")
    world.used |= {facts.certificate_id}
    return facts.certificate_id


def send(world: World, principal: str, topic: str, payload: bytes) -> None:
    """Publish: the topic's rule starts a run of the Lambda, if the policy of the certificate lets it through."""
    world.patience = world.now + REPLY_TIMEOUT
    verb = topic.split("/")[1]
    listed = world.registry.get(principal)
    if listed is None or not any(verb in ALLOWED[policy] for policy in listed.policies):
        raise Retryable(Code.NOT_PERMITTED, f"the policy forbids publishing to {topic}")
    if not world.disturbed("silent"):
        run = cloudside.message(world, principal, topic, payload, f"the Lambda, for {verb}")
        world.runs = (*world.runs, run)


def begun(step: Step, cycle: Cycle, world: World) -> Job:
    """Give the step's job, stopped before its first call."""
    return advance(world, Job(step.kind, cycle.record, cycle.means.clock.now()), 0, _nothing)


def advance(  # noqa: PLR0913, PLR0917 - the step's, and what it meets
    world: World,
    job: Job,
    live: int,
    judge: Callable[[], None],
    meanwhile: Callable[[], None] = _nothing,
    instead: Exception | None = None,
) -> Job:
    """Have a step make so many calls; `meanwhile` is what happens elsewhere while it waits for a reply.

    `instead`, if given, is what the first of these calls raises.
    """
    tape = Tape(job.tape, live, judge, instead)
    context = steps.StepContext(
        keys=Keys(world, tape),  # type: ignore[arg-type]  # keys in memory behind the same methods
        cloud=Broker(world, tape, meanwhile),
        identities=Identities(world, tape),
        examine=paper.examiner(SERIAL, job.now),  # type: ignore[arg-type]  # made for paper
        bootstrap=Credentials(Path(BOOTSTRAP), Path(BOOTSTRAP)),
        topics=Topics(PREFIX, SERIAL),
        algorithm="ec-p256",
        policy=POLICY,
        report={},
    )
    try:
        outcome = steps.run(job.kind, job.record, job.now, context)
    except Paused as pause:
        return replace(job, tape=tape.so_far, next=str(pause))
    world.end_session()
    return replace(job, outcome=outcome, next="ends")
