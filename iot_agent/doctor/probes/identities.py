"""The record, the identities it counts on, and `current`, read without changing anything."""

from collections.abc import Iterator
from pathlib import Path

from iot_agent.config import bundle
from iot_agent.core.codec import Damaged, LaterFormat, decode_record
from iot_agent.core.errors import AgentError, Fatal
from iot_agent.core.record import Record
from iot_agent.core.settings import Settings
from iot_agent.doctor.rules.identities import Seen
from iot_agent.keys import certificates
from iot_agent.keys.certificates import OTHER_KEY, Expectation
from iot_agent.storage import atomic, layout
from iot_agent.storage.identities import IdentityDirectories


def record(settings: Settings) -> tuple[Record, str | None]:
    """Read the record; a new one, with what is wrong, where it cannot be read."""
    path = settings.state_directory / layout.RECORD
    try:
        return decode_record(atomic.read(path)), None
    except FileNotFoundError:
        if path.with_name(layout.PREVIOUS_RECORD).exists() or path.with_name(layout.IDENTITIES).exists():
            return Record(settings.serial), f"{path} is missing, although there are others beside it"
        return Record(settings.serial), None
    except (Damaged, LaterFormat, OSError) as error:
        return Record(settings.serial), f"{path}: {error}"


def roles(record: Record) -> dict[str, str]:
    """Name what each label that counts is for."""
    found: dict[str, str] = {}
    if record.active is not None:
        found[record.active.label] = "active"
    if record.pending is not None and record.pending.certificate is not None:
        found[record.pending.label] = "pending"
    found.update({identity.label: "unconfirmed" for identity in record.unconfirmed})
    return found


def look(settings: Settings, record: Record, keys: dict[str, bytes], now: float) -> Iterator[Seen]:
    """Look at the bootstrap identity, then at each that the record counts on; `keys` are public keys (DER) by label."""
    yield _bootstrap(settings, now)
    identities = IdentityDirectories(settings.state_directory)
    try:
        issuers = bundle.issuers(settings.manufacturer_ca)
    except AgentError:
        issuers = None  # that the file cannot be used is told among the files
    for label, role in roles(record).items():
        certificate = identities.certificate(label)
        expected = Expectation(keys.get(label, b""), settings.serial, issuers, now)
        yield _look(label, role, certificate, _text(certificate.with_name(layout.CHAIN)), expected)


def current(settings: Settings) -> tuple[str | None, bool]:
    """Give the label that `current` names, and whether there is a certificate behind it."""
    identities = IdentityDirectories(settings.state_directory)
    return identities.current(), (settings.state_directory / layout.CURRENT / layout.CERTIFICATE).is_file()


def _bootstrap(settings: Settings, now: float) -> Seen:
    """Look at the delivered pair; the CA after the certificate in its file, if there is one, must have signed it."""
    try:
        key = _public(settings.bootstrap_key) if isinstance(settings.bootstrap_key, Path) else b""
        text = settings.bootstrap_certificate.read_text()
    except (Fatal, OSError, UnicodeDecodeError) as error:
        return Seen("the bootstrap identity", "bootstrap", problem=f"{error}")
    end = "-----END CERTIFICATE-----"
    chain = text.partition(end)[2]
    expected = Expectation(key, settings.serial, None, now)
    return _look(
        "the bootstrap identity", "bootstrap", settings.bootstrap_certificate, chain if end in chain else None, expected
    )


def _public(key: Path) -> bytes:
    return certificates.public_key(certificates.load_key(key.read_bytes()))


def _look(name: str, role: str, path: Path, chain: str | None, expected: Expectation) -> Seen:
    try:
        examined = certificates.examine(path.read_text(), chain, expected)
    except (OSError, ValueError) as error:
        return Seen(name, role, problem=f"its certificate cannot be read: {error}")
    facts = examined.facts
    known = [flaw for flaw in examined.flaws if expected.public_key or flaw != OTHER_KEY]  # a missing key tells itself
    return Seen(name, role, None, facts.certificate_id, facts.not_before, facts.not_after, tuple(known), examined.odd)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None  # that it cannot be read is told among the files
