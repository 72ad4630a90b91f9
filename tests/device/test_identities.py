"""The directories of the identities: when one is complete, and which names are refused."""

from pathlib import Path

import pytest

from iot_agent.storage.identities import IdentityDirectories
from tests.device.test_record_store import an_identity


def test_what_is_stored_has_the_key_the_certificate_and_the_facts(tmp_path: Path) -> None:
    identities = IdentityDirectories(tmp_path)
    whole = {label: an_identity(tmp_path, label) for label in ("iot-agent-1", "iot-agent-2", "iot-agent-3")}
    assert set(identities.complete()) == set(whole.values())
    root = tmp_path / "identities"
    (root / "iot-agent-1" / "key.pem").write_bytes(b"")
    (root / "iot-agent-2" / "certificate.pem").unlink()
    (root / "iot-agent-3" / "identity.json").write_bytes(b"{")
    (root / "iot-agent-4").mkdir()
    (root / "iot-agent-5").write_text("a file where a directory should be")
    assert identities.complete() == ()
    assert identities.orphans() == {"iot-agent-4", "iot-agent-5"}, "what is damaged may be readable again: it stays"
    for label in identities.labels():
        identities.remove(label)
    assert identities.labels() == frozenset()


def test_a_label_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a label"):
        IdentityDirectories(tmp_path).remove("../../etc")
