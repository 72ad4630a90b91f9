"""AWS IoT: certificates, policies and things, and the answers to devices.

Every change may be repeated: what is already done counts as done. The control plane is eventually consistent (DG:
"Attach a thing or policy"), so a deletion that AWS IoT refuses because of a removed attachment is tried again.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config

from cloud.rotation.settings import TIMEOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_iot import IoTClient
    from mypy_boto3_iot_data import IoTDataPlaneClient

PENDING_WAITS: Final = (1.0, 1.0, 2.0, 4.0)
"""Seconds to wait for a just-in-time provisioning template to finish: typically one to three."""

DELETE_WAITS: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds to wait between attempts to delete what was just detached."""

ORIGIN: Final = "iot-agent-stack"
"""The attribute of a thing that names the stack whose provisioning template made the thing.

The template sets it on a new thing only: a thing that existed before keeps its own attributes (DG: "Provisioning
templates", OverrideSettings DO_NOTHING).
"""


@dataclass(frozen=True, slots=True)
class Registered:
    """A certificate in the registry."""

    certificate_id: str
    arn: str
    status: str
    pem: str
    ca_id: str | None


@dataclass(frozen=True, slots=True)
class Attached:
    """The names of the policies and things of a certificate."""

    policies: tuple[str, ...]
    things: tuple[str, ...]


class Registry:
    """The registry of one account and region; `sleep` takes seconds."""

    def __init__(self, iot: IoTClient, data: IoTDataPlaneClient, sleep: Callable[[float], None] = time.sleep) -> None:
        self._iot = iot
        self._data = data
        self._sleep = sleep

    def describe(self, certificate_id: str) -> Registered | None:
        """Return the certificate, or None if it is not registered."""
        try:
            found = self._iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]
        except self._iot.exceptions.ResourceNotFoundException:
            return None
        return Registered(
            certificate_id,
            found["certificateArn"],
            found["status"],
            found["certificatePem"],
            found.get("caCertificateId") or None,
        )

    def wait_until_provisioned(self, certificate_id: str) -> Registered | None:
        """Return the certificate once it is no longer PENDING_ACTIVATION, or as it is after some seconds."""
        found = self.describe(certificate_id)
        for wait in PENDING_WAITS:
            if found is None or found.status != "PENDING_ACTIVATION":
                break
            self._sleep(wait)
            found = self.describe(certificate_id)
        return found

    def ca_pem(self, ca_id: str) -> str | None:
        """Return a CA's certificate, PEM, or None if the CA is not registered."""
        try:
            found = self._iot.describe_ca_certificate(certificateId=ca_id)["certificateDescription"]
        except self._iot.exceptions.ResourceNotFoundException:
            return None
        return found["certificatePem"]

    def attached(self, found: Registered) -> Attached:
        """Return what is attached to a certificate."""
        # All pages are read before anything is detached, because detaching changes the pages.
        policies = list(self._iot.get_paginator("list_attached_policies").paginate(target=found.arn))
        things = list(self._iot.get_paginator("list_principal_things").paginate(principal=found.arn))
        return Attached(
            tuple(policy["policyName"] for page in policies for policy in page["policies"]),
            tuple(thing for page in things for thing in page["things"]),
        )

    def register_active(
        self, pem: str, ca_pem: str, certificate_id: str, thing: str, policies: tuple[str, ...]
    ) -> None:
        """Register a certificate as ACTIVE with its policies and thing.

        `ca_pem` is the CA that signed it: without it AWS refuses when several CAs share a subject
        (CertificateConflict). One that is already registered keeps its status: if an operator deactivated it, it
        stays INACTIVE.
        """
        try:
            arn = self._iot.register_certificate(certificatePem=pem, caCertificatePem=ca_pem, status="ACTIVE")[
                "certificateArn"
            ]
        except self._iot.exceptions.ResourceAlreadyExistsException:
            existing = self.describe(certificate_id)
            if existing:  # else another run retired it between the two calls
                self.complete(existing, thing, policies)
            return
        with self._unless_deleted(certificate_id):
            self._attach(arn, policies, (thing,))

    def complete(self, found: Registered, thing: str, policies: tuple[str, ...]) -> None:
        """Attach those of its policies and thing that a registered certificate lacks."""
        with self._unless_deleted(found.certificate_id):
            there = self.attached(found)
            lacking = tuple(policy for policy in policies if policy not in there.policies)
            self._attach(found.arn, lacking, () if thing in there.things else (thing,))

    def _attach(self, arn: str, policies: tuple[str, ...], things: tuple[str, ...]) -> None:
        for policy in policies:
            self._iot.attach_policy(policyName=policy, target=arn)
        for thing in things:
            self._attach_thing(thing, arn)

    def _attach_thing(self, thing: str, arn: str) -> None:
        """Attach a thing so that the certificate can have no other thing, where AWS IoT and its SDK offer that.

        DG: "Associating an AWS IoT thing to an MQTT client connection". The SDK is the Lambda runtime's own, and may be
        older than this parameter. AWS does not document its answer for a certificate that has a thing already; if it is
        a refusal, the thing is attached as before.
        """
        known = self._iot.meta.service_model.operation_model("AttachThingPrincipal").input_shape
        if known is not None and "thingPrincipalType" in known.members:
            try:
                self._iot.attach_thing_principal(thingName=thing, principal=arn, thingPrincipalType="EXCLUSIVE_THING")
            except self._iot.exceptions.InvalidRequestException:
                pass  # attached below
            else:
                return
        self._iot.attach_thing_principal(thingName=thing, principal=arn)

    def disable(self, certificate_id: str) -> Registered | None:
        """Take a certificate out of service: INACTIVE, no policy, no thing. Return it as it was, or None."""
        found = self.describe(certificate_id)
        if found is None:
            return None
        with self._unless_deleted(certificate_id):
            self._take_out_of_service(found)
        return found

    @contextmanager
    def _unless_deleted(self, certificate_id: str) -> Iterator[None]:
        """Ignore a ResourceNotFoundException if the certificate is missing: another run has deleted it."""
        try:
            yield
        except self._iot.exceptions.ResourceNotFoundException:
            if self.describe(certificate_id) is not None:  # then it is the policy or the thing that is missing
                raise

    def _take_out_of_service(self, found: Registered) -> None:
        if found.status not in ("INACTIVE", "REVOKED"):
            self._iot.update_certificate(certificateId=found.certificate_id, newStatus="INACTIVE")
        there = self.attached(found)
        for policy in there.policies:
            self._tolerate(partial(self._iot.detach_policy, policyName=policy, target=found.arn))
        for thing in there.things:
            self._tolerate(partial(self._iot.detach_thing_principal, thingName=thing, principal=found.arn))

    def delete(self, certificate_id: str) -> None:
        """Delete a certificate that is out of service; DeleteConflictException if AWS IoT refuses for some seconds."""
        self._retry_delete(partial(self._iot.delete_certificate, certificateId=certificate_id))

    def delete_thing(self, thing: str, arn: str, stack: str) -> bool:
        """Delete `thing` if `stack` made it and no certificate other than `arn` is attached to it.

        Return False if it is left for one of these reasons; True if it is deleted, or was not there.
        """
        try:
            attributes = self._iot.describe_thing(thingName=thing)["attributes"]
            principals = self._iot.list_thing_principals(thingName=thing)["principals"]
        except self._iot.exceptions.ResourceNotFoundException:
            return True
        if attributes.get(ORIGIN) != stack or set(principals) - {arn}:
            return False
        self._retry_delete(partial(self._iot.delete_thing, thingName=thing))
        return True

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1."""
        self._data.publish(topic=topic, qos=1, payload=payload)

    def _tolerate(self, call: Callable[[], object]) -> None:
        try:
            call()
        except self._iot.exceptions.ResourceNotFoundException:
            return

    def _retry_delete(self, call: Callable[[], object]) -> None:
        # What AWS IoT raises for a certificate or thing that it still considers attached or ACTIVE.
        errors = self._iot.exceptions
        not_yet = errors.DeleteConflictException, errors.CertificateStateException, errors.InvalidRequestException
        for wait in DELETE_WAITS:
            try:
                return self._tolerate(call)
            except not_yet:
                self._sleep(wait)
        return self._tolerate(call)


def connect() -> Registry:
    """Return the registry of the account and region in which this runs."""
    config = Config(**TIMEOUTS)
    return Registry(boto3.client("iot", config=config), boto3.client("iot-data", config=config))
