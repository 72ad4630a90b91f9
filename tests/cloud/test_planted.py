"""Planted bugs: the faults and the turns of the other tests catch each of them, so those tests can fail."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cloud.rotation import lifecycle, steps
from cloud.rotation.devices import Devices
from cloud.rotation.lifecycle import Keep, Refuse, Save
from cloud.rotation.record import Certificate, Device, Entry, Retiring
from cloud.rotation.registry import Registry
from tests.cloud.scenarios import FAULTS, live_with_each, meet_at_each
from tests.cloud.test_at_once import all_or_nothing, late_proof, one_for_both, two_creates

Patch = pytest.MonkeyPatch


def retires_at_issue(patch: Patch) -> None:
    """Retire the previous certificate when the next is issued, before that is proven."""
    honest = lifecycle.with_pending

    def with_pending(device: Device, certificate: Certificate, now: int) -> Save:
        issued = honest(device, certificate, now)
        retiring = lifecycle.to_retire(device, device.present_certificate_id, now)
        return replace(issued, device=replace(issued.device, retiring=retiring))

    patch.setattr(lifecycle, "with_pending", with_pending)


def retires_before_the_record(patch: Patch) -> None:
    """Retire the previous certificate before it is on record that the next is proven."""
    honest = steps.acknowledge

    def acknowledge(world: steps.World, serial: str, principal: str, named: str) -> Refuse | None:
        device = world.devices.get(serial)
        if device and device.pending and device.pending.certificate_id == principal == named:
            steps._retire(world, str(device.present_certificate_id), delete=False)
        return honest(world, serial, principal, named)

    patch.setattr(steps, "acknowledge", acknowledge)


def believes_the_old_certificate(patch: Patch) -> None:
    """Accept an acknowledgement that came over the certificate before the one it names."""
    honest = lifecycle.decide_ack

    def decide_ack(device: Device | None, principal: str, named: str, now: int) -> Refuse | Save | Keep:
        old = device is not None and principal == device.present_certificate_id
        return honest(device, named if old else principal, named, now)

    patch.setattr(lifecycle, "decide_ack", decide_ack)


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
    patch.setattr(Registry, "disable", lambda _self, _certificate_id: None)


def forgets_half_done_retirements(patch: Patch) -> None:
    """Take a certificate off the list of those to retire before it is retired."""
    honest = steps.finish

    def finish(world: steps.World, serial: str) -> None:
        device = world.devices.get(serial)
        if device and device.retiring:
            world.devices.save(replace(device, retiring=()), world.clock())
            for retiring in device.retiring:
                steps._retire(world, retiring.certificate_id, delete=not retiring.vendor)
        honest(world, serial)

    patch.setattr(steps, "finish", finish)


def writes_over_others(patch: Patch) -> None:
    """Write a record whatever somebody else has written since it was read."""
    honest = Devices.save

    def save(self: Devices, device: Device, now: int, entry: Entry | None = None) -> None:
        latest = self.get(device.serial)
        honest(self, replace(device, version=latest.version) if latest else device, now, entry)

    patch.setattr(Devices, "save", save)


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (retires_at_issue, "refused"),
        (retires_before_the_record, "refused"),
        (believes_the_old_certificate, "refused"),
        (registers_before_the_record, "stopped"),
        (issues_anew_each_time, "answer lost"),
        (deletes_vendor_certificates, "stopped"),
        (retires_nothing, "refused"),
        (forgets_half_done_retirements, "stopped"),
    ],
)
def test_a_fault_at_each_call_shows_the_bug(plant: Callable[[Patch], None], fault: str, aws: Patch) -> None:
    plant(aws)
    with pytest.raises(AssertionError):
        live_with_each(aws, FAULTS[fault])


@pytest.mark.parametrize("plant", [issues_anew_each_time, writes_over_others])
def test_turns_at_each_call_show_the_bug(plant: Callable[[Patch], None], aws: Patch) -> None:
    plant(aws)
    with pytest.raises(AssertionError):
        meet_at_each(aws, lambda bench: two_creates(bench, (1, 1)), one_for_both)


def test_turns_at_each_call_of_the_sweeper_show_the_bug(aws: Patch) -> None:
    writes_over_others(aws)
    with pytest.raises(AssertionError):
        meet_at_each(aws, late_proof, all_or_nothing)
