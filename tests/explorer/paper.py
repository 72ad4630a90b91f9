"""Certificates and requests on paper: JSON where X.509 would be, so that thousands of calls a second can be explored.

What signatures prove is assumed here (`tests/cloud/test_csr.py` and `tests/device/test_certificates.py` show it);
what is decided from the facts in a certificate is not.
"""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from unittest import mock

from cloud.rotation import csr, telemetry
from cloud.rotation.csr import BadCsrError
from iot_agent.core.errors import Code, Fatal, Retryable
from iot_agent.core.record import Certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN = "-----BEGIN CERTIFICATE-----\n"
ASK, ASKED = "-----BEGIN CERTIFICATE REQUEST-----\n", "\n-----END CERTIFICATE REQUEST-----\n"
VENDOR_CA, MANUFACTURER_CA = "vendor-ca", "manufacturer-ca"
CLOCK_TOLERANCE = 300  # as iot_agent.certificates has it: seconds that the issuer's clock may be ahead


@dataclass(frozen=True)
class Paper:
    """A certificate's facts; `key` names the key that it is for. Times in seconds since the epoch."""

    certificate_id: str
    serial: str
    key: str
    ca: str
    not_before: int
    not_after: int


@dataclass(frozen=True)
class Wanted:
    """A request that is worth signing, as `cloud.rotation.csr.Request` is."""

    key: str
    fingerprint: str


def write(paper: Paper) -> str:
    """Give the "PEM" of a certificate."""
    return BEGIN + json.dumps(asdict(paper))


@lru_cache(100_000)
def read(pem: str) -> Paper:
    """Read what `write` wrote."""
    return Paper(**json.loads(pem.removeprefix(BEGIN)))


@lru_cache(100_000)
def request(key: str, serial: str) -> str:
    """Give the "PEM" of a signing request."""
    return ASK + base64.b64encode(json.dumps({"key": key, "serial": serial}).encode()).decode() + ASKED


@lru_cache(100_000)
def _asked(pem: str) -> tuple[str, str]:
    fields = json.loads(base64.b64decode(pem.removeprefix(ASK).removesuffix(ASKED)))
    return fields["key"], fields["serial"]


def _check(pem: str, serial: str) -> Wanted:
    key, named = _asked(pem)
    if named != serial:
        raise BadCsrError(f"the request's subject must have exactly one common name, {serial}")
    return Wanted(key, key)


def _subject_and_end(pem: str) -> tuple[str | None, int]:
    return read(pem).serial, read(pem).not_after * 1000


@contextmanager
def instead_of_x509() -> Iterator[None]:
    """Have the Lambda read paper, and say nothing on standard output."""
    with ExitStack() as stack:
        for module, name, stand_in in (
            (csr, "check", _check),
            (csr, "subject_and_end", _subject_and_end),
            (telemetry, "_write", lambda _line: None),
        ):
            stack.enter_context(mock.patch.object(module, name, stand_in))
        yield


def examiner(serial: str, now: float) -> object:
    """Give the device's check of an issued certificate, as `iot_agent.certificates.check_fit` decides."""

    def examine(pem: str, _chain: str | None, public_key: bytes) -> Certificate:
        paper = read(pem)
        if paper.key.encode() != public_key or paper.serial != serial or paper.ca != MANUFACTURER_CA:
            raise Retryable(Code.UNFIT_CERTIFICATE, "the issued certificate was refused: it is not for us")
        if paper.not_before > now + CLOCK_TOLERANCE:
            raise Retryable(Code.UNFIT_CERTIFICATE, "the issued certificate was refused: it is not valid yet")
        if paper.not_after <= now:
            raise Retryable(Code.UNFIT_CERTIFICATE, "the issued certificate was refused: it has expired")
        return facts(paper)

    return examine


def facts(paper: Paper) -> Certificate:
    """Give what the device stores of a certificate."""
    return Certificate(paper.certificate_id, paper.not_before, paper.not_after)


def damaged(what: str) -> Fatal:
    """Give the error of a key or certificate that cannot be used."""
    return Fatal(Code.BAD_CREDENTIALS, f"{what} cannot be used")
