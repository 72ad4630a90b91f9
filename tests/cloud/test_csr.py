"""Which certificate requests are signed."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.rotation import csr
from tests.cloud import pki


def forged() -> str:
    """Return a request whose signature has one bit turned."""
    der = bytearray(x509.load_pem_x509_csr(pki.csr(["SN-1"]).encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    body = base64.encodebytes(bytes(der)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


def huge() -> str:
    """Return a request that is sound but larger than 8 KiB."""
    own = pki.signing_key("p256")
    names = x509.SubjectAlternativeName([x509.DNSName(f"{number:060}.test") for number in range(100)])
    builder = (
        x509.CertificateSigningRequestBuilder().subject_name(pki.name(["SN-1"])).add_extension(names, critical=False)
    )
    return builder.sign(own, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa-2048", "rsa-3072"])
def test_a_sound_request_is_accepted(kind: str) -> None:
    own = pki.key(kind).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(own)
    assert csr.check(pki.csr(["SN-1"], kind), "SN-1").fingerprint == digest.finalize().hex()


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (pki.csr(["SN-2"]), "exactly one common name, SN-1"),
        (pki.csr([]), "exactly one common name"),
        (pki.csr(["SN-1", "SN-1"]), "exactly one common name"),
        (pki.csr(["SN-2", "SN-1"]), "exactly one common name"),
        (pki.csr(["sn-1"]), "exactly one common name"),
        (pki.csr(["SN-1"], "rsa-1024"), "RSA of at least 2048 bits"),
        (pki.csr(["SN-1"], "p521"), "P-256 or P-384"),
        (pki.csr(["SN-1"], "ed25519"), "P-256 or P-384"),
        (forged(), "not signed by its own key"),
        (huge(), "larger than 8192 bytes"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
        (pki.authority("some CA").pem, "cannot be read"),
        ("", "cannot be read"),
    ],
    ids=[
        "another serial",
        "no name",
        "the same name twice",
        "two names",
        "other case",
        "RSA-1024",
        "P-521",
        "Ed25519",
        "forged",
        "huge",
        "garbage",
        "a certificate",
        "empty",
    ],
)
def test_an_unsound_request_is_refused_with_its_reason(pem: str, why: str) -> None:
    with pytest.raises(csr.BadCsrError, match=why):
        csr.check(pem, "SN-1")


def test_a_curve_of_the_right_size_that_is_not_nists_is_refused() -> None:
    own = ec.generate_private_key(ec.BrainpoolP256R1())
    pem = x509.CertificateSigningRequestBuilder().subject_name(pki.name(["SN-1"])).sign(own, hashes.SHA256())
    with pytest.raises(csr.BadCsrError, match="P-256"):
        csr.check(pem.public_bytes(Encoding.PEM).decode(), "SN-1")


@pytest.mark.parametrize(("names", "expected"), [(["SN-1"], "SN-1"), ([], None), (["SN-1", "SN-2"], None)])
def test_a_certificate_names_somebody_only_if_it_has_one_common_name(names: list[str], expected: str | None) -> None:
    assert csr.subject_and_end(pki.authority("vendor CA").sign_vendor(names))[0] == expected


def test_what_is_no_certificate_names_nobody() -> None:
    assert csr.subject_and_end("hello") == (None, 0)
