"""Where the CAs are kept, and how they are created so that key and certificate always match.

Rule: the key is stored first, and a certificate is only made from a stored key. So a run that is interrupted anywhere
leaves nothing, a key alone (the next run makes its certificate) or a pair. If there is a certificate without its key,
or a pair that does not match, somebody has changed it: it is reported, and nothing is overwritten.

- manufacturer CA: key in an SSM SecureString, written straight from memory, never to a disk, or in KMS (`custody`);
  certificate in SSM.
- vendor CA: key and certificate in --state, mode 0600 in a directory 0700; certificate in SSM too, for the stack.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cloud.common import certificates
from cloud.common.errors import SetupError
from cloud.setup import files
from cloud.setup.ssm_parameters import Names

if TYPE_CHECKING:
    from pathlib import Path

    from cloud.setup.ca_key import Custody
    from cloud.setup.ssm_parameters import Parameters

START_AFRESH = "run `destroy` and `deploy` to start again"


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

    def read(self) -> certificates.PrivateKey | None:
        """Return the key, None if it is not here; SetupError if it is not a key."""
        pem = files.read(self.key)
        return None if pem is None else certificates.load(pem, str(self.key))


def manufacturer_ca(parameters: Parameters, stack: str, custody: Custody) -> tuple[str, bool]:
    """Return the manufacturer CA's certificate, created if there is none, and whether it is new. Raises SetupError."""
    names = Names(stack)
    key, certificate = custody.find(), parameters.get(names.manufacturer_certificate)
    new = certificate is None
    if certificate is None:
        key = key or custody.make()
        made = certificates.ca_certificate(key, f"{stack} manufacturer CA", certificates.now())
        certificate = parameters.keep(names.manufacturer_certificate, made)
    if key is None:
        raise SetupError(
            f"the manufacturer CA's key is gone: neither SSM parameter {names.manufacturer_key} nor KMS key "
            f"{names.kms_alias} is there",
            "restore it if you have a copy (a deletion in KMS can be cancelled until it is carried out); if not, "
            f"{START_AFRESH} (every device needs a new bundle)",
        )
    if not certificates.is_pair(certificate, key):
        raise SetupError(
            f"{custody.place} and SSM parameter {names.manufacturer_certificate} do not match",
            f"restore the one that was changed; if that is impossible, {START_AFRESH}",
        )
    return certificate, new


def vendor_ca(parameters: Parameters, stack: str, keys: VendorKeys) -> tuple[str, bool]:
    """Return the vendor CA's certificate, created if there is none, and whether it is new. Raises SetupError.

    Another machine may deploy without the vendor CA's key; only `device` needs the key.
    """
    name = Names(stack).vendor_certificate
    certificate, key = parameters.get(name), keys.read()
    new = certificate is None
    if certificate is None:
        files.private_directory(keys.state)
        if key is None:
            pem = certificates.new_key()
            files.write(keys.key, pem, secret=True)
            key = certificates.load(pem, str(keys.key))
        made = files.read(keys.certificate)
        if made is None or not certificates.is_pair(made, key):
            made = certificates.ca_certificate(key, f"{stack} vendor CA", certificates.now())
        certificate = parameters.keep(name, made)
    check_vendor_key(parameters, stack, keys)
    if key is not None and files.read(keys.certificate) != certificate:
        files.write(keys.certificate, certificate, secret=True)
    return certificate, new


def check_vendor_key(parameters: Parameters, stack: str, keys: VendorKeys) -> None:
    """Raise SetupError if the key on this machine is not that of the stack's vendor CA."""
    name = Names(stack).vendor_certificate
    certificate, key = parameters.get(name), keys.read()
    if certificate is not None and key is not None and not certificates.is_pair(certificate, key):
        raise SetupError(
            f"the vendor CA's key in {keys.key} does not belong to the certificate in SSM parameter {name}",
            f"give the --state that the stack was deployed with; if it is lost, {START_AFRESH}",
        )


def vendor_signer(parameters: Parameters, stack: str, keys: VendorKeys) -> certificates.Signer:
    """Return the vendor CA, to sign with. Raises SetupError if its certificate or key is missing."""
    if parameters.get(Names(stack).vendor_certificate) is None:
        raise SetupError(f"stack {stack} has no vendor CA yet", "run cloud/setup.sh deploy first")
    certificate, _ = vendor_ca(parameters, stack, keys)
    key = keys.read()
    if key is None:
        raise SetupError(
            f"the vendor CA's key is not on this machine: there is no {keys.key}",
            "run this where the stack was first deployed, or give that machine's copy with --state",
        )
    return certificates.Signer(certificate, key)
