import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device.faulty_device import FaultyDevice
from tests.device.lonely_agent import LonelyAgent


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Give a directory that other users reach; tmp_path is closed to them."""
    with tempfile.TemporaryDirectory(prefix="iot-agent-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def patient(tmp_path: Path) -> FaultyDevice:
    """Give an onboarded device, to be spoilt."""
    return FaultyDevice(tmp_path)


@pytest.fixture
def mute_broker() -> Iterator[int]:
    """Listen and never answer: a connection that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def agent(tmp_path: Path, mute_broker: int) -> Iterator[LonelyAgent]:
    """Give a daemon, not started, that will reach nobody."""
    agent = LonelyAgent(tmp_path, mute_broker)
    yield agent
    agent.kill()
