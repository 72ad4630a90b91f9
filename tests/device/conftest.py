import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Give a directory that other users reach; tmp_path is closed to them."""
    with tempfile.TemporaryDirectory(prefix="iot-agent-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
