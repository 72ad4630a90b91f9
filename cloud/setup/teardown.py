"""Removes everything that setup and the devices created, complete or not, and reports what could not be removed.

Nothing is remembered between runs: each run finds what is left by what AWS says, so it may be interrupted at any call.

1. The CAs become INACTIVE and register nothing any more (DG: "Deactivate a CA certificate"); otherwise a device whose
   certificate has just been deleted would register it again, just in time.
2. Certificates are taken out of service, then deleted: those that the CAs list and those that the records name. A
   certificate whose CA is gone is in a record, and one whose record is gone is in its CA's list.
3. Things are deleted: those that bear the stack's name, with a certificate or without, and no others.
4. The stack is deleted, which needs policies without a target. Then steps 2 and 3 once more: the Lambda may have been
   at work until now.
5. Tables, artifacts and keys; the parameters last, because the CAs are found by them when the stack is gone.
"""

from __future__ import annotations

import functools
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from cloud.common import certificates
from cloud.common.errors import SetupError
from cloud.common.progress import shown
from cloud.rotation.devices import Devices
from cloud.rotation.registry import DELETE_WAITS, ORIGIN, Registry
from cloud.setup import ca_key, ca_key_in_kms, kept_tables
from cloud.setup.ssm_parameters import Names, Parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_iot import IoTClient

    from cloud.common.aws_session import Cloud
    from cloud.setup.stack import Stack

ROUNDS: Final = 3
"""How often the removal of devices and stack is tried: AWS IoT needs seconds to minutes until a detachment counts."""


class Teardown:
    """Removes everything of one stack; `problems` lists what could not be removed, each with its reason."""

    def __init__(self, cloud: Cloud, stack: Stack, say: Callable[[str], None]) -> None:
        self.problems: list[str] = []
        self._cloud, self._stack, self._say = cloud, stack, say
        self._names = Names(stack.name)
        self._iot: IoTClient = cloud.session.client("iot", config=cloud.config)
        self._registry = Registry(self._iot, cloud.session.client("iot-data", config=cloud.config))
        self._dynamodb = cloud.session.client("dynamodb", config=cloud.config)
        self._logs, self._log = cloud.session.client("logs", config=cloud.config), f"/aws/lambda/{stack.name}-rotation"
        self._parameters = Parameters(cloud.session.client("ssm", config=cloud.config))
        self._key = ca_key.in_kms(cloud, self._names, ca_key_in_kms.KEY_SPECS[0])

    def finds_something(self) -> bool:
        """Whether anything of the stack is there."""
        return (
            self._stack.exists()
            or any(self._parameters.get(name) for name in self._names.all())
            or bool(self._tables())
            or self._key.spec() is not None
            or next(self._artifacts(), None) is not None
            or self._has_log()
        )

    def run(self) -> None:
        """Remove everything; read `problems` afterwards."""
        authorities = self._authorities()
        for one in authorities:
            self._attempt(f"CA certificate {one}", functools.partial(self._deactivate, one))
        for _ in range(ROUNDS):
            self.problems.clear()
            self._remove_devices(authorities)
            self._attempt("policies of the stack", self._detach_policies)
            if self._stack.exists():
                self._say(f"removing stack {self._stack.name} …")
            self._attempt(f"stack {self._stack.name}", self._stack.delete)
            if not self.problems:
                break
        else:
            return  # the next run needs tables and parameters, to find devices and CAs
        self._remove_devices(authorities)
        for one in authorities:
            self._attempt(f"CA certificate {one}", functools.partial(self._remove_authority, one))
        if self.problems:
            return
        self._attempt("tables of devices", self._remove_tables)
        self._attempt("build artifacts in S3", self._remove_artifacts)
        self._attempt("log of the Lambda", self._remove_log)
        self._attempt(f"KMS key {self._names.kms_alias}", self._remove_key)
        if self.problems:
            return
        for name in self._names.all():
            self._attempt(f"SSM parameter {name}", functools.partial(self._remove_parameter, name))

    def _attempt(self, what: str, remove: Callable[[], object]) -> bool:
        """Run one removal; return whether it succeeded, and add a failure to `problems`."""
        try:
            remove()
        except (SetupError, ClientError, BotoCoreError) as error:
            self.problems.append(f"{what}: {error}")
            return False
        return True

    # ---- CAs ---------------------------------------------------------------------------------------------------------

    def _authorities(self) -> list[str]:
        """Return the ids of the stack's CAs: as the stack says, and those whose certificate is in a parameter.

        AWS makes the id, so it is asked for; a CA that a stack's deletion has left behind is recognised by its PEM.
        """
        outputs = self._stack.outputs()
        found = {outputs[name] for name in ("VendorCaId", "ManufacturerCaId") if name in outputs}
        found |= self._stack.resources("AWS::IoT::CACertificate")
        stored = [self._parameters.get(name) for name in self._names.certificates()]
        wanted = {certificates.certificate_id(pem) for pem in stored if pem}
        for page in self._iot.get_paginator("list_ca_certificates").paginate():
            for one in page["certificates"]:
                if one["certificateId"] not in found and self._is(one["certificateId"], wanted):
                    found.add(one["certificateId"])
        return sorted(found)

    def _is(self, authority_id: str, wanted: set[str]) -> bool:
        """Whether the registered CA is one of those certificates."""
        pem = self._registry.ca_pem(authority_id)
        return pem is not None and certificates.certificate_id(pem) in wanted

    def _deactivate(self, authority_id: str) -> None:
        with suppress(self._iot.exceptions.ResourceNotFoundException):
            self._iot.update_ca_certificate(
                certificateId=authority_id, newStatus="INACTIVE", newAutoRegistrationStatus="DISABLE"
            )

    def _remove_authority(self, authority_id: str) -> None:
        """Remove a CA certificate that the deleted stack left behind; usually it was deleted with the stack."""
        self._deactivate(authority_id)
        with suppress(self._iot.exceptions.ResourceNotFoundException):
            self._iot.delete_ca_certificate(certificateId=authority_id)

    # ---- devices -----------------------------------------------------------------------------------------------------

    def _remove_devices(self, authorities: list[str]) -> None:
        ours = self._recorded().union(*map(self._listed, authorities))
        found = sorted(ours & self._registered()) if ours else []
        if found:
            self._say(f"removing {len(found)} certificates and their things …")
            # All are disabled before the first is deleted: meanwhile the detachments take effect.
            for one in shown(found, "certificates taken out of service"):
                self._attempt(f"certificate {one}", functools.partial(self._registry.disable, one))
            for one in shown(found, "certificates deleted"):
                self._attempt(f"certificate {one}", functools.partial(self._registry.delete, one))
        for thing in self._things():
            self._attempt(f"thing {thing}", functools.partial(self._remove_thing, thing))

    def _recorded(self) -> set[str]:
        """Return the certificates that the records name."""
        resource = self._cloud.session.resource("dynamodb", config=self._cloud.config)
        named = kept_tables.named_after(self._dynamodb, self._stack.name)["DeviceTable"]
        tables = [resource.Table(name) for name in named]
        records = (record for table in tables for record in Devices(table, table).scan())
        return {one for record in records for one in record.certificate_ids()}

    def _listed(self, authority_id: str) -> set[str]:
        """Return the certificates that AWS IoT lists for a CA."""
        pages = self._iot.get_paginator("list_certificates_by_ca").paginate(caCertificateId=authority_id)
        try:
            return {one["certificateId"] for page in pages for one in page["certificates"]}
        except self._iot.exceptions.ResourceNotFoundException:
            return set()  # the CA is gone

    def _registered(self) -> set[str]:
        """Return every certificate of the region: one call for many, where asking for each would take hours."""
        pages = self._iot.get_paginator("list_certificates").paginate()
        return {one["certificateId"] for page in pages for one in page["certificates"]}

    def _things(self) -> list[str]:
        """Return the things that this stack made, whether they still have a certificate or not."""
        pages = self._iot.get_paginator("list_things").paginate(attributeName=ORIGIN, attributeValue=self._stack.name)
        return [one["thingName"] for page in pages for one in page["things"]]

    def _remove_thing(self, thing: str) -> None:
        for wait in DELETE_WAITS:  # a detachment takes seconds
            if self._registry.delete_thing(thing, "", self._stack.name):
                return
            time.sleep(wait)
        if not self._registry.delete_thing(thing, "", self._stack.name):
            raise SetupError("a certificate that is not of this stack is attached to it; detach that certificate")

    def _detach_policies(self) -> None:
        """Detach the stack's policies from whatever still has them, for instance a certificate made by hand."""
        for policy in sorted(self._stack.resources("AWS::IoT::Policy")):
            pages = list(self._iot.get_paginator("list_targets_for_policy").paginate(policyName=policy))
            for target in (target for page in pages for target in page["targets"]):
                self._iot.detach_policy(policyName=policy, target=target)

    # ---- the rest ----------------------------------------------------------------------------------------------------

    def _tables(self) -> list[str]:
        """Return the tables, also those that a deleted stack has left."""
        return [name for names in kept_tables.named_after(self._dynamodb, self._stack.name).values() for name in names]

    def _remove_tables(self) -> None:
        for name in self._tables():
            self._say(f"removing table {name} …")
            self._dynamodb.delete_table(TableName=name)
            self._dynamodb.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig={"Delay": 1})

    def _artifacts(self) -> Iterator[tuple[str, str, str]]:
        """Yield bucket, key and version of what SAM uploaded for this stack."""
        bucket = self._stack.artifact_bucket()
        if bucket is None:
            return
        s3 = self._cloud.session.client("s3", config=self._cloud.config)
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=f"{self._stack.name}/"):
            for one in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                yield bucket, one["Key"], one["VersionId"]

    def _remove_artifacts(self) -> None:
        """Delete what SAM uploaded for this stack; the bucket itself is shared by every SAM stack of the account."""
        s3 = self._cloud.session.client("s3", config=self._cloud.config)
        for bucket, key, version in list(self._artifacts()):
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version)

    def _remove_key(self) -> None:
        if self._key.remove():
            days = ca_key_in_kms.DELETION_DAYS
            self._say(f"{self._names.kms_alias} is removed; KMS deletes its key in {days} days")

    def _has_log(self) -> bool:
        found = self._logs.describe_log_groups(logGroupNamePrefix=self._log)["logGroups"]
        return any(one["logGroupName"] == self._log for one in found)

    def _remove_log(self) -> None:
        """Delete the Lambda's log, if a run that outlived the stack has made it again."""
        with suppress(self._logs.exceptions.ResourceNotFoundException):
            self._logs.delete_log_group(logGroupName=self._log)

    def _remove_parameter(self, name: str) -> None:
        if self._parameters.delete(name):
            self._say(f"SSM parameter {name} is deleted")
