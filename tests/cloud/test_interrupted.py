"""Each call of the Lambda fails in turn, and the same event comes again: it always ends in the same place."""

import pytest

from tests.cloud.scenarios import FAULTS, live_with_each


@pytest.mark.parametrize("name", FAULTS)
def test_after_a_fault_at_any_call_the_same_event_again_converges(name: str, aws: pytest.MonkeyPatch) -> None:
    assert live_with_each(aws, FAULTS[name]) > 60, "a whole life makes more calls than this"
