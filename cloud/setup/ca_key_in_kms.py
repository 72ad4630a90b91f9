"""The manufacturer CA's key in KMS: created, found again, and deleted. It never leaves KMS."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import load_der_public_key

from cloud.common import certificates
from cloud.common.errors import SetupError
from cloud.rotation import kms

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.literals import KeySpecType
    from mypy_boto3_kms.type_defs import KeyMetadataTypeDef
    from mypy_boto3_resourcegroupstaggingapi import ResourceGroupsTaggingAPIClient

    from cloud.setup.ssm_parameters import Names

KEY_SPECS: Final[tuple[KeySpecType, ...]] = ("ECC_NIST_P256", "RSA_2048", "RSA_3072")
TAG: Final = "iot-agent:manufacturer-ca"
DELETION_DAYS: Final = 7  # the shortest that KMS allows
TO_BE_DELETED: Final = "PendingDeletion"


class InKms:
    """An asymmetric key in KMS, one of KEY_SPECS.

    It is found by its alias, or else by its tag, with which it is created: so a run that was interrupted between
    creating the key and its alias is continued, and no second key is created. The tag alone is not enough, because the
    index of tags is updated late. A key that is disabled or to be deleted is reported, not replaced.
    """

    def __init__(
        self, client: KMSClient, tags: ResourceGroupsTaggingAPIClient, names: Names, spec: KeySpecType
    ) -> None:
        self._kms, self._tags = client, tags
        self._alias = names.kms_alias
        self._stack = names.stack
        self._spec = spec
        self._arn = ""

    @property
    def place(self) -> str:
        """Say where."""
        return f"KMS key {self._alias}"

    def find(self) -> certificates.PrivateKey | None:
        """Return the key, after giving it its alias if it has none, or None; SetupError if it cannot sign."""
        key = self._look()
        if key is None:
            return None
        self._check(key)
        return self._signer(self._name(key["Arn"]))

    def make(self) -> certificates.PrivateKey:
        """Create the key and its alias. If a concurrent run created the alias first, use its key, not this one."""
        made = self._kms.create_key(
            KeySpec=self._spec,
            KeyUsage="SIGN_VERIFY",
            Description=f"Signs the device certificates of {self._stack}",
            Tags=[{"TagKey": TAG, "TagValue": self._stack}],
        )["KeyMetadata"]
        arn = self._name(made["Arn"])
        if arn != made["Arn"]:
            self._kms.schedule_key_deletion(KeyId=made["Arn"], PendingWindowInDays=DELETION_DAYS)
        return self._signer(arn)

    def parameters(self) -> dict[str, str]:
        """Return the stack parameter with the key's ARN, once found or created; the Lambda may use no other key."""
        return {"ManufacturerKeyArn": self._arn}

    def remove(self) -> bool:
        """Schedule the deletion of every key of the stack, and delete the alias; False if there was none.

        The alias is deleted last, so that the next run can continue an interrupted one.
        """
        named, tagged = self._named(), self._tagged()
        keys = {key["Arn"]: key for key in [*([named] if named else []), *tagged]}
        for arn, key in keys.items():
            if key["KeyState"] != TO_BE_DELETED:
                self._kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=DELETION_DAYS)
        if named:
            self._kms.delete_alias(AliasName=self._alias)
        return bool(keys)

    def spec(self) -> str | None:
        """Return the kind of the existing key, whether it can sign or not, or None."""
        key = self._look()
        return None if key is None else str(key["KeySpec"])

    def _look(self) -> KeyMetadataTypeDef | None:
        """Return the stack's key, in any state: the one with the alias, or else the first that can sign."""
        return self._named() or min(
            self._tagged(), key=lambda key: (key["KeyState"] != "Enabled", key["CreationDate"]), default=None
        )

    def _named(self) -> KeyMetadataTypeDef | None:
        return self._describe(self._alias)

    def _describe(self, key_id: str) -> KeyMetadataTypeDef | None:
        try:
            return self._kms.describe_key(KeyId=key_id)["KeyMetadata"]
        except self._kms.exceptions.NotFoundException:
            return None

    def _tagged(self) -> list[KeyMetadataTypeDef]:
        """Return the keys with the stack's tag, without those that are scheduled for deletion."""
        pages = self._tags.get_paginator("get_resources").paginate(
            TagFilters=[{"Key": TAG, "Values": [self._stack]}], ResourceTypeFilters=["kms:key"]
        )
        arns = [found["ResourceARN"] for page in pages for found in page["ResourceTagMappingList"]]
        return [key for arn in arns if (key := self._describe(arn)) and key["KeyState"] != TO_BE_DELETED]

    def _name(self, arn: str) -> str:
        """Give the key the alias, unless another key has it; return the ARN of the key that has it."""
        named = self._named()
        if named is None:
            with suppress(self._kms.exceptions.AlreadyExistsException):
                self._kms.create_alias(AliasName=self._alias, TargetKeyId=arn)
                return arn
            named = self._kms.describe_key(KeyId=self._alias)["KeyMetadata"]
        return named["Arn"]

    def _check(self, key: KeyMetadataTypeDef) -> None:
        state, arn = key["KeyState"], key["Arn"]
        if state == "Enabled":
            return
        remedy = f"aws kms enable-key --key-id {arn}"
        if state == TO_BE_DELETED:
            remedy = f"to keep the CA: aws kms cancel-key-deletion --key-id {arn}; {remedy}; if it is to go: `destroy`"
        raise SetupError(f"{self.place} is {state}: no device can get a certificate", f"{remedy}; then run this again")

    def _signer(self, arn: str) -> certificates.PrivateKey:
        self._arn = arn
        public = load_der_public_key(self._kms.get_public_key(KeyId=arn)["PublicKey"])
        return kms.private_key(self._kms, arn, public)
