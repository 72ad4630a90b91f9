"""A private key that stays in AWS KMS: an object that `cryptography` accepts as a private key, and that can only sign.

KMS gets the SHA-256 digest (MessageType DIGEST) and returns a signature of RSASSA-PKCS1-v1_5 or ECDSA. The signature is
verified with the public key before it is used: with a certificate that does not verify, a device could not connect. The
public key is taken from the CA's certificate, so kms:Sign is the only call and the only permission needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.literals import SigningAlgorithmSpecType

SHA256 = hashes.SHA256()


class KmsError(RuntimeError):
    """KMS did not sign correctly, or the key was used for something other than signing."""


def private_key(kms: KMSClient, key_id: str, public_key: object) -> RsaInKms | EcInKms:
    """Return the private key of `public_key`, which KMS knows as `key_id`; KmsError if it is not RSA or P-256."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return RsaInKms(kms, key_id, public_key)
    if isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, ec.SECP256R1):
        return EcInKms(kms, key_id, public_key)
    raise KmsError(f"{key_id}: only RSA and P-256 keys can sign in KMS")


class _InKms:
    """What both kinds have in common: the call to KMS, and the refusal of everything else."""

    def __init__(self, kms: KMSClient, key_id: str) -> None:
        self._kms = kms
        self._key_id = key_id

    def _signature(self, data: bytes, algorithm: SigningAlgorithmSpecType) -> tuple[bytes, bytes]:
        """Return the digest of `data` and KMS's signature of it."""
        hasher = hashes.Hash(SHA256)
        hasher.update(data)
        digest = hasher.finalize()
        answer = self._kms.sign(KeyId=self._key_id, Message=digest, MessageType="DIGEST", SigningAlgorithm=algorithm)
        return digest, answer["Signature"]

    def _wrong(self) -> KmsError:
        return KmsError(f"the signature by {self._key_id} does not verify: it is not the key of the CA's certificate")

    def _only_signs(self, *_arguments: object, **_named: object) -> NoReturn:
        raise KmsError(f"{self._key_id} stays in KMS, and can only sign with SHA-256")

    private_bytes = private_numbers = decrypt = exchange = __copy__ = __deepcopy__ = _only_signs


class RsaInKms(_InKms, rsa.RSAPrivateKey):
    """An RSA key in KMS (RSASSA_PKCS1_V1_5_SHA_256)."""

    def __init__(self, kms: KMSClient, key_id: str, public_key: rsa.RSAPublicKey) -> None:
        super().__init__(kms, key_id)
        self._public_key = public_key

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        return self._public_key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public half."""
        return self._public_key

    def sign(self, data: object, padding_: object, algorithm: object) -> bytes:
        """Return the PKCS #1 v1.5 signature of the SHA-256 of `data`."""
        if not (isinstance(data, bytes) and isinstance(padding_, padding.PKCS1v15)):
            self._only_signs()
        if not isinstance(algorithm, hashes.SHA256):
            self._only_signs()
        digest, signature = self._signature(data, "RSASSA_PKCS1_V1_5_SHA_256")
        try:
            self._public_key.verify(signature, digest, padding.PKCS1v15(), Prehashed(SHA256))
        except InvalidSignature as error:
            raise self._wrong() from error
        return signature


class EcInKms(_InKms, ec.EllipticCurvePrivateKey):
    """A P-256 key in KMS (ECDSA_SHA_256)."""

    def __init__(self, kms: KMSClient, key_id: str, public_key: ec.EllipticCurvePublicKey) -> None:
        super().__init__(kms, key_id)
        self._public_key = public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        """Bits of the curve's order."""
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._public_key

    def sign(self, data: object, signature_algorithm: object) -> bytes:
        """Return the DER of the ECDSA signature of the SHA-256 of `data`."""
        if not (isinstance(data, bytes) and isinstance(signature_algorithm, ec.ECDSA)):
            self._only_signs()
        if not isinstance(signature_algorithm.algorithm, hashes.SHA256):
            self._only_signs()
        digest, signature = self._signature(data, "ECDSA_SHA_256")
        try:
            self._public_key.verify(signature, digest, ec.ECDSA(Prehashed(SHA256)))
        except InvalidSignature as error:
            raise self._wrong() from error
        return signature
