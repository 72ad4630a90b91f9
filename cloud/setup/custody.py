"""Who keeps the manufacturer CA's key: SSM, as a SecureString, or KMS, which never gives it away.

The key is stored before anything is made from it, and found again: in SSM by the parameter's name, in KMS by its tag,
which it has from its first moment, so that an interrupted run leaves no key behind. The alias is there for people.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives.serialization import load_der_public_key

from cloud.rotation import kms
from cloud.setup import authority
from cloud.setup.errors import SetupError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.literals import KeySpecType
    from mypy_boto3_resourcegroupstaggingapi import ResourceGroupsTaggingAPIClient

    from cloud.setup.keeper import Names, Parameters
    from cloud.setup.session import Cloud

KEY_SPECS: Final[tuple[KeySpecType, ...]] = ("ECC_NIST_P256", "RSA_2048", "RSA_3072")
CHOICES: Final = ("ssm", "kms", *(f"kms:{spec}" for spec in KEY_SPECS))
TAG: Final = "iot-agent:manufacturer-ca"
DELETION_DAYS: Final = 7  # the shortest that KMS allows


class Custody(Protocol):
    """Keeps one key."""

    @property
    def place(self) -> str:
        """Say where, to a person."""

    def find(self) -> authority.PrivateKey | None:
        """Return the key that is kept, or None."""

    def make(self) -> authority.PrivateKey:
        """Make a key, keep it, and only then return it."""

    def parameters(self) -> dict[str, str]:
        """Return what the stack is told of it."""


class InSsm:
    """A P-256 key in an SSM SecureString, written straight from memory."""

    def __init__(self, parameters: Parameters, names: Names) -> None:
        self._parameters = parameters
        self._name = names.manufacturer_key

    @property
    def place(self) -> str:
        """Say where."""
        return f"SSM parameter {self._name}"

    def find(self) -> authority.PrivateKey | None:
        """Return the key, or None."""
        pem = self._parameters.get(self._name)
        return None if pem is None else authority.load(pem, self.place)

    def make(self) -> authority.PrivateKey:
        """Make and keep it."""
        return authority.load(self._parameters.keep(self._name, authority.new_key(), secret=True), self.place)

    def parameters(self) -> dict[str, str]:
        """Name it to the stack."""
        return {"ManufacturerKeyParameter": self._name}


class InKms:
    """An asymmetric key in KMS, made as one of KEY_SPECS."""

    def __init__(
        self, client: KMSClient, tags: ResourceGroupsTaggingAPIClient, names: Names, spec: KeySpecType
    ) -> None:
        self._kms, self._tags = client, tags
        self._alias = names.kms_alias
        self._stack = names.stack
        self._spec = spec

    @property
    def place(self) -> str:
        """Say where."""
        return f"KMS key {self._alias}"

    def find(self) -> authority.PrivateKey | None:
        """Return the key, or None."""
        arn = self._arn()
        return None if arn is None else self._signer(arn)

    def make(self) -> authority.PrivateKey:
        """Make it, and name it."""
        made = self._kms.create_key(
            KeySpec=self._spec,
            KeyUsage="SIGN_VERIFY",
            Description=f"Signs the device certificates of {self._stack}",
            Tags=[{"TagKey": TAG, "TagValue": self._stack}],
        )["KeyMetadata"]
        with suppress(self._kms.exceptions.AlreadyExistsException):
            self._kms.create_alias(AliasName=self._alias, TargetKeyId=made["KeyId"])
        return self._signer(made["Arn"])

    def parameters(self) -> dict[str, str]:
        """Name it to the stack; the Lambda may use this key and no other."""
        return {"ManufacturerKeyArn": self._arn() or ""}

    def remove(self) -> bool:
        """Take its name away and have it deleted in a week; False if there was none."""
        arn = self._arn()
        if arn is None:
            return False
        with suppress(self._kms.exceptions.NotFoundException):
            self._kms.delete_alias(AliasName=self._alias)
        self._kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=DELETION_DAYS)
        return True

    def spec(self) -> str | None:
        """Return which kind the key is that is there, or None."""
        arn = self._arn()
        return None if arn is None else str(self._kms.describe_key(KeyId=arn)["KeyMetadata"]["KeySpec"])

    def _arn(self) -> str | None:
        pages = self._tags.get_paginator("get_resources").paginate(
            TagFilters=[{"Key": TAG, "Values": [self._stack]}], ResourceTypeFilters=["kms:key"]
        )
        for page in pages:
            for found in page["ResourceTagMappingList"]:
                arn = found["ResourceARN"]
                if self._kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "Enabled":
                    return arn
        return None

    def _signer(self, arn: str) -> authority.PrivateKey:
        public = load_der_public_key(self._kms.get_public_key(KeyId=arn)["PublicKey"])
        return kms.private_key(self._kms, arn, public)


def in_kms(cloud: Cloud, names: Names, spec: KeySpecType) -> InKms:
    """Return KMS as the keeper; `spec` is what a new key would be."""
    tags = cloud.session.client("resourcegroupstaggingapi", config=cloud.config)
    return InKms(cloud.session.client("kms", config=cloud.config), tags, names, spec)


def spec_of(wanted: str | None) -> KeySpecType:
    """Return which kind of key one of CHOICES means, if one in KMS is to be made."""
    return next((spec for spec in KEY_SPECS if wanted == f"kms:{spec}"), KEY_SPECS[0])


def choose(wanted: str | None, ssm: InSsm, kms_: InKms) -> Custody:
    """Return who keeps the key: as it is deployed, or as wanted at first. Raises SetupError for a change of mind."""
    if ssm.find() is not None:
        if wanted not in (None, "ssm"):
            raise _change_of_mind("a key in SSM", str(wanted))
        return ssm
    present = kms_.spec()
    if present is None:
        return ssm if wanted in (None, "ssm") else kms_
    if wanted not in (None, "kms", f"kms:{present}"):
        raise _change_of_mind(f"a key in KMS, {present}", str(wanted))
    return kms_


def _change_of_mind(present: str, wanted: str) -> SetupError:
    return SetupError(
        f"the manufacturer CA is deployed with {present}, and --ca-key {wanted} asks for another",
        "leave the option out to keep it; docs/operations.md says how to change to another CA",
    )
