"""Findings: their exit status, and how they are written."""

from pathlib import Path

from iot_agent.core.record import Failure, Kind
from iot_agent.doctor import findings
from iot_agent.doctor.rules import daemon
from tests.device.evil_text import EVIL, hostile_report, obeyed
from tests.device.faulty_device import FaultyDevice


def test_the_exit_status_is_that_of_the_worst_finding() -> None:
    good, bad = findings.fine("a", ""), findings.error("d", "", "do")
    assert findings.exit_status([]) == 0
    assert findings.exit_status([good, findings.skipped("b", "")]) == 0
    assert findings.exit_status([good, findings.warning("c", "", "do")]) == 1
    assert findings.exit_status([bad, good]) == 2
    assert findings.report([bad, good], 1.0)["worst"] == "error"


def test_the_doctor_writes_nothing_that_a_terminal_obeys() -> None:
    for finding in [*daemon.judge(hostile_report()), findings.error(EVIL[:4], EVIL, EVIL)]:
        written = findings.write(finding)
        assert obeyed(written) == set()
        assert written.count("\n") == bool(finding.remedy)
        assert findings.decode(findings.encode(finding)) == finding


def test_a_certificate_with_an_evil_name_is_shown_by_the_doctor_as_text(tmp_path: Path) -> None:
    patient = FaultyDevice(tmp_path)
    patient.issue(serial="SN\x1b[2J")
    patient.change(failure=Failure(Kind.CHECK_IN, "refused", EVIL, "…", 0))
    written = "\n".join(map(findings.write, patient.findings()))
    assert "SN" in written
    assert obeyed(written) == set()
