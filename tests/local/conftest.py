"""What the tests of the local cloud share: one local cloud for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloud.local import LocalCloud
from tests.local.local_stack import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return a running local cloud without a stack in it."""
    with LocalCloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield Stage(cloud)
