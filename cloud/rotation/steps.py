"""What each message causes: read the record, ask the rules, write the record, and only then change AWS IoT.

Every step may run twice, or stop anywhere and run again: before the first effect the record is written, if nobody else
has written it, and an effect that has already happened counts as done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar

from cloud.rotation import csr, lifecycle, telemetry
from cloud.rotation.devices import ConflictError
from cloud.rotation.lifecycle import CONFLICT_S, Presented, Quarantine, Refuse, Save
from cloud.rotation.messages import SERIAL
from cloud.rotation.record import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud.rotation.devices import Devices
    from cloud.rotation.issuer import Issuer
    from cloud.rotation.record import Certificate, Device, Returning
    from cloud.rotation.registry import Registry

ATTEMPTS: Final = 5
OUT_OF_SERVICE: Final = ("INACTIVE", "REVOKED")
"""Statuses in which a certificate is refused, and which only an operator ends (AWS IoT API: CertificateStatus)."""

P = ParamSpec("P")
T = TypeVar("T")


class StillPendingError(RuntimeError):
    """The provisioning template may still undo a quarantine: raised so that Lambda runs the event again in a minute."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything a step reads or changes; `clock` returns ms since 1970."""

    devices: Devices
    registry: Registry
    issuer: Issuer
    clock: Callable[[], int]
    policies: tuple[str, ...]
    vendor_ca_id: str
    manufacturer_ca_id: str
    stack: str


def again_on_conflict(step: Callable[P, T]) -> Callable[P, T]:
    """Run a step again from its start when another run wrote the record meanwhile."""

    @wraps(step)
    def persistent(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(ATTEMPTS - 1):
            try:
                return step(*args, **kwargs)
            except ConflictError:
                continue
        return step(*args, **kwargs)

    return persistent


@again_on_conflict
def create(world: World, serial: str, principal: str, pem: str) -> Certificate | Refuse | Quarantine:
    """Return the certificate for the request `pem`: issued, recorded, and only then registered."""
    now = world.clock()
    device = world.devices.get(serial)
    presented = _inspect(world, principal) if lifecycle.needs_inspection(device, principal, now) else None
    decision = lifecycle.decide_create(device, serial, principal, presented, now)
    if isinstance(decision, Refuse | Quarantine):
        return decision
    try:
        request = csr.check(pem, serial)
    except csr.BadCsrError as error:
        return Refuse("bad-csr", str(error))
    certificate = lifecycle.reusable(decision.device, request.fingerprint, now)
    found = world.registry.describe(certificate.certificate_id) if certificate else None
    if certificate and not found and not world.issuer.signed(certificate.pem):
        certificate = None  # this stack cannot register it, so it is useless
    if certificate is None:
        certificate = replace(world.issuer.issue(request, serial, now), recovering=decision.recovering)
        issued = lifecycle.with_pending(decision.device, certificate, now)
        world.devices.save(issued.device, now, issued.entry)
        telemetry.count("Issued", world.stack, serial=serial, certificate=certificate.certificate_id)
    if found:
        world.registry.complete(found, serial, world.policies)
    else:
        named = certificate.certificate_id
        world.registry.register_active(certificate.pem, world.issuer.ca_pem, named, serial, world.policies)
    # If another run has retired this certificate meanwhile, this run has just registered it again.
    latest = world.devices.get(serial)
    if latest is None or not latest.holds(certificate.certificate_id):
        _retire(world, certificate.certificate_id, delete=True)
        return Refuse("conflict", "another request has replaced this one", CONFLICT_S)
    return certificate


def chain_of(world: World, certificate: Certificate) -> str | None:
    """Return the certificate, PEM, of the CA that signed this one; None if that CA is no longer registered."""
    if world.issuer.signed(certificate.pem):
        return world.issuer.ca_pem
    found = world.registry.describe(certificate.certificate_id)
    return world.registry.ca_pem(found.ca_id) if found and found.ca_id else None


@again_on_conflict
def acknowledge(world: World, serial: str, principal: str, named: str) -> Refuse | None:
    """Make the pending certificate active; return None, or the refusal."""
    now = world.clock()
    decision = lifecycle.decide_ack(world.devices.get(serial), principal, named, now)
    if isinstance(decision, Save):
        world.devices.save(decision.device, now, decision.entry)
        telemetry.count("Proven", world.stack, serial=serial, certificate=principal)
    return decision if isinstance(decision, Refuse) else None


@again_on_conflict
def check_in(world: World, serial: str, principal: str, report: str) -> Device | Refuse:
    """Store a report and return the record."""
    now = world.clock()
    decision = lifecycle.decide_check_in(world.devices.get(serial), principal, report, now)
    if isinstance(decision, Refuse):
        return decision
    world.devices.save(decision.device, now)
    return decision.device


@again_on_conflict
def registered(world: World, certificate_id: str) -> str | None:
    """Record a vendor certificate that has registered itself, or quarantine it. Return its serial, if it has one."""
    presented = _inspect(world, certificate_id)
    if presented is None:
        telemetry.say("registered", certificate=certificate_id, reason="the certificate is no longer registered")
        return None
    now = world.clock()
    device = world.devices.get(presented.serial) if presented.serial else None
    decision = lifecycle.decide_registered(device, presented, now)
    if isinstance(decision, Save):
        world.devices.save(decision.device, now, decision.entry)
        telemetry.say("registered", serial=presented.serial, certificate=certificate_id)
        return presented.serial
    telemetry.say("registered", serial=presented.serial, certificate=certificate_id, reason=decision.reason)
    if isinstance(decision, Quarantine):
        quarantine(world, decision)
    return presented.serial


def quarantine(world: World, decision: Quarantine) -> None:
    """Take a vendor certificate out of service, and the thing that was made for an unknown serial.

    A provisioning template that has not finished would set the certificate ACTIVE again. So this waits some seconds for
    it; if it has not finished by then, StillPendingError asks for one more run, in a minute.
    """
    if decision.record:
        entry = Entry("quarantined", decision.reason, decision.certificate_id)
        world.devices.save(decision.record, world.clock(), entry)
    found = world.registry.wait_until_provisioned(decision.certificate_id)
    if found is None:
        return
    if found.status != "INACTIVE":  # a second run for the same certificate is not counted again
        telemetry.count("Quarantined", world.stack, certificate=decision.certificate_id, reason=decision.reason)
    world.registry.disable(decision.certificate_id)
    if decision.thing:
        world.registry.delete_thing(decision.thing, found.arn, world.stack)
    if found.status == "PENDING_ACTIVATION":
        raise StillPendingError(f"{decision.certificate_id} may still be activated by its provisioning template")


class RetirementContext(Protocol):
    """What `finish` needs."""

    @property
    def devices(self) -> Devices:
        """The records."""

    @property
    def registry(self) -> Registry:
        """Where certificates are registered."""

    @property
    def clock(self) -> Callable[[], int]:
        """The time, ms since 1970."""


def finish(world: RetirementContext, serial: str, *, ordered: bool = False) -> None:
    """Do what the record says is to be done, whichever run has left it.

    Certificates to be retired are retired. A vendor certificate that may register again, but is registered and out of
    service, is deleted, so that it can. `ordered`: an operator's command calls this right after its order.
    """
    device = world.devices.get(serial)
    if device is None or not (device.retiring or device.returning):
        return
    now = world.clock()
    for retiring in device.retiring:
        _retire(world, retiring.certificate_id, delete=not retiring.vendor)
    shut_out = [one.certificate_id for one in device.returning if _shut_out(world, one, now, ordered=ordered)]
    rest = lifecycle.finished(device, shut_out, now)
    if isinstance(rest, Save):
        try:
            world.devices.save(rest.device, now, rest.entry)
        except ConflictError:
            return  # the run that wrote finds the same in the record, and does the rest
    for certificate_id in shut_out:
        _retire(world, certificate_id, delete=True)


def remove(world: World, serial: str) -> None:
    """Delete what is left of a device that an operator has removed, its record last: so a run that stops is repeated.

    As soon as its vendor certificate is deleted, the device may register again. The Lambda then quarantines it, and
    writes the record if that is still there: then ConflictError is raised, and the next look deletes that certificate.
    """
    device, now = world.devices.get(serial), world.clock()
    if device is None or not lifecycle.removable(device, now):
        return
    for certificate_id in lifecycle.left_of(device):
        _retire(world, certificate_id, delete=True)
    world.registry.delete_thing(serial, "", world.stack)
    world.devices.delete(device, now, Entry("deleted", "its certificates, its thing and its record are deleted"))
    telemetry.say("removed", serial=serial)


def _shut_out(world: RetirementContext, one: Returning, now: int, *, ordered: bool) -> bool:
    """Whether a vendor certificate that may register again cannot be used as it is.

    If it is not complete, its provisioning template may still be working on it: SETTLE_MS must pass first. An order
    does not wait, because its operator knows that the device has no certificate that works.
    """
    found = world.registry.describe(one.certificate_id)
    if found is None:
        return False
    if found.status in OUT_OF_SERVICE:
        return True
    if found.status != "ACTIVE":
        return lifecycle.has_settled(one, now)
    if not (ordered or lifecycle.has_settled(one, now)):
        return False
    there = world.registry.attached(found)
    return not (there.policies and there.things)


def _retire(world: RetirementContext, certificate_id: str, *, delete: bool) -> None:
    if world.registry.disable(certificate_id) and delete:
        world.registry.delete(certificate_id)


def _inspect(world: World, certificate_id: str) -> Presented | None:
    found = world.registry.describe(certificate_id)
    if found is None:
        return None
    name, not_after = csr.subject_and_end(found.pem)
    serial = name if name and SERIAL.fullmatch(name) else None
    by_vendor_ca, in_service = found.ca_id == world.vendor_ca_id, found.status not in OUT_OF_SERVICE
    return Presented(certificate_id, serial, by_vendor_ca, not_after, in_service)
