"""What the daemon reports about itself (docs/status.md). Pure."""

from collections.abc import Iterator
from typing import Any

from iot_agent.doctor.findings import Finding, error, fine, warning


def judge(report: dict[str, Any]) -> Iterator[Finding]:
    """Judge a running daemon's report."""
    yield fine("daemon", f"running, version {report['version']}, {report['state']}: {report['reason']}")
    failure, refused, trouble = report["last_error"], report["configuration"]["error"], report["trouble"]
    if failure is not None:
        said = f"{failure['step']} failed, {report['attempt']} times in a row: {failure['message']} [{failure['code']}]"
        yield warning("daemon.last-error", said, f"{failure['remedy']}")
    if refused is not None:
        remedy = "Correct agent.yaml, then run: systemctl reload iot-agent"
        yield error("daemon.configuration", f"the last reload was refused: {refused}", remedy)
    if trouble is not None:
        yield error("daemon.trouble", f"{trouble}", "Free space in the state directory, or mount it read-write.")


def down(why: str) -> Finding:
    """Judge a daemon that does not answer."""
    return error(
        "daemon",
        f"not running ({why})",
        "Start it with: systemctl start iot-agent. journalctl -u iot-agent says why it stopped.",
    )
