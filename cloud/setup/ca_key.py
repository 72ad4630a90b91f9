"""Who keeps the manufacturer CA's key: SSM, as a SecureString, or KMS, which never gives it away.

The key is stored before anything is made from it, and found again: in SSM by the parameter's name, in KMS by its alias.
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
    """Keeps one key."""

    @property
    def place(self) -> str:
        """Say where, to a person."""

    def find(self) -> certificates.PrivateKey | None:
        """Return the key that is kept, or None."""

    def make(self) -> certificates.PrivateKey:
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

    def find(self) -> certificates.PrivateKey | None:
        """Return the key, or None."""
        pem = self._parameters.get(self._name)
        return None if pem is None else certificates.load(pem, self.place)

    def make(self) -> certificates.PrivateKey:
        """Make and keep it."""
        return certificates.load(self._parameters.keep(self._name, certificates.new_key(), secret=True), self.place)

    def parameters(self) -> dict[str, str]:
        """Name it to the stack."""
        return {"ManufacturerKeyParameter": self._name}


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
        "leave the option out to keep it; docs/operations.md says how to change to another CA; "
        "where no device is in use yet, `destroy` and `deploy`",
    )
