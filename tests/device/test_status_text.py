"""Reports and histories, written for a person."""

import pytest

from iot_agent.status import text


@pytest.mark.parametrize("moment", [-1, 0, text.LAST, text.LAST + 1, 10**30])
def test_no_moment_is_too_odd_to_be_written(moment: int) -> None:
    assert text.history([{"at": moment, "event": "issued", "detail": ""}])
