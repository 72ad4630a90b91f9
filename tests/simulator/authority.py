"""Certificate authorities for tests: a vendor's and a manufacturer's, and the certificates they sign."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID


class Authority:
    """A CA with a P-256 key that lives in memory."""

    def __init__(self, name: str, now: float) -> None:
        self.born = now
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start = datetime.fromtimestamp(now, UTC) - timedelta(days=1)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=36500))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()

    def __getstate__(self) -> dict[str, Any]:
        """Be kept as PEM: the library's own objects cannot be pickled."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {"born": self.born, "key": key, "pem": self.pem}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        key = load_pem_private_key(kept["key"], None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.born, self.key, self.pem = kept["born"], key, kept["pem"]
        self.certificate = x509.load_pem_x509_certificate(self.pem.encode())
        self.name = self.certificate.subject

    def issue(self, name: str, now: float, days: float = 30, *, server: bool = False) -> tuple[str, str]:
        """Give a device, or a server, a key and a certificate, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return self._certificate(name, key.public_key(), now, days, server=server), key_pem

    def sign(self, csr: str, now: float) -> str:
        """Give the certificate (PEM) for a request."""
        request = x509.load_pem_x509_csr(csr.encode())
        assert request.is_signature_valid
        name = str(request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        return self._certificate(name, request.public_key(), now, 30, server=False)

    def _certificate(self, name: str, key: Any, now: float, days: float, *, server: bool) -> str:  # noqa: ANN401
        start = datetime.fromtimestamp(now, UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=days))
        )
        if server:
            certificate = certificate.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return certificate.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
