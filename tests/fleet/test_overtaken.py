"""An order that lets a device in, given while the Lambda is taking its vendor certificate out of service.

The two take turns at every call of either, each is stopped at every call of its own, and the device knocks all the
time: a step of its registration before each call. In the end it must come aboard, without another order.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iot.models import iot_backends

from cloud.common import operations
from cloud.rotation import handler, lifecycle, operator_rules, steps
from cloud.rotation.lifecycle import SETTLE_MS, Save
from cloud.rotation.record import Device, State
from cloud.rotation.registry import Attached, Registry
from tests.cloud import pki
from tests.cloud.conftest import aws, aws_environment
from tests.cloud.lambda_bench import Bench, a_bench
from tests.cloud.scenarios import CONTEXT, Act, Killed, ack, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["aws", "aws_environment"]

Patch = pytest.MonkeyPatch
HOUR_MS = 3600 * 1000
NEVER = 10_000


@dataclass
class Scene:
    """What the Lambda is doing (`run`), the order that comes meanwhile, and the vendor certificate it is about."""

    run: Act
    order: Act
    vendor: str


@dataclass
class Knocking:
    """A device that tries to come in with its vendor certificate: one step each time that it is its turn.

    AWS IoT registers the certificate if it is not registered, runs the template and tells the Lambda, in that order
    or with the event before the template's last step. A template that fails leaves the certificate as it is.
    """

    bench: Bench
    vendor: str
    under_way: list[Act] = field(default_factory=list)

    def step(self) -> None:
        """Go on with the registration that is under way, or begin one if the certificate is gone."""
        if self.under_way:
            act = self.under_way.pop(0)
            try:
                act()
            except (ClientError, steps.StillPendingError):
                self.under_way.clear()
        elif self.vendor not in iot_backends[DEFAULT_ACCOUNT_ID]["eu-west-1"].certificates:
            pem = next(pem for pem in self.bench.pems if pki.certificate_id(pem) == self.vendor)
            self.bench._connect(pem)
            self.under_way = list(self._template())

    def _template(self) -> Iterator[Act]:
        iot, arn = self.bench.iot, self.bench.described(self.vendor)["certificateArn"]
        yield partial(iot.create_thing, thingName="SN-1")
        yield partial(iot.attach_policy, policyName="bootstrap", target=arn)
        yield partial(iot.attach_thing_principal, thingName="SN-1", principal=arn)
        yield partial(iot.update_certificate, certificateId=self.vendor, newStatus="ACTIVE")
        yield partial(self.bench.deliver, self.bench.registered_event(self.vendor))

    def to_the_end(self) -> None:
        """Finish what is under way, and come once more if the certificate is gone then."""
        self.step()
        while self.under_way:
            self.step()


def allowed_in_quarantine(bench: Bench) -> Scene:
    """Allow a serial whose vendor certificate is being quarantined."""
    vendor = bench.vendor("SN-1")
    bench.table.delete_item(Key={"serial": "SN-1"})
    event = bench.registered_event(vendor)
    return Scene(partial(handler.handle, event, CONTEXT), partial(operations.allow, bench.office(), "SN-1"), vendor)


def readmitted_in_quarantine(bench: Bench) -> Scene:
    """Readmit a device whose new vendor certificate, the second of its serial, is being quarantined."""
    bench.deliver(bench.registered_event(bench.vendor("SN-1")))
    vendor = bench.vendor("SN-1")
    event = bench.registered_event(vendor)
    return Scene(partial(handler.handle, event, CONTEXT), partial(_readmit, bench), vendor)


def readmitted_in_retirement(bench: Bench) -> Scene:
    """Readmit a device whose vendor certificate is being retired, because it has just proven the next."""
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    first = bench.create(vendor)["cert_id"]
    event = ack(bench, first, first)
    return Scene(partial(handler.handle, event, CONTEXT), partial(_readmit, bench), vendor)


def looked_after_by_two(bench: Bench) -> Scene:
    """Have a late event and the sweeper find what an order that was stopped has left."""
    scene = allowed_in_quarantine(bench)
    scene.run()
    ordered = operator_rules.allow(bench.device(), "SN-1", bench.now)
    assert isinstance(ordered, Save)
    bench.devices.save(ordered.device, bench.now, ordered.entry)
    bench.now += SETTLE_MS
    event = bench.registered_event(scene.vendor)
    return Scene(partial(handler.handle, event, CONTEXT), bench.sweep, scene.vendor)


def _readmit(bench: Bench) -> None:
    operations.readmit(bench.office(), "SN-1", HOUR_MS)


SCENES = (allowed_in_quarantine, readmitted_in_quarantine, readmitted_in_retirement, looked_after_by_two)


def let_in(device: Device | None, now: int) -> bool:
    return device is not None and (device.state is State.ALLOWED or device.readmitted(now) or bool(device.returning))


def meet(
    patch: Patch, play: Callable[[Bench], Scene], turns: tuple[int, int], killed: tuple[str, int]
) -> tuple[int, int]:
    """Play a scene with these turns, and one of the two stopped before that call; return how many calls each made."""
    with a_bench(patch) as bench:
        scene = play(bench)
        device = Knocking(bench, scene.vendor)

        def meanwhile(who: str, call: int) -> None:
            if (who, call) == killed:
                raise Killed
            device.step()

        def survived(act: Act) -> Act:
            def run() -> None:
                with suppress(Killed, ClientError):  # one that AWS refused ends there too
                    act()

            return run

        calls = take_turns(patch, (survived(scene.run), survived(scene.order)), turns, meanwhile)
        if not let_in(bench.devices.get("SN-1"), bench.now) and killed[0] == "second":
            scene.order()  # it was stopped before it wrote anything
        device.to_the_end()
        comes_aboard(bench, device)
        return calls["first"], calls["second"]


def comes_aboard(bench: Bench, device: Knocking) -> None:
    """See that the device, as it is or when the sweeper has looked after it, gets a certificate of its own."""
    for _ in range(2):
        bench.now += SETTLE_MS
        bench.sweep()
        device.to_the_end()
        if not bench.device().returning:
            break
    if bench.device().active and bench.device().readmit_until is None:
        bench.check_settled()  # it was aboard before the order came, which ended with its acknowledgement
        return
    assert bench.status(device.vendor) == "ACTIVE", "its vendor certificate is out of service"
    assert bench.policies(device.vendor) == {"bootstrap"}, "its vendor certificate is good for nothing"
    assert bench.device().returning == ()
    answer = bench.create(device.vendor, 7)
    assert "cert_id" in answer, answer
    bench.check_never_bricked()


NOBODY = ("", 0)


def every_meeting(patch: Patch, play: Callable[[Bench], Scene]) -> int:
    """Let the two meet at each pair of their calls."""
    met = 0
    for first_at in count(1):
        for second_at in count(1):
            first, second = meet(patch, play, (first_at, second_at), NOBODY)
            met += 1
            if second < second_at:
                break
        if first < first_at:
            break
    return met


def every_death(patch: Patch, play: Callable[[Bench], Scene], who: str) -> int:
    """Let the order come at each call of the run, and stop one of the two before each of its calls."""
    met = 0
    for first_at in count(1):
        for dies_at in count(first_at if who == "first" else 1):
            made = meet(patch, play, (first_at, NEVER), (who, dies_at))
            met += 1
            if made[who == "second"] < dies_at:
                break
        if made[0] < first_at:
            break
    return met


@pytest.mark.parametrize("play", SCENES)
def test_a_device_that_an_order_lets_in_comes_aboard_whatever_was_under_way(
    aws: Patch, play: Callable[[Bench], Scene]
) -> None:
    assert every_meeting(aws, play) > 50


DEATHS = [(allowed_in_quarantine, "first"), (allowed_in_quarantine, "second"), (looked_after_by_two, "second")]


@pytest.mark.parametrize(("play", "who"), DEATHS)
def test_also_when_one_of_the_two_is_stopped_at_any_call(aws: Patch, play: Callable[[Bench], Scene], who: str) -> None:
    assert every_death(aws, play, who) > 30


# ---- planted bugs ---------------------------------------------------------------------------------------------------


def forgets_at_once(patch: Patch) -> None:
    """Take a certificate off the record as soon as the order has let it register again."""
    patch.setattr(
        operator_rules, "to_return", lambda ids, now: tuple(replace(r, since=0) for r in lifecycle.to_return(ids, now))
    )


def looks_at_the_status_only(patch: Patch) -> None:
    """Take an ACTIVE certificate for one that can be used."""
    patch.setattr(Registry, "attached", lambda _self, _found: Attached(("some",), ("some",)))


def looks_for_the_policy_only(patch: Patch) -> None:
    """Take a certificate without its thing for one that can be used."""
    honest = Registry.attached
    patch.setattr(Registry, "attached", lambda self, found: replace(honest(self, found), things=("some",)))


def deletes_what_it_no_longer_looks_after(patch: Patch) -> None:
    """Take a certificate that is shut out off the record, and then delete it."""
    honest = lifecycle.finished
    patch.setattr(lifecycle, "finished", lambda device, _shut_out, now: honest(device, [], now))


@pytest.mark.parametrize(
    ("plant", "play", "who"),
    [
        (forgets_at_once, allowed_in_quarantine, ""),
        (forgets_at_once, readmitted_in_quarantine, ""),
        (forgets_at_once, readmitted_in_retirement, ""),
        (looks_at_the_status_only, allowed_in_quarantine, ""),
        (looks_for_the_policy_only, allowed_in_quarantine, ""),
        (deletes_what_it_no_longer_looks_after, looked_after_by_two, "second"),
    ],
)
def test_the_planted_bug_is_caught(
    aws: Patch, plant: Callable[[Patch], None], play: Callable[[Bench], Scene], who: str
) -> None:
    plant(aws)
    with pytest.raises(AssertionError):
        every_death(aws, play, who) if who else every_meeting(aws, play)
