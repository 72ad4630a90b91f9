"""The key ring; tests/keys has the conformance suite and whole lives."""

from pathlib import Path

import pytest

from iot_agent.core.errors import Fatal
from iot_agent.keys.keyring import KeyRing
from tests.device.faulty_device import SERIAL


def test_a_key_for_a_token_that_nothing_names_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    ring = KeyRing(tmp_path / "state", "pkcs11", None, lambda _: pytest.fail("there is none"))
    with pytest.raises(Fatal, match=r"keys\.backend is pkcs11, and keys\.token names no token") as told:
        ring.generate(f"iot-agent-{SERIAL}", "ec-p256")
    assert told.value.code == "key-store"
