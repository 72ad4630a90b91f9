"""The unit and its drop-ins: what systemd thinks of them, and that each group of directives says why it is there."""

import re
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "packaging/iot-agent.service"
DROP_INS = UNIT.parent / "iot-agent.service.d"


def merged(directory: Path, *drop_ins: Path, planted: str = "") -> Path:
    """Write the unit as systemd would see it: drop-ins after it, a program that is there."""
    service, install = UNIT.read_text().split("[Install]")
    added = "".join(path.read_text().replace("[Service]", "") for path in drop_ins)
    made = directory / UNIT.name
    runnable = service.replace("/usr/bin/iot-agent", "/bin/true") + added + planted
    made.write_text(f"{runnable}\n[Install]{install}")
    return made


def exposure(unit: Path) -> float:
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False, env={"SYSTEMD_COLORS": "0", "LANG": "C", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", rated.stdout)
    assert found, rated.stdout + rated.stderr
    return float(found[1])


@pytest.mark.parametrize("drop_ins", [[], ["tpm.conf"], ["token-pin.conf"]], ids=str)
def test_systemd_takes_the_unit_with_each_drop_in(tmp_path: Path, drop_ins: list[str]) -> None:
    unit = merged(tmp_path, *(DROP_INS / name for name in drop_ins))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize(("drop_in", "most"), [(None, 1.2), ("token-pin.conf", 1.2), ("tpm.conf", 1.3)])
def test_it_is_exposed_as_little_as_promised(tmp_path: Path, drop_in: str | None, most: float) -> None:
    assert exposure(merged(tmp_path, *([DROP_INS / drop_in] if drop_in else []))) <= most


@pytest.mark.parametrize("hole", ["ProtectSystem=no\nProtectHome=no", "NoNewPrivileges=no\nSystemCallFilter="])
def test_a_hole_in_the_sandbox_would_be_noticed(tmp_path: Path, hole: str) -> None:
    assert exposure(merged(tmp_path, planted=hole)) > 1.2


def test_it_is_never_given_up_on() -> None:
    settings = dict(re.findall(r"^([A-Za-z]+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert settings["Restart"] == "always"
    assert settings["StartLimitIntervalSec"] == "0"
    assert "RestartPreventExitStatus" not in settings
    assert settings["OOMPolicy"] == "continue", "a worker that is out of memory must not take the daemon along"
    assert (settings["Type"], settings["WatchdogSec"], settings["StateDirectoryMode"]) == ("notify", "2min", "0700")
