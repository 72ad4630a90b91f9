"""The report of a device whose daemon is not running."""

from pathlib import Path

import pytest

from iot_agent.status import from_disk
from tests.device.faulty_device import FaultyDevice


def test_it_is_the_report_of_the_record(patient: FaultyDevice) -> None:
    shown = from_disk.report(patient.state)
    assert shown is not None
    assert (shown["serial"], shown["state"], shown["next_step"]) == ("SN-0001", "acked", None)
    assert shown["daemon"].startswith("not running")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_without_a_good_record_the_previous_one_is_read(patient: FaultyDevice, damage: object) -> None:
    assert callable(damage)
    record = patient.state / "state.json"
    record.with_name("state.json.previous").write_bytes(record.read_bytes())
    damage(record)
    assert from_disk.record(patient.state) == patient.record


def test_without_any_there_is_no_report(tmp_path: Path) -> None:
    assert from_disk.report(tmp_path) is None
    assert from_disk.report(tmp_path / "nowhere") is None
