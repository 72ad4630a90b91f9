"""Many rotations, one after the other, with keys on a token."""

import pytest

from cloud.local.tokens import SoftTpm
from iot_agent.core import lifecycle
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.layout import KEY_ON_TOKEN
from iot_agent.storage.record_store import RecordStore
from tests.keys.bench import Bench, holds, label
from tests.simulator.device import SERIAL, SimulatedDevice


@pytest.mark.parametrize(("on_token", "rotations"), [("softhsm", 3), ("tpm", 50)], indirect=["on_token"])
def test_many_rotations_leak_no_object_and_no_handle(
    device: SimulatedDevice, on_token: Bench, rotations: int, tpm: SoftTpm
) -> None:
    device.life(1)
    handles = tpm.handles()
    store = RecordStore(device.disk, IdentityDirectories(device.disk), SERIAL)
    for rotation in range(2, rotations + 1):
        store.save(lifecycle.request_rotation(store.load(), device.time()))
        device.life(rotation)
    device.check_settled()
    assert on_token.objects() == [label(device), label(device)]
    assert holds(device) == {"csr.pem", "certificate.pem", "chain.pem", "identity.json", KEY_ON_TOKEN}
    assert tpm.handles() == handles
