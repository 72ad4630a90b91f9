"""Where the manufacturer CA's key is kept: in SSM, as a SecureString, or in KMS, which it never leaves.

The key is stored before it is used, and found again: in SSM by the parameter's name, in KMS by its alias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from cloud.common import certificates
from cloud.common.errors import SetupError
from cloud.setup.ca_key_in_kms import KEY_SPECS, InKms

if TYPE_CHECKING:
    from mypy_boto3_kms.literals import KeySpecType

    from cloud.common.aws_session import Cloud
    from cloud.setup.ssm_parameters import Names, Parameters

CHOICES: Final = ("ssm", "kms", *(f"kms:{spec}" for spec in KEY_SPECS))


class Custody(Protocol):
    """A place that keeps one key."""

    @property
    def place(self) -> str:
        """The place, for messages."""

    def find(self) -> certificates.PrivateKey | None:
        """Return the key that is kept, or None."""

    def make(self) -> certificates.PrivateKey:
        """Create a key, store it, and only then return it."""

    def parameters(self) -> dict[str, str]:
        """Return the stack parameters that name the key."""


class InSsm:
    """A P-256 key in an SSM SecureString, written straight from memory."""

    def __init__(self, parameters: Parameters, names: Names) -> None:
        self._parameters = parameters
        self._name = names.manufacturer_key

    @property
    def place(self) -> str:
        """The place, for messages."""
        return f"SSM parameter {self._name}"

    def find(self) -> certificates.PrivateKey | None:
        """Return the key, or None."""
        pem = self._parameters.get(self._name)
        return None if pem is None else certificates.load(pem, self.place)

    def make(self) -> certificates.PrivateKey:
        """Create and store it."""
        return certificates.load(self._parameters.keep(self._name, certificates.new_key(), secret=True), self.place)

    def parameters(self) -> dict[str, str]:
        """Return the stack parameter with the name of the SSM parameter."""
        return {"ManufacturerKeyParameter": self._name}


def in_kms(cloud: Cloud, names: Names, spec: KeySpecType) -> InKms:
    """Return KMS as the place of the key; `spec` is the kind of a new key."""
    tags = cloud.session.client("resourcegroupstaggingapi", config=cloud.config)
    return InKms(cloud.session.client("kms", config=cloud.config), tags, names, spec)


def spec_of(wanted: str | None) -> KeySpecType:
    """Return the kind of key that one of CHOICES creates in KMS."""
    return next((spec for spec in KEY_SPECS if wanted == f"kms:{spec}"), KEY_SPECS[0])


def choose(wanted: str | None, ssm: InSsm, kms_: InKms) -> Custody:
    """Return the place of the key: as deployed, or on first deploy as `wanted`. Raises SetupError if they differ."""
    if ssm.find() is not None:
        if wanted not in (None, "ssm"):
            raise _cannot_change("a key in SSM", str(wanted))
        return ssm
    present = kms_.spec()
    if present is None:
        return ssm if wanted in (None, "ssm") else kms_
    if wanted not in (None, "kms", f"kms:{present}"):
        raise _cannot_change(f"a key in KMS, {present}", str(wanted))
    return kms_


def _cannot_change(present: str, wanted: str) -> SetupError:
    return SetupError(
        f"the manufacturer CA is deployed with {present}, which --ca-key {wanted} cannot change",
        "leave the option out to keep it; docs/operations.md describes the change to another CA; "
        "if no device is in use yet, run `destroy` and `deploy`",
    )
