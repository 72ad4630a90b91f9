"""The pace of CONNECTs, across processes: by a file's time."""

from pathlib import Path

import pytest

from iot_agent.worker.connect_throttle import SPACING, ConnectThrottle


class Time:
    """A clock that only sleeping, or the test, moves."""

    def __init__(self) -> None:
        self.now, self.slept = 1_800_000_000.0, 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


def test_another_process_waits_for_what_is_left_of_the_second(tmp_path: Path) -> None:
    time = Time()
    for passed in (0.0, 0.4, 5.0):
        ConnectThrottle(tmp_path / "last", time, time.sleep)()
        time.now += passed
    ConnectThrottle(tmp_path / "last", time, time.sleep)()
    assert time.slept == pytest.approx(SPACING + SPACING - 0.4, abs=1e-3)


def test_a_clock_that_was_set_back_is_not_waited_for(tmp_path: Path) -> None:
    time = Time()
    ConnectThrottle(tmp_path / "last", time, time.sleep)()
    time.now -= 86400
    ConnectThrottle(tmp_path / "last", time, time.sleep)()
    assert time.slept == 0


def test_a_directory_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    time = Time()
    ConnectThrottle(tmp_path / "gone" / "last", time, time.sleep)()
    assert time.slept == 0
