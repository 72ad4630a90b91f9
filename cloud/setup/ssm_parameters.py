"""The SSM parameters of a stack: their names, and storing each only once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


@dataclasses.dataclass(frozen=True)
class Names:
    """The SSM parameters of one stack."""

    stack: str

    @property
    def vendor_certificate(self) -> str:
        """Name of the vendor CA's certificate."""
        return f"/iot-agent/{self.stack}/vendor-ca-certificate"

    @property
    def manufacturer_certificate(self) -> str:
        """Name of the manufacturer CA's certificate."""
        return f"/iot-agent/{self.stack}/manufacturer-ca-certificate"

    @property
    def manufacturer_key(self) -> str:
        """Name of the manufacturer CA's key, a SecureString."""
        return f"/iot-agent/{self.stack}/manufacturer-ca-key"

    @property
    def kms_alias(self) -> str:
        """Name of the manufacturer CA's key, if it is kept in KMS."""
        return f"alias/iot-agent/{self.stack}/manufacturer-ca"

    def certificates(self) -> tuple[str, str]:
        """Names of the two CAs' certificates."""
        return self.vendor_certificate, self.manufacturer_certificate

    def all(self) -> tuple[str, ...]:
        """All three, the key last."""
        return self.vendor_certificate, self.manufacturer_certificate, self.manufacturer_key


class Parameters:
    """SSM parameters, each written once and never overwritten."""

    def __init__(self, ssm: SSMClient) -> None:
        self._ssm = ssm

    def get(self, name: str) -> str | None:
        """Return the parameter's value, decrypted, or None."""
        try:
            return self._ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        except self._ssm.exceptions.ParameterNotFound:
            return None

    def keep(self, name: str, value: str, *, secret: bool = False) -> str:
        """Store the value unless there is one, perhaps from a concurrent run; return the stored one."""
        try:
            self._ssm.put_parameter(
                Name=name, Value=value, Type="SecureString" if secret else "String", Overwrite=False
            )
        except self._ssm.exceptions.ParameterAlreadyExists:
            return self.get(name) or value
        return value

    def delete(self, name: str) -> bool:
        """Delete the parameter; False if there was none."""
        try:
            self._ssm.delete_parameter(Name=name)
        except self._ssm.exceptions.ParameterNotFound:
            return False
        return True
