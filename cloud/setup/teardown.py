"""Removes everything that setup and the devices created, complete or not, and reports what could not be removed.

Order: certificates are deactivated, detached and deleted first, because an attached policy cannot be deleted; then the
stack and the table that it keeps; the parameters last, because the next run finds the CAs, and so the certificates, by
them.
"""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from cloud.common import certificates
from cloud.common.errors import SetupError
from cloud.setup import ca_key, ca_key_in_kms
from cloud.setup.ssm_parameters import Names, Parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_iot import IoTClient

    from cloud.common.aws_session import Cloud
    from cloud.setup.stack import Stack

DETACH_LIMIT_S = 30.0  # detaching a thing is asynchronous: "seconds"
ROUNDS = 3  # a device may be issued another certificate during the removal


class Teardown:
    """Removes everything of one stack; `problems` lists what could not be removed, each with its reason."""

    def __init__(self, cloud: Cloud, stack: Stack, say: Callable[[str], None]) -> None:
        self.problems: list[str] = []
        self._kms_key_removed = False
        self._cloud, self._stack, self._say = cloud, stack, say
        self._iot: IoTClient = cloud.session.client("iot", config=cloud.config)
        self._parameters = Parameters(cloud.session.client("ssm", config=cloud.config))

    def run(self) -> None:
        """Remove everything; read `problems` afterwards."""
        names = Names(self._stack.name)
        stored = (self._parameters.get(name) for name in (names.vendor_certificate, names.manufacturer_certificate))
        authorities = [certificates.certificate_id(pem) for pem in stored if pem]
        for _ in range(ROUNDS):
            self.problems.clear()
            for one in authorities:
                self._remove_certificates(one)
            if self._stack.exists():
                self._say(f"removing stack {self._stack.name} …")
            if self._attempt(f"stack {self._stack.name}", self._stack.delete):
                break
        for one in authorities:
            self._attempt(f"CA certificate {one}", functools.partial(self._remove_authority, one))
        self._attempt("tables of devices", self._remove_tables)
        self._attempt("build artifacts in S3", self._remove_artifacts)
        if self.problems:
            return  # the next run needs the parameters, to find the CAs
        if self._attempt(f"KMS key {names.kms_alias}", self._remove_kms_key) and self._kms_key_removed:
            self._say(f"{names.kms_alias} is removed; KMS deletes its key in {ca_key_in_kms.DELETION_DAYS} days")
        for name in names.all():
            self._attempt(f"SSM parameter {name}", functools.partial(self._remove_parameter, name))

    def _attempt(self, what: str, remove: Callable[[], object]) -> bool:
        """Run one removal; return whether it succeeded, and add a failure to `problems`."""
        try:
            remove()
        except (SetupError, ClientError, BotoCoreError) as error:
            self.problems.append(f"{what}: {error}")
            return False
        return True

    def _remove_certificates(self, authority_id: str) -> None:
        pages = self._iot.get_paginator("list_certificates_by_ca").paginate(caCertificateId=authority_id)
        try:
            found = [(one["certificateId"], one["certificateArn"]) for page in pages for one in page["certificates"]]
        except self._iot.exceptions.ResourceNotFoundException:
            return  # the CA was never registered, or is gone
        if found:
            self._say(f"removing the {len(found)} certificates of CA {authority_id[:8]}… and their things …")
        for certificate_id, arn in found:
            remove = functools.partial(self._remove_certificate, certificate_id, arn)
            self._attempt(f"certificate {certificate_id}", remove)

    def _remove_certificate(self, certificate_id: str, arn: str) -> None:
        self._iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
        for page in self._iot.get_paginator("list_attached_policies").paginate(target=arn):
            for policy in page["policies"]:
                self._iot.detach_policy(policyName=policy["policyName"], target=arn)
        pages = self._iot.get_paginator("list_principal_things").paginate(principal=arn)
        things = [thing for page in pages for thing in page["things"]]
        for thing in things:
            self._iot.detach_thing_principal(thingName=thing, principal=arn)
        limit = time.monotonic() + DETACH_LIMIT_S
        while True:
            try:
                self._iot.delete_certificate(certificateId=certificate_id)
                break
            except self._iot.exceptions.DeleteConflictException:
                if time.monotonic() > limit:
                    raise
                time.sleep(1)
        for thing in things:
            # A thing with another certificate is still in use.
            if not self._iot.list_thing_principals(thingName=thing)["principals"]:
                self._iot.delete_thing(thingName=thing)

    def _remove_authority(self, authority_id: str) -> None:
        """Remove a CA certificate that the deleted stack left behind."""
        try:
            self._iot.update_ca_certificate(
                certificateId=authority_id, newStatus="INACTIVE", newAutoRegistrationStatus="DISABLE"
            )
            self._iot.delete_ca_certificate(certificateId=authority_id)
        except self._iot.exceptions.ResourceNotFoundException:
            pass  # the usual case: it was deleted with the stack

    def _remove_parameter(self, name: str) -> None:
        if self._parameters.delete(name):
            self._say(f"SSM parameter {name} is deleted")

    def _remove_kms_key(self) -> None:
        self._kms_key_removed = ca_key.in_kms(self._cloud, Names(self._stack.name), ca_key_in_kms.KEY_SPECS[0]).remove()

    def _remove_tables(self) -> None:
        """Delete the tables, which the template keeps when the stack is deleted; they are found by their names."""
        dynamodb = self._cloud.session.client("dynamodb", config=self._cloud.config)
        kept = re.compile(rf"{self._stack.name}-(Device|History)Table-[A-Z0-9]+")
        for page in dynamodb.get_paginator("list_tables").paginate():
            for name in filter(kept.fullmatch, page["TableNames"]):
                self._say(f"removing table {name} …")
                dynamodb.delete_table(TableName=name)

    def _remove_artifacts(self) -> None:
        """Delete what SAM uploaded for this stack; the bucket itself is shared by every SAM stack of the account."""
        bucket = self._stack.artifact_bucket()
        if bucket is None:
            return
        s3 = self._cloud.session.client("s3", config=self._cloud.config)
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=f"{self._stack.name}/"):
            for one in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                s3.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
