"""The cloud under exploration: production handler, sweeper and orders over a table and a registry in memory.

Every call of the table and the registry is one call of the tape, so that another run, the device or the end of this run
may come between any two. `Registry.establish` and `disable`, which are several calls to AWS, are several here too.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cloud.common import operations
from cloud.rotation import steps
from cloud.rotation.agenda import next_look
from cloud.rotation.devices import ConflictError
from cloud.rotation.handler import RequestHandler
from cloud.rotation.operator_rules import OrderError
from cloud.rotation.record import Certificate, Device, Entry, Renewal
from cloud.rotation.registry import Attached, Registered
from cloud.rotation.sweeper import sweep
from tests.explorer import paper
from tests.explorer.paper import MANUFACTURER_CA, VENDOR_CA, Wanted
from tests.explorer.tape import Paused, Tape
from tests.explorer.world import HOUR, MINUTE, SERIAL, Listed, Run, Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "cert-rotation"
POLICIES = ("device",)
EVENT_AGE, LAMBDA_LIMIT = HOUR, MINUTE  # cloud/template.yaml: MaximumEventAgeInSeconds, Timeout
KINDS = {"create-man-cert": "create", "ack-man-cert": "ack", "check-in": "check-in"}
READMISSION = 3 * 24 * HOUR


@dataclass(frozen=True)
class Table:
    """Stands for `Devices`: writes on condition."""

    world: World
    tape: Tape
    program: tuple[Any, ...]

    def get(self, serial: str) -> Device | None:
        return self.tape.call(f"reads the record of {serial}", lambda: self.world.table.get(serial))  # type: ignore[no-any-return]  # a tape's answer

    def save(self, device: Device, now: int, entry: Entry | None = None) -> None:
        told = f" ({entry.event})" if entry else ""
        self.tape.call(f"writes the record, {device.state}{told}", lambda: self._save(device, now))

    def _save(self, device: Device, now: int) -> None:
        world = self.world
        found = world.table.get(device.serial)
        if (found.version if found else -1) != device.version:
            raise ConflictError(device.serial)
        if device.serial == SERIAL:
            self._judge(found, device, now)
        saved = replace(device, version=device.version + 1, look_at=next_look(device, now))
        world.table = {**world.table, device.serial: saved}

    def _judge(self, before: Device | None, after: Device, now: int) -> None:
        had = before.active.certificate_id if before and before.active else None
        if after.active and after.active.certificate_id not in (had, *self.world.used):
            raise Violation("a certificate became active that no session was ever made with")
        held = [one for one in (before.pending, before.active) if one and one.fresh(now)] if before else []
        new = after.pending
        if new and any(new.public_key == one.public_key and new.certificate_id != one.certificate_id for one in held):
            raise Violation("a key that has a certificate is given another one")

    def due(self, now: int) -> list[str]:
        def look() -> list[str]:
            return [one.serial for one in self.world.table.values() if one.look_at is not None and one.look_at <= now]

        return self.tape.call("asks what is due", look)  # type: ignore[no-any-return]  # a tape's answer


@dataclass(frozen=True)
class Registry:
    """Stands for the `Registry` of AWS IoT."""

    world: World
    tape: Tape

    def describe(self, certificate_id: str) -> Registered | None:
        return self.tape.call(f"describes {_short(certificate_id)}", lambda: self._describe(certificate_id))  # type: ignore[no-any-return]  # a tape's answer

    wait_until_provisioned = describe

    def _describe(self, certificate_id: str) -> Registered | None:
        found = self.world.registry.get(certificate_id)
        if found is None:
            return None
        return Registered(certificate_id, f"arn:{certificate_id}", found.status, found.pem, found.ca)

    def ca_pem(self, ca_id: str) -> str | None:
        return self.tape.call("describes a CA", lambda: paper.BEGIN + ca_id)  # type: ignore[no-any-return]  # a tape's answer

    def attached(self, found: Registered) -> Attached:
        name = found.certificate_id
        return self.tape.call(f"looks at what {_short(name)} has", lambda: self._attached(name))  # type: ignore[no-any-return]  # a tape's answer

    def _attached(self, certificate_id: str) -> Attached:
        found = self.world.registry.get(certificate_id)
        if found is None:
            return Attached((), ())
        return Attached(tuple(sorted(found.policies)), ("the thing",) if found.thing else ())

    def register_active(self, pem: str, _ca: str, certificate_id: str, thing: str, policies: tuple[str, ...]) -> None:
        before = self.tape.call(f"registers {_short(certificate_id)}", lambda: self._register(certificate_id, pem))
        if before is not None:
            self.complete(before, thing, policies)
        else:
            self.tape.call(f"attaches to {_short(certificate_id)}", lambda: self._attach(certificate_id, policies))

    def _register(self, certificate_id: str, pem: str) -> Registered | None:
        """Register it; gives what was there before."""
        before = self._describe(certificate_id)
        if before is None:
            self.world.list(certificate_id, Listed(pem, "ACTIVE", MANUFACTURER_CA))
        return before

    def complete(self, found: Registered, _thing: str, policies: tuple[str, ...]) -> None:
        there = self.attached(found)
        lacking = tuple(policy for policy in policies if policy not in there.policies)
        if lacking or not there.things:
            name = found.certificate_id
            self.tape.call(f"attaches to {_short(name)}", lambda: self._attach(name, lacking))

    def _attach(self, certificate_id: str, policies: tuple[str, ...]) -> None:
        found = self.world.registry.get(certificate_id)
        if found is None:
            return
        if not self.world.thing:
            raise RuntimeError("ResourceNotFoundException: the thing")
        self.world.list(certificate_id, replace(found, policies=found.policies | set(policies), thing=True))

    def disable(self, certificate_id: str) -> Registered | None:
        found = self.describe(certificate_id)
        if found is None:
            return None
        short = _short(certificate_id)
        self.tape.call(f"takes {short} out of service", lambda: self._change(certificate_id, status="INACTIVE"))
        bare = {"policies": frozenset(), "thing": False}
        self.tape.call(f"detaches all from {short}", lambda: self._change(certificate_id, **bare))
        return found

    def _change(self, certificate_id: str, **fields: Any) -> None:  # noqa: ANN401 - any of a listing's
        found = self.world.registry.get(certificate_id)
        if found is not None:
            self.world.list(certificate_id, replace(found, **fields))

    def delete(self, certificate_id: str) -> None:
        self.tape.call(f"deletes {_short(certificate_id)}", lambda: self._delete(certificate_id))

    def _delete(self, certificate_id: str) -> None:
        found = self.world.registry.get(certificate_id)
        if found is not None and (found.status == "ACTIVE" or found.policies or found.thing):
            raise RuntimeError("DeleteConflictException: it is in service, or attached")
        self.world.list(certificate_id, None)

    def delete_thing(self, _thing: str, arn: str, _stack: str) -> None:
        self.tape.call("deletes the thing", lambda: self._delete_thing(arn.removeprefix("arn:")))

    def _delete_thing(self, certificate_id: str) -> None:
        others = (name for name, listed in self.world.registry.items() if listed.thing and name != certificate_id)
        self.world.thing = self.world.thing and any(others)

    def publish(self, topic: str, payload: bytes) -> None:
        self.tape.call(f"answers on {topic.split('/')[1]}", lambda: deliver(self.world, topic, payload))


@dataclass(frozen=True)
class Issuer:
    """Stands for the manufacturer CA; looks whom it signs for."""

    world: World
    tape: Tape
    program: tuple[Any, ...]
    ca_pem: str = paper.BEGIN + "the manufacturer CA"

    def signed(self, pem: str) -> bool:
        return paper.read(pem).ca == MANUFACTURER_CA

    def issue(self, request: Wanted, serial: str, now: int) -> Certificate:
        pem = self.tape.note(lambda: self._sign(request, serial))
        facts = paper.read(pem)
        return Certificate(facts.certificate_id, facts.key, pem, now, facts.not_after * 1000)

    def _sign(self, request: Wanted, serial: str) -> str:
        if serial == SERIAL and self.program[2]["principal"] not in self.world.used:
            raise Violation("a certificate is signed for a request that did not come from the device")
        if request.key not in self.world.own_keys:
            raise Violation("a certificate is signed for a key that is not the device's")
        return self.world.sign(request.key, serial)


def deliver(world: World, topic: str, payload: bytes) -> None:
    """Carry an answer to the device, if it has a session that listens and nothing is in the way."""
    verb, serial = topic.split("/")[1], topic.split("/")[2]
    listens = world.session is not None and topic in world.session[1] and serial == SERIAL
    if listens and not world.disturbed("deaf") and verb in KINDS:
        world.inbox = (*world.inbox, (topic, payload))


def message(world: World, principal: str, topic: str, payload: bytes, words: str) -> Run:
    """Give the run of the Lambda for a message of a device."""
    event = {
        "event": KINDS[topic.split("/")[1]],
        "topic": topic,
        "principal": principal,
        "data": base64.b64encode(payload).decode(),
    }
    return _begun(world, Run(("message", words, event), world.now, deadline=world.now + EVENT_AGE, retries=2))


def register_just_in_time(world: World, certificate_id: str, pem: str) -> None:
    """Do what AWS IoT does when a certificate of the vendor CA is seen for the first time."""
    world.list(certificate_id, Listed(pem, "PENDING_ACTIVATION", VENDOR_CA))
    data = base64.b64encode(json.dumps({"certificateId": certificate_id}).encode()).decode()
    event = {"event": "registered", "topic": "", "principal": certificate_id, "data": data}
    template = Run(("template", "the provisioning template", certificate_id), world.now, deadline=world.now + 50)
    registered = Run(
        ("message", "the Lambda, for the registration", event), world.now, deadline=world.now + EVENT_AGE, retries=2
    )
    world.runs = (*world.runs, _begun(world, template), _begun(world, registered))


def order(world: World, name: str) -> Run:
    """Give the run of an operator's order."""
    world.revoked = world.revoked and name != "readmit"
    world.let_in = world.let_in or name in ("allow", "readmit")
    return _begun(world, Run(("order", f"the order {name}", name), world.now, deadline=world.now + MINUTE, retries=2))


def sweeping(world: World) -> Run:
    """Give a run of the sweeper."""
    return _begun(world, Run(("sweep", "the sweeper"), world.now, deadline=world.now + MINUTE))


def _begun(world: World, run: Run) -> Run:
    """Stop it before its first call, to know which that is."""
    return advance(world, run, 0, lambda: None) or run


def advance(
    world: World, run: Run, live: int, judge: Callable[[], None], instead: Exception | None = None
) -> Run | None:
    """Have a run make so many calls; gives it as it is then, or as it comes again, None when it is over.

    `instead`, if given, is what the first of these calls raises.
    """
    tape = Tape(run.tape, live, judge, instead)
    try:
        PROGRAMS[run.program[0]](world, run, tape)
    except Paused as pause:
        begins = tape.calls and not run.tape
        deadline = min(run.deadline, world.now + LAMBDA_LIMIT) if begins else run.deadline
        return replace(run, tape=tape.so_far, next=str(pause), deadline=deadline)
    except Exception:  # noqa: BLE001 - whatever it is, Lambda runs it again
        return again(world, run)
    return None


def again(world: World, run: Run) -> Run | None:
    """Have a run that failed, or was killed, begin anew a minute later, as Lambda does; an operator does the same."""
    if run.retries == 0:
        return None
    wait = MINUTE * (3 - run.retries)
    anew = replace(run, tape=(), next="", held=False, ready_at=world.now + wait, retries=run.retries - 1)
    return _begun(world, replace(anew, deadline=anew.ready_at + EVENT_AGE))


def _world_of(world: World, run: Run, tape: Tape) -> steps.World:
    return steps.World(
        devices=Table(world, tape, run.program),  # type: ignore[arg-type]  # a table in memory behind the same methods
        registry=Registry(world, tape),  # type: ignore[arg-type]  # likewise
        issuer=Issuer(world, tape, run.program),  # type: ignore[arg-type]  # likewise
        clock=lambda: tape.note(lambda: int(world.now * 1000)),
        policies=POLICIES,
        vendor_ca_id=VENDOR_CA,
        manufacturer_ca_id=MANUFACTURER_CA,
        stack="explored",
    )


def _message(world: World, run: Run, tape: Tape) -> None:
    RequestHandler(_world_of(world, run, tape), PREFIX).serve(run.program[2])


def _sweep(world: World, run: Run, tape: Tape) -> None:
    sweep(_world_of(world, run, tape), lambda: 60_000)


def _template(world: World, run: Run, tape: Tape) -> None:
    """Activate the certificate, whatever has happened to it meanwhile."""

    def finish() -> None:
        found = world.registry.get(run.program[2])
        if found is not None:
            world.thing = True
            world.list(
                run.program[2], replace(found, status="ACTIVE", policies=found.policies | {"bootstrap"}, thing=True)
            )

    tape.call("finishes", finish)


def _order(world: World, run: Run, tape: Tape) -> None:
    made = _world_of(world, run, tape)
    office = operations.OperatorContext(made.devices, made.registry, made.clock)
    try:
        ORDERS[run.program[2]](office)
    except OrderError:
        return
    tape.note(lambda: _ordered(world, run.program[2]))


def _ordered(world: World, name: str) -> None:
    """Note what an order that was carried out to its end promises."""
    if name == "advise" and world.device is not None and world.device.renew is not None and world.device.active:
        world.advised = world.device.active.certificate_id
    if name in ("revoke", "readmit"):
        world.advised = None
        world.revoked = name == "revoke" and world.device is not None and world.device.readmit_until is None


def _advise(office: operations.OperatorContext) -> None:
    now = office.clock()
    operations.advise(office, SERIAL, Renewal(now, now + int(HOUR * 1000), "an exercise", now))


ORDERS: dict[str, Callable[[operations.OperatorContext], object]] = {
    "allow": lambda office: operations.allow(office, SERIAL),
    "revoke": lambda office: operations.revoke(office, SERIAL),
    "readmit": lambda office: operations.readmit(office, SERIAL, int(READMISSION * 1000)),
    "advise": _advise,
}
PROGRAMS: dict[str, Callable[[World, Run, Tape], None]] = {
    "message": _message,
    "sweep": _sweep,
    "template": _template,
    "order": _order,
}


def _short(certificate_id: str) -> str:
    return f"certificate {int(certificate_id, 16)}"
