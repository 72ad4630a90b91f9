"""Bugs to be found: each breaks one rule of production code, and says from which start one fault shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cloud.rotation import lifecycle, operator_rules, steps
from cloud.rotation.devices import ConflictError
from cloud.rotation.lifecycle import Keep, Refuse, Save
from cloud.rotation.record import Certificate, Device, Retiring
from iot_agent.core import lifecycle as rules
from iot_agent.core.lifecycle import ApplyContext
from iot_agent.core.record import CheckedIn, Issued, Kind, Outcome, Proven, Record, Retired, Step, Success
from iot_agent.resident import cycle
from iot_agent.worker import steps as work
from tests.explorer.search import Found, Search
from tests.explorer.starts import STARTS

Patch = pytest.MonkeyPatch


# ---- the device ------------------------------------------------------------------------------------------------------


def breaks_before_it_makes(patch: Patch) -> None:
    """Remove the identity in force as soon as a new certificate is stored."""
    honest = work.STEPS[Kind.REQUEST]

    def request(record: Record, now: float, context: work.StepContext) -> Success:
        outcome = honest(record, now, context)
        if record.active is not None:
            context.identities.remove(record.active.label)
        return outcome

    patch.setitem(work.STEPS, Kind.REQUEST, request)


def promotes_without_proof(patch: Patch) -> None:
    """Take a stored certificate for a proven one."""
    honest = rules.apply

    def apply(record: Record, step: Kind, outcome: Outcome, context: ApplyContext) -> Record:
        record = honest(record, step, outcome, context)
        return honest(record, Kind.PROVE, Proven(None), context) if isinstance(outcome, Issued) else record

    patch.setattr(rules, "apply", apply)


def forgets_what_is_unconfirmed(patch: Patch) -> None:
    """Remove an unproven identity at once, although the cloud may have committed to it."""
    honest = rules._roll_back

    def roll_back(record: Record, context: ApplyContext) -> Record:
        record = honest(record, context)
        return replace(record, unconfirmed=(), to_delete=tuple(one.label for one in record.unconfirmed))

    patch.setattr(rules, "_roll_back", roll_back)


def retires_the_identity_in_force(patch: Patch) -> None:
    """Keep only what is pending."""
    honest = work.STEPS[Kind.RETIRE]

    def retire(record: Record, now: float, context: work.StepContext) -> Success:
        useless = context.identities.labels() - ({record.pending.label} if record.pending else set())
        return honest(replace(record, active=None, unconfirmed=(), to_delete=tuple(useless)), now, context)

    patch.setitem(work.STEPS, Kind.RETIRE, retire)


def never_falls_back(patch: Patch) -> None:
    """Leave the other identities out, whatever happens to the one in force."""
    patch.setattr(rules, "turn", lambda _record: None)


def trusts_the_record_alone(patch: Patch) -> None:
    """Do not look at the disk, neither at boot nor after a failure."""
    patch.setattr(cycle, "reconcile", lambda record, *_: record)


def waits_by_the_wall_clock(patch: Patch) -> None:
    """Wait until an instant of a clock that can be set."""

    def held_back(step: Step, record: Record, *_: object) -> Step:
        until = record.waiting_since + record.wait
        return step if record.failure is None or until <= step.due else replace(step, due=until)

    patch.setattr(rules, "_held_back", held_back)


def forgets_its_failures_with_a_new_key(patch: Patch) -> None:
    """Start the count of failures again with each key."""
    honest = rules.begin

    def begin(record: Record, *arguments: Any) -> Record:  # noqa: ANN401 - passed through
        begun = honest(record, *arguments)
        return rules.reset_backoff(begun) if begun != record else begun

    patch.setattr(rules, "begin", begin)


def leaves_old_keys(patch: Patch) -> None:
    """Count what is to be removed as removed."""
    patch.setitem(work.STEPS, Kind.RETIRE, lambda record, _now, _context: Retired(record.to_delete))


def forgets_an_order_during_a_check_in(patch: Patch) -> None:
    """Take a check-in for what was ordered meanwhile."""
    honest = rules.apply

    def apply(record: Record, step: Kind, outcome: Outcome, context: ApplyContext) -> Record:
        done = honest(record, step, outcome, context)
        return replace(done, renew_requested=0) if isinstance(outcome, CheckedIn) else done

    patch.setattr(rules, "apply", apply)


def ends_a_wait_with_a_local_success(patch: Patch) -> None:
    """Forget the failures when something local has worked."""
    honest = rules.apply

    def apply(record: Record, step: Kind, outcome: Outcome, context: ApplyContext) -> Record:
        done = honest(record, step, outcome, context)
        return replace(done, attempt=0, wait=0) if step in (Kind.GENERATE, Kind.RETIRE) else done

    patch.setattr(rules, "apply", apply)


def keeps_a_key_that_cannot_be_used(patch: Patch) -> None:
    """Ask again and again with a key that cannot be read."""
    patch.setattr(rules, "USELESS_KEY", frozenset())


def takes_the_bootstrap_identity_for_its_own(patch: Patch) -> None:
    """Ask for every certificate with the bootstrap identity."""
    patch.setattr(work, "asks_with_bootstrap", lambda _record: True)


# ---- the cloud -------------------------------------------------------------------------------------------------------


def retires_at_issue(patch: Patch) -> None:
    """Retire the previous certificate when the next is issued, before that is proven."""
    honest = lifecycle.with_pending

    def with_pending(device: Device, certificate: Certificate, now: int) -> Save:
        issued = honest(device, certificate, now)
        retiring = lifecycle.to_retire(device, device.present_certificate_id, now)
        return replace(issued, device=replace(issued.device, retiring=retiring))

    patch.setattr(lifecycle, "with_pending", with_pending)


def believes_the_previous_certificate(patch: Patch) -> None:
    """Accept an acknowledgement that came over the certificate before the one it names."""
    honest = lifecycle.decide_ack

    def decide_ack(device: Device | None, principal: str, named: str, now: int) -> Refuse | Save | Keep:
        old = device is not None and principal == device.present_certificate_id
        return honest(device, named if old else principal, named, now)

    patch.setattr(lifecycle, "decide_ack", decide_ack)


def serves_strangers(patch: Patch) -> None:
    """Issue to whoever asks."""
    honest = lifecycle.decide_create

    def decide_create(device: Device | None, serial: str, principal: str, *more: Any) -> Any:  # noqa: ANN401 - as it is
        present = device.present_certificate_id if device else None
        return honest(device, serial, present or principal, *more)

    patch.setattr(lifecycle, "decide_create", decide_create)


def registers_before_the_record(patch: Patch) -> None:
    """Register a certificate before the table knows of it."""
    honest, create = lifecycle.with_pending, steps.create
    worlds: list[steps.World] = []

    def remember(world: steps.World, *arguments: str) -> Any:  # noqa: ANN401 - as the step's own
        worlds[:] = [world]
        return create(world, *arguments)

    def with_pending(device: Device, certificate: Certificate, now: int) -> Save:
        world = worlds[0]
        named = certificate.certificate_id
        world.registry.register_active(certificate.pem, world.issuer.ca_pem, named, device.serial, world.policies)
        return honest(device, certificate, now)

    patch.setattr(steps, "create", remember)
    patch.setattr(lifecycle, "with_pending", with_pending)


def issues_anew_each_time(patch: Patch) -> None:
    """Give a key that has a certificate another one."""
    patch.setattr(lifecycle, "reusable", lambda _device, _public_key, _now: None)


def deletes_vendor_certificates(patch: Patch) -> None:
    """Delete a vendor certificate, so that it can register itself again."""
    patch.setattr(lifecycle, "Retiring", lambda certificate_id, since, vendor: Retiring(certificate_id, since))  # noqa: ARG005 - the bug


def retires_nothing(patch: Patch) -> None:
    """Leave every certificate as it is."""
    patch.setattr(steps, "_retire", lambda *_, **__: None)


def forgets_half_done_retirements(patch: Patch) -> None:
    """Take a certificate off the list of those to retire before it is retired."""
    honest = steps.finish

    def finish(world: steps.RetirementContext, serial: str, *, ordered: bool = False) -> None:
        device = world.devices.get(serial)
        if device and device.retiring:
            world.devices.save(replace(device, retiring=()), world.clock())
            for retiring in device.retiring:
                steps._retire(world, retiring.certificate_id, delete=not retiring.vendor)
        honest(world, serial, ordered=ordered)

    patch.setattr(steps, "finish", finish)


def says_yes_to_what_it_could_not_write(patch: Patch) -> None:
    """Acknowledge although somebody else wrote the record meanwhile."""
    honest = steps.acknowledge.__wrapped__  # type: ignore[attr-defined]  # without its further attempts

    def acknowledge(world: steps.World, serial: str, principal: str, named: str) -> Refuse | None:
        try:
            return honest(world, serial, principal, named)  # type: ignore[no-any-return]  # the step's own
        except ConflictError:
            return None

    patch.setattr(steps, "acknowledge", acknowledge)


def revokes_in_the_record_only(patch: Patch) -> None:
    """Leave what a revoked device has in service."""
    honest = operator_rules.revoke

    def revoke(device: Device, *more: Any) -> Save | Keep:  # noqa: ANN401 - passed through
        decision = honest(device, *more)
        if isinstance(decision, Save):
            return replace(decision, device=replace(decision.device, retiring=device.retiring))
        return decision

    patch.setattr(operator_rules, "revoke", revoke)


def readmits_in_the_record_only(patch: Patch) -> None:
    """Leave the vendor certificates of a readmitted device out of service."""
    patch.setattr(operator_rules, "to_return", lambda _certificate_ids, _now: ())


def forgets_what_was_returning(patch: Patch) -> None:
    """Let a revocation drop the certificates that an order before it was to let in."""
    patch.setattr(operator_rules, "none_returning", lambda device: replace(device, returning=()))


def keeps_its_advice(patch: Patch) -> None:
    """Never tell a device that it is to renew."""
    honest = lifecycle.decide_check_in

    def decide_check_in(*arguments: Any) -> Refuse | Save:  # noqa: ANN401 - passed through
        decision = honest(*arguments)
        if isinstance(decision, Save):
            return replace(decision, device=replace(decision.device, renew=None))
        return decision

    patch.setattr(lifecycle, "decide_check_in", decide_check_in)


def look_for(plant: Callable[[Patch], None], start: str) -> tuple[Found | None, int]:
    """Look for a planted bug with one fault from a start; gives what was found and how many states it took."""
    world = STARTS[start]()
    with Patch.context() as patch:
        plant(patch)
        search = Search()
        try:
            search.run(world, 1)
        except Found as found:
            return found, search.states
    return None, search.states


PLANTS: tuple[tuple[Callable[[Patch], None], str], ...] = (
    (breaks_before_it_makes, "in-service"),
    (promotes_without_proof, "in-service"),
    (forgets_what_is_unconfirmed, "in-service"),
    (retires_the_identity_in_force, "in-service"),
    (never_falls_back, "in-service"),
    (trusts_the_record_alone, "in-service"),
    (waits_by_the_wall_clock, "in-service"),
    (forgets_its_failures_with_a_new_key, "in-service"),
    (leaves_old_keys, "in-service"),
    (forgets_an_order_during_a_check_in, "in-service"),
    (ends_a_wait_with_a_local_success, "in-service"),
    (keeps_a_key_that_cannot_be_used, "known"),
    (takes_the_bootstrap_identity_for_its_own, "in-service"),
    (retires_at_issue, "in-service"),
    (believes_the_previous_certificate, "in-service"),
    (serves_strangers, "in-service"),
    (registers_before_the_record, "known"),
    (issues_anew_each_time, "known"),
    (deletes_vendor_certificates, "known"),
    (retires_nothing, "known"),
    (forgets_half_done_retirements, "in-service"),
    (says_yes_to_what_it_could_not_write, "in-service"),
    (revokes_in_the_record_only, "in-service"),
    (readmits_in_the_record_only, "in-service"),
    (forgets_what_was_returning, "unknown"),
    (keeps_its_advice, "in-service"),
)
