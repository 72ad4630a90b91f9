"""The Lambda's entry: parse, load, decide, act, reply.

An event is what the stack's topic rules select, `{"event", "topic", "principal", "client_id", "data": base64}`, or what
its schedule sends, `{"event": "sweep"}`.
In every case a device of this stack whose topic names its serial gets an answer:

- what it asked for, or why not;
- `bad-request` for what cannot be parsed: a retry would not help;
- `conflict` when other runs kept writing the same record;
- `try-later` for any other failure, which is then raised, so that Lambda retries twice and then puts the event into the
  failure queue. A retry that succeeds sends a second answer: the one that the device would get by asking again.

A device of another stack with the same topic prefix gets no answer (`principal_issuer`).

The old certificate is retired after the reply, so a failure there does not affect the device; it is raised as well.
"""

from __future__ import annotations

import base64
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from cloud.rotation import devices, issuer, messages, principal_issuer, registry, steps, telemetry
from cloud.rotation.lifecycle import CONFLICT_S, TRY_LATER_S, Event, Quarantine, Refuse
from cloud.rotation.messages import AckRequest, CheckInRequest, CreateRequest, ErrorResponse, MalformedError
from cloud.rotation.settings import Settings
from cloud.rotation.sweeper import sweep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud.rotation.messages import Address, Response
    from cloud.rotation.steps import World

Request = CreateRequest | AckRequest | CheckInRequest


class Context(Protocol):
    """What Lambda provides about a run (Lambda DG: "Using the Lambda context object")."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the run is stopped."""


def handle(event: Mapping[str, Any], context: Context) -> None:
    """Serve one event; Lambda calls this."""
    if event["event"] == "sweep":
        sweep(request_handler().world, context.get_remaining_time_in_millis)
    else:
        request_handler().serve(event)


@dataclass(frozen=True, slots=True)
class RequestHandler:
    """Serves events of the topics under `prefix`."""

    world: World
    prefix: str
    looks: principal_issuer.Looks = field(default_factory=principal_issuer.Looks)

    def serve(self, event: Mapping[str, Any]) -> None:
        """Serve one event. If this raises, Lambda runs the event again, and at last puts it into the failure queue."""
        kind = Event(event["event"])
        data = base64.b64decode(event.get("data") or "", validate=True)
        if kind is Event.REGISTERED:
            serial = steps.registered(self.world, messages.parse_registered(data).certificate_id)
            if serial:
                steps.finish(self.world, serial)
            return
        try:
            address = messages.parse_address(self.prefix, event["topic"])
        except MalformedError as error:  # it names no serial, so no device can be answered
            telemetry.count("Malformed", self.world.stack, topic=str(event["topic"])[:256], reason=str(error))
            return
        if address.event is not kind:
            raise ValueError(f"a topic rule sent {address.event} as {kind}")
        self._request(address, str(event.get("principal")), data)

    def _request(self, address: Address, principal: str, data: bytes) -> None:
        request = _read(address.event, data)
        request_id = None if isinstance(request, Refuse) else request.request_id
        try:
            outcome = request if isinstance(request, Refuse) else self._act(address.serial, principal, request)
            foreign = self._foreign(address, principal) if isinstance(outcome, Refuse) else None
        except devices.ConflictError as error:
            outcome, foreign = Refuse("conflict", str(error), CONFLICT_S), None
        except Exception:
            telemetry.count("Failed", self.world.stack, serial=address.serial, request=address.event)
            with suppress(Exception):  # the first failure is the one to raise
                if not self._foreign(address, principal, failing=True):
                    self._reply(address, request_id, Refuse("try-later", "the cloud is not ready", TRY_LATER_S))
            raise
        if foreign:
            telemetry.count("Foreign", self.world.stack, serial=address.serial, certificate=principal, reason=foreign)
            return
        if isinstance(request, Refuse):
            telemetry.count("Malformed", self.world.stack, serial=address.serial, reason=request.reason)
        # A device that is to be quarantined gets its answer first: afterwards it can receive nothing.
        self._reply(address, request_id, outcome)
        if isinstance(outcome, Quarantine):  # judged again: another run may be judging its registration now
            steps.registered(self.world, outcome.certificate_id)
        steps.finish(self.world, address.serial)

    def _act(self, serial: str, principal: str, request: Request) -> Response | Refuse | Quarantine:
        if not _is_certificate(principal):
            return Refuse("wrong-principal", "this was not sent over a device certificate")
        world, now = self.world, self.world.clock()
        match request:
            case CreateRequest():
                issued = steps.create(world, serial, principal, request.csr)
                if isinstance(issued, Refuse | Quarantine):
                    return issued
                chain = steps.chain_of(world, issued)
                return messages.CreateResponse(issued.pem, issued.certificate_id, request.request_id, chain, now)
            case AckRequest():
                refused = steps.acknowledge(world, serial, principal, request.cert_id)
                return refused or messages.AckResponse(request.cert_id, request.request_id, now)
            case CheckInRequest():
                device = steps.check_in(world, serial, principal, request.report_text())
                if isinstance(device, Refuse):
                    return device
                return messages.CheckInResponse(request.request_id, now, device.renew)

    def _foreign(self, address: Address, principal: str, *, failing: bool = False) -> str | None:
        """Return why a refusal or failure is not answered; None if the device is this stack's."""
        if not _is_certificate(principal):  # no device sent it, so no other stack serves it
            return None
        return principal_issuer.foreign(self.world, self.looks, address.serial, principal, failing=failing)

    def _reply(self, address: Address, request_id: str | None, outcome: Response | Refuse | Quarantine) -> None:
        if isinstance(outcome, Quarantine):
            outcome = Refuse("not-allowed", outcome.reason)
        code = reason = None
        if isinstance(outcome, Refuse):
            code, reason = outcome.code, outcome.reason
            outcome = ErrorResponse(code, reason, outcome.retry_after_s, request_id)
        self.world.registry.publish(address.reply_to, messages.encode(outcome))
        metric = "Refused" if code else "Served"
        telemetry.count(
            metric, self.world.stack, serial=address.serial, request=address.event, code=code, reason=reason
        )


def _is_certificate(principal: str) -> bool:
    try:
        messages.certificate_id(principal, "principal")
    except MalformedError:
        return False
    return True


def _read(event: Event, data: bytes) -> Request | Refuse:
    try:
        match event:
            case Event.CREATE:
                return messages.parse_create(data)
            case Event.ACK:
                return messages.parse_ack(data)
            case _:
                return messages.parse_check_in(data)
    except MalformedError as error:
        return Refuse("bad-request", str(error))


@cache
def request_handler() -> RequestHandler:
    """Return the handler, made once per warm function from the environment and the clock."""
    settings = Settings.read(os.environ)
    ca_pem = settings.manufacturer_ca_pem
    key = issuer.connect(ca_pem, settings.manufacturer_key_parameter, settings.manufacturer_key_arn)
    world = steps.World(
        devices=devices.connect(settings.table, settings.history_table),
        registry=registry.connect(),
        issuer=issuer.Issuer(ca_pem, key, settings.certificate_lifetime),
        clock=lambda: time.time_ns() // 1_000_000,
        policies=settings.policies,
        vendor_ca_id=settings.vendor_ca_id,
        manufacturer_ca_id=settings.manufacturer_ca_id,
        stack=settings.stack,
    )
    return RequestHandler(world, settings.topic_prefix)
