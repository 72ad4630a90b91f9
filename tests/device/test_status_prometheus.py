"""The metrics for Prometheus, and the alert rules and dashboard that use them."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from iot_agent.core.record import Record
from iot_agent.status import prometheus
from tests.device.reports import RECORD, failing, report

MONITORING = Path(__file__).parents[2] / "packaging/monitoring"


def samples(text: str) -> dict[str, float]:
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}


def test_the_metrics_say_what_the_report_says() -> None:
    assert samples(prometheus.text(report(failing(2)))) == {
        'iot_agent_info{serial="SN-0001",version="0.1.0"}': 1,
        'iot_agent_state{state="unprovisioned"}': 0,
        'iot_agent_state{state="jitp"}': 0,
        'iot_agent_state{state="rotated"}': 0,
        'iot_agent_state{state="acked"}': 1,
        "iot_agent_certificate_not_before_timestamp_seconds": 1000,
        "iot_agent_certificate_not_after_timestamp_seconds": 2000,
        "iot_agent_certificate_renewal_timestamp_seconds": 1700,
        "iot_agent_last_contact_timestamp_seconds": 1200,
        "iot_agent_failed_attempts": 2,
        "iot_agent_rotations_total": 3,
        'iot_agent_last_error_timestamp_seconds{step="request",code="unreachable"}': 1400,
        "iot_agent_configuration_refused": 0,
        "iot_agent_disk_trouble": 0,
        "iot_agent_clock_trusted": 1,
    }


@pytest.mark.parametrize("record", [RECORD, failing(2), Record('odd "\\\n serial')])
def test_prometheus_itself_accepts_them(record: Record) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=prometheus.text(report(record)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_file_is_replaced_only_when_a_value_changes_and_removed_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "iot-agent.prom"
    textfile = prometheus.Textfile(path)
    textfile.publish(report())
    first = path.stat()
    assert first.st_mode & 0o777 == 0o644
    textfile.publish(report(now=1600))
    assert path.stat().st_ino == first.st_ino
    textfile.publish(report(failing(1)))
    assert path.stat().st_ino != first.st_ino
    assert list(tmp_path.iterdir()) == [path]
    textfile.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_logged_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    textfile = prometheus.Textfile(tmp_path / "nowhere" / "iot-agent.prom")
    textfile.publish(report())
    textfile.publish(report(failing(1)))
    assert [entry.getMessage()[:31] for entry in caplog.records] == ["cannot write the metrics: [Errn"]
    (tmp_path / "nowhere").mkdir()
    textfile.publish(report())
    assert (tmp_path / "nowhere" / "iot-agent.prom").exists()


def spoil_with_directory(path: Path) -> None:
    path.mkdir()


def spoil_with_link(path: Path) -> None:
    (path.parent / "target").write_text("of somebody else")
    path.symlink_to("target")


def spoil_with_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [spoil_with_directory, spoil_with_link, spoil_with_fifo])
def test_whatever_is_in_the_place_of_the_file_is_replaced_or_logged_and_never_followed(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "iot-agent.prom"
    spoil(path)
    textfile = prometheus.Textfile(path)
    textfile.publish(report())
    textfile.publish(report(failing(1)))
    textfile.close()
    assert path.exists() == (spoil is spoil_with_directory) == bool(caplog.records)
    if spoil is spoil_with_link:
        assert (tmp_path / "target").read_text() == "of somebody else"


def test_switched_off_it_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    textfile = prometheus.Textfile(None)
    textfile.publish(report())
    textfile.close()
    assert list(tmp_path.iterdir()) == []


# ---- the examples in packaging/monitoring ---------------------------------------------------------------------------


def known() -> set[str]:
    return {name.split("{")[0] for name in samples(prometheus.text(report(failing(1))))}


def test_the_alert_rules_are_good_and_fire_when_they_should(tmp_path: Path) -> None:
    """Prometheus' own rule tests: each alert once just quiet and once firing."""
    rules = MONITORING / "iot-agent.rules.yml"
    alerts = [rule["alert"] for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]]
    day = 1440  # minutes; a sample each
    cases = {
        "IotAgentCertificateRenewalLate": (certificate(75), certificate(85)),
        "IotAgentCertificateExpires": (certificate(85), certificate(95)),
        "IotAgentNoContact": (
            {"iot_agent_last_contact_timestamp_seconds": str(-86400)},
            {"iot_agent_last_contact_timestamp_seconds": str(-3 * 86400)},
        ),
        "IotAgentKeepsFailing": ({"iot_agent_failed_attempts": "5"}, {"iot_agent_failed_attempts": "6"}),
        "IotAgentNotOnboarded": ({'iot_agent_state{state="jitp"}': "0"}, {'iot_agent_state{state="jitp"}': "1"}),
        "IotAgentDiskTrouble": ({"iot_agent_disk_trouble": "0"}, {"iot_agent_disk_trouble": "1"}),
        "IotAgentConfigurationRefused": (
            {"iot_agent_configuration_refused": "0"},
            {"iot_agent_configuration_refused": "1"},
        ),
        "IotAgentDown": (
            {'up{job="node",instance="a"}': "1", 'iot_agent_info{instance="a"}': "1"},
            {'up{job="node",instance="a"}': "1", 'iot_agent_info{instance="b"}': "1"},
        ),
    }
    assert cases.keys() == set(alerts)
    tests = []
    for alert, situations in cases.items():
        for firing, series in zip((False, True), situations, strict=True):
            tests.append(
                {
                    "name": f"{alert} {'fires' if firing else 'is quiet'}",
                    "interval": "1m",
                    "input_series": [{"series": name, "values": f"{value}x{day}"} for name, value in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                            "eval_time": "120m",
                            "exp_samples": [{"labels": "{}", "value": int(firing)}],
                        }
                    ],
                }
            )
    (tmp_path / "test.yml").write_text(
        json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests})
    )
    checked = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def certificate(percent: int) -> dict[str, str]:
    """Give a certificate of 100 days of which so much has passed (Prometheus' tests begin at the epoch)."""
    begun = -percent * 86400
    return {
        "iot_agent_certificate_not_before_timestamp_seconds": str(begun),
        "iot_agent_certificate_not_after_timestamp_seconds": str(begun + 100 * 86400),
    }


def test_rules_and_dashboard_name_only_metrics_that_exist() -> None:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) == 7
    rules = (MONITORING / "iot-agent.rules.yml").read_text()
    used = set(re.findall(r"iot_agent_[a-z_]+", " ".join(expressions) + rules))
    assert used <= known()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
