"""A device that is removed for good: nothing of it is left, whatever was under way and wherever a run was stopped."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from cloud.common import operations
from cloud.rotation import agenda, handler, lifecycle, steps
from cloud.rotation.lifecycle import SETTLE_MS
from cloud.rotation.record import Entry, State
from tests.cloud.conftest import aws, aws_environment
from tests.cloud.lambda_bench import Bench, a_bench, before_each_call, request
from tests.cloud.scenarios import CONTEXT, Act, Killed, ack, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fleet.conftest import Fleet

__all__ = ["aws", "aws_environment"]

Patch = pytest.MonkeyPatch


def everything(bench: Bench) -> set[str]:
    """Return the ids of all registered certificates, and the names of all things."""
    return {str(one["certificateId"]) for one in bench.iot.list_certificates()["certificates"]} | bench.all_things()


def swept(bench: Bench) -> None:
    """Let time pass, and the sweeper look several times."""
    for _ in range(4):
        bench.now += SETTLE_MS
        bench.sweep()


def check_gone(bench: Bench) -> None:
    assert bench.devices.get("SN-1") is None, "its record is still there"
    assert everything(bench) == set(), "something of it is left"


def test_a_removed_device_is_a_stranger_who_may_be_allowed_again(fleet: Fleet, monkeypatch: Patch) -> None:
    certificate = fleet.aboard()
    vendor = str(fleet.bench.device().vendor_certificate_id)
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    assert fleet("remove SN-1").status == 1
    assert fleet.bench.status(certificate) == "ACTIVE"
    said = fleet("remove SN-1 --yes")
    assert (said.status, said.out) == (
        0,
        "SN-1  removed: certificates out of service: 2; the sweeper deletes them, its thing and its record\n",
    )
    assert fleet.bench.status(certificate) == "gone"
    assert fleet.bench.status(vendor) == "INACTIVE", "it may not come back before its record is gone"
    assert fleet.bench.create(certificate, 2)["error"]["code"] == "not-allowed"
    assert "being removed since" in fleet("list").out
    assert "it is being removed" in fleet("allow SN-1").err
    assert "it is being removed" in fleet("readmit SN-1").err
    assert "being removed since" in fleet("remove SN-1 --yes").out
    swept(fleet.bench)
    check_gone(fleet.bench)
    assert "has no record" in fleet("show SN-1").err
    history = [(line.entry.event, line.entry.by) for line in fleet.bench.devices.history("SN-1")]
    assert [event for event, _ in history[-2:]] == ["removed", "deleted"]
    assert "arn:aws:" in str(history[-2][1])

    fleet.bench.vendor_again(vendor)  # the device is still there, and connects
    assert fleet.bench.device().state is State.QUARANTINED
    assert fleet.bench.status(vendor) == "INACTIVE"
    assert fleet("allow SN-1").status == 0
    fleet.bench.vendor_again(vendor)
    fleet.bench.ack(fleet.bench.create(vendor, 3)["cert_id"])
    fleet.bench.check_settled()


@pytest.mark.parametrize("how", ["allowed", "quarantined", "readmitted", "revoked", "rotating"])
def test_a_device_can_be_removed_in_any_state(fleet: Fleet, how: str) -> None:
    if how == "quarantined":
        vendor = fleet.bench.vendor("SN-1")
        fleet.bench.table.delete_item(Key={"serial": "SN-1"})
        fleet.bench.deliver(fleet.bench.registered_event(vendor))
    elif how != "allowed":
        certificate = fleet.aboard()
        if how == "rotating":
            fleet.bench.create(certificate, 2)
        else:
            fleet({"readmitted": "readmit SN-1", "revoked": "revoke SN-1 --yes"}[how])
            stranger = fleet.bench.vendor("SN-1")
            fleet.bench.deliver(fleet.bench.registered_event(stranger))
    else:
        fleet("allow SN-1")
    assert fleet("remove SN-1 --yes").status == 0
    swept(fleet.bench)
    check_gone(fleet.bench)


def test_a_thing_with_a_certificate_that_the_record_does_not_know_is_refused(fleet: Fleet) -> None:
    certificate = fleet.aboard()
    stray = fleet.bench.connect_vendor("SN-1", "stray")
    fleet.bench.iot.attach_thing_principal(thingName="SN-1", principal=fleet.bench.described(stray)["certificateArn"])
    said = fleet("remove SN-1 --yes")
    assert (said.status, stray in said.err) == (1, True)
    assert fleet.bench.status(certificate) == "ACTIVE"


def test_a_serial_without_a_record_has_nothing_to_remove(fleet: Fleet) -> None:
    said = fleet("remove SN-404 --yes")
    assert (said.status, "has no record" in said.err) == (1, True)


# ---- stopped at any call, and overtaken ------------------------------------------------------------------------------


def renewing(bench: Bench) -> Act:
    """Give the request of a device that renews."""
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    first = bench.create(vendor, 1)["cert_id"]
    bench.ack(first)
    return partial(handler.handle, bench.event("create", "SN-1", first, request(2)), CONTEXT)


def proving(bench: Bench) -> Act:
    """Give the acknowledgement of a device that renews."""
    renewing(bench)()
    pending = bench.device().pending
    assert pending
    return partial(handler.handle, ack(bench, pending.certificate_id, pending.certificate_id), CONTEXT)


def registering(bench: Bench) -> Act:
    """Give the first registration of an allowed device."""
    return partial(handler.handle, bench.registered_event(bench.vendor("SN-1")), CONTEXT)


SCENES = (renewing, proving, registering)


def remove(bench: Bench) -> None:
    """Give the order, as a command does; then the schedule fires."""
    operations.remove(bench.office(), "SN-1")
    bench.sweep()


def meet(patch: Patch, play: Callable[[Bench], Act], turns: tuple[int, int], killed: tuple[str, int]) -> dict[str, int]:
    """Let a run of the Lambda and the order meet with these turns, one of them stopped before that call."""
    with a_bench(patch) as bench:
        run = play(bench)

        def strike(who: str, call: int) -> None:
            if (who, call) == killed:
                raise Killed

        def survived(act: Act) -> Act:
            def acts() -> None:
                with suppress(Killed, ClientError):
                    act()

            return acts

        calls = take_turns(patch, (survived(run), survived(partial(remove, bench))), turns, strike)
        if bench.device().removing is None:
            assert killed[0] == "second", "an order that was not stopped is lost"
            remove(bench)
        if killed[0] == "first":
            survived(run)()  # Lambda runs an event again that was stopped
        swept(bench)
        check_gone(bench)
        return calls


NEVER, NOBODY = 10_000, ("", 0)


def overtaken(patch: Patch, play: Callable[[Bench], Act]) -> None:
    """Give the order before each call of the run, and let the run end, or stop it soon after."""
    for at in count(1):
        calls = meet(patch, play, (at, NEVER), NOBODY)
        if calls["first"] < at:
            break
        meet(patch, play, (at, NEVER), ("first", at + at % 3))
    assert at > 3


@pytest.mark.parametrize("play", SCENES)
def test_nothing_is_left_of_a_device_whatever_was_under_way_and_wherever_that_is_stopped(
    aws: Patch, play: Callable[[Bench], Act]
) -> None:
    overtaken(aws, play)


def test_an_order_that_is_stopped_at_any_call_is_finished_by_the_sweeper(aws: Patch) -> None:
    for at in count(1):
        if meet(aws, renewing, (3, NEVER), ("second", at))["second"] < at:
            break
    assert at > 10


def stopped_sweeps(patch: Patch) -> int:
    """Stop the sweeper before each call of its last look; the device connects as soon as it can."""
    for at in count(1):
        with a_bench(patch) as bench:
            renewing(bench)()
            remove(bench)
            bench.now += SETTLE_MS
            made = 0

            def stop(number: int, _operation: str, at: int = at) -> None:
                nonlocal made
                made = number
                if number == at:
                    raise Killed

            with before_each_call(patch, stop), suppress(Killed):
                bench.sweep()
            swept(bench)
            check_gone(bench)
        if made < at:
            return at
    raise AssertionError


def test_the_last_look_may_be_stopped_at_any_call(aws: Patch) -> None:
    assert stopped_sweeps(aws) > 15


@dataclass
class Waiting:
    """A device that connects before call number `at` of those that are made after its vendor certificate is gone."""

    bench: Bench
    vendor: str
    at: int
    came: bool = False
    within: bool = False

    def look(self, _number: int, _operation: str) -> None:
        if self.within or self.came:
            return
        self.within = True
        if self.bench.status(self.vendor) == "gone":
            self.at -= 1
            if not self.at:
                self.came = True
                self.bench.vendor_again(self.vendor)
        self.within = False


def test_a_device_that_connects_while_its_record_is_being_deleted_is_a_stranger_too(aws: Patch) -> None:
    """It comes right after its vendor certificate is gone, before each later call of that look."""
    for at in count(1):
        with a_bench(aws) as bench:
            renewing(bench)()
            vendor = str(bench.device().vendor_certificate_id)
            remove(bench)
            bench.now += SETTLE_MS
            device = Waiting(bench, vendor, at)
            with before_each_call(aws, device.look):
                bench.sweep()
            if not device.came:
                break
            swept(bench)
            assert bench.status(vendor) in ("gone", "INACTIVE")
            record = bench.devices.get("SN-1")
            assert record is None or record.state is State.QUARANTINED
            assert bench.all_things() == set()
            assert bench.issued() == {}
    assert at > 3


# ---- planted bugs ----------------------------------------------------------------------------------------------------


def deletes_at_once(patch: Patch) -> None:
    """Delete everything at once, while a run that has read the record in service may still be at work."""
    patch.setattr(lifecycle, "removable", lambda device, _now: device.removing is not None)
    patch.setattr(agenda, "SETTLE_MS", 0)


def deletes_the_record_first(patch: Patch) -> None:
    """Delete the record before the rest."""

    def remove_badly(world: steps.World, serial: str) -> None:
        device, now = world.devices.get(serial), world.clock()
        if device is None or not lifecycle.removable(device, now):
            return
        world.devices.delete(device, now, Entry("removed", ""))
        for one in lifecycle.left_of(device):
            steps._retire(world, one, delete=True)
        world.registry.delete_thing(serial, "", world.stack)

    patch.setattr(steps, "remove", remove_badly)


def test_a_record_that_is_deleted_too_early_would_be_noticed(aws: Patch) -> None:
    deletes_at_once(aws)
    with pytest.raises(AssertionError):
        overtaken(aws, renewing)


def test_a_record_that_is_deleted_first_would_be_noticed(aws: Patch) -> None:
    deletes_the_record_first(aws)
    with pytest.raises(AssertionError):
        stopped_sweeps(aws)
