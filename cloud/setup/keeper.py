"""Where the CAs are kept, and how they come to be without ever leaving a mismatched pair.

Rule: the key is stored first, and a certificate is only ever made from a stored key. So a run that ends anywhere leaves
nothing, a key alone (the next run makes its certificate) or a pair. A certificate without its key, or a pair that does
not match, is somebody's mistake: it is reported, and nothing is overwritten.

- manufacturer CA: key in an SSM SecureString, written straight from memory, never to a disk, or in KMS (`custody`);
  certificate in SSM.
- vendor CA: key and certificate in --state, mode 0600 in a directory 0700; certificate in SSM too, for the stack.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cloud.setup import authority, files
from cloud.setup.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_ssm import SSMClient

    from cloud.setup.custody import Custody

START_AFRESH = "run `destroy` and `deploy` to start afresh"


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
        """Store the value unless there is one, perhaps of a run beside this one; return the one that is stored."""
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


@dataclasses.dataclass(frozen=True)
class VendorKeys:
    """The vendor CA on this machine."""

    state: Path

    @property
    def key(self) -> Path:
        """The private key."""
        return self.state / "vendor-ca-key.pem"

    @property
    def certificate(self) -> Path:
        """Its certificate."""
        return self.state / "vendor-ca.pem"

    def read(self) -> authority.PrivateKey | None:
        """Return the key, None if it is not here; SetupError if it is not a key."""
        pem = files.read(self.key)
        return None if pem is None else authority.load(pem, str(self.key))


def manufacturer_ca(parameters: Parameters, stack: str, custody: Custody) -> tuple[str, bool]:
    """Return the manufacturer CA's certificate, made if need be, and whether it is new. Raises SetupError."""
    names = Names(stack)
    key, certificate = custody.find(), parameters.get(names.manufacturer_certificate)
    new = certificate is None
    if certificate is None:
        key = key or custody.make()
        made = authority.ca_certificate(key, f"{stack} manufacturer CA", authority.now())
        certificate = parameters.keep(names.manufacturer_certificate, made)
    if key is None:
        raise SetupError(
            f"the manufacturer CA's key is gone: neither SSM parameter {names.manufacturer_key} nor KMS key "
            f"{names.kms_alias} is there",
            "restore it if you have it (a deletion in KMS can be cancelled until it is done); if not, "
            f"{START_AFRESH} (every device needs a new bundle)",
        )
    if not authority.is_pair(certificate, key):
        raise SetupError(
            f"{custody.place} and SSM parameter {names.manufacturer_certificate} do not belong together",
            f"restore the one that was changed; if you cannot, {START_AFRESH}",
        )
    return certificate, new


def vendor_ca(parameters: Parameters, stack: str, keys: VendorKeys) -> tuple[str, bool]:
    """Return the vendor CA's certificate, made if need be, and whether it is new. Raises SetupError.

    Another machine may deploy without having the vendor CA's key; only `device` needs it.
    """
    name = Names(stack).vendor_certificate
    certificate, key = parameters.get(name), keys.read()
    new = certificate is None
    if certificate is None:
        files.private_directory(keys.state)
        if key is None:
            pem = authority.new_key()
            files.write(keys.key, pem, secret=True)
            key = authority.load(pem, str(keys.key))
        made = files.read(keys.certificate)
        if made is None or not authority.is_pair(made, key):
            made = authority.ca_certificate(key, f"{stack} vendor CA", authority.now())
        certificate = parameters.keep(name, made)
    if key is not None:
        if not authority.is_pair(certificate, key):
            raise SetupError(
                f"the vendor CA's key in {keys.key} does not belong to the certificate in SSM parameter {name}",
                f"give the --state that the stack was deployed with; if it is lost, {START_AFRESH}",
            )
        if files.read(keys.certificate) != certificate:
            files.write(keys.certificate, certificate, secret=True)
    return certificate, new


def vendor_signer(parameters: Parameters, stack: str, keys: VendorKeys) -> authority.Signer:
    """Return the vendor CA, to sign with. Raises SetupError when they are not at hand."""
    if parameters.get(Names(stack).vendor_certificate) is None:
        raise SetupError(f"stack {stack} has no vendor CA yet", "run `deploy` first")
    certificate, _ = vendor_ca(parameters, stack, keys)
    key = keys.read()
    if key is None:
        raise SetupError(
            f"the vendor CA's key is not on this machine: there is no {keys.key}",
            "run this where the stack was first deployed, or give that machine's copy with --state",
        )
    return authority.Signer(certificate, key)
