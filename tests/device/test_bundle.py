"""The files that agent.yaml names: what is wrong with them, when that matters, and that the remedy repairs it."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from iot_agent.config import bundle
from iot_agent.core.errors import Retryable
from tests.device.faulty_device import FaultyDevice, acting_as

AGENT = (4321, 4321)
GARBAGE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def patient(open_place: Path) -> FaultyDevice:
    return FaultyDevice(open_place)


def told(patient: FaultyDevice, *, starting: bool = True) -> list[str]:
    """Give the problems that the agent's user sees, with the paths shortened."""
    for path in [patient.state, *patient.state.rglob("*"), patient.directory / "bootstrap.key"]:
        if os.path.lexists(path):
            os.chown(path, *AGENT, follow_symlinks=False)
    settings = patient.settings()
    with acting_as(*AGENT):
        return [str(one).replace(f"{patient.directory}/", "") for one in bundle.problems(settings, starting=starting)]


def without_identity(patient: FaultyDevice) -> FaultyDevice:
    shutil.rmtree(patient.state)
    return patient


NAMED = {
    "bootstrap.certificate": "bootstrap.pem",
    "bootstrap.key": "bootstrap.key",
    "endpoint.ca_file": "endpoint-ca.pem",
    "manufacturer_ca": "manufacturer-ca.pem",
}


def replaced(path: Path, by: Callable[[Path], None]) -> None:
    path.unlink()
    by(path)


SPOIL: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "does not exist; copy it there from the bundle that was made for this device"),
    "empty": (lambda path: path.write_text(""), "in PEM; replace it with the file that was made for this device"),
    "a directory": (lambda path: replaced(path, Path.mkdir), "cannot be read: [Errno 21] Is a directory"),
    "a pipe": (lambda path: replaced(path, os.mkfifo), "in PEM; replace it"),
    "endless": (lambda path: os.truncate(path, 2**30), "cannot be read: larger than 1048576 bytes"),
}


@pytest.mark.needs_root
@pytest.mark.parametrize("key", NAMED)
@pytest.mark.parametrize("how", SPOIL)
def test_a_device_without_an_identity_needs_each_file(patient: FaultyDevice, key: str, how: str) -> None:
    spoil, complaint = SPOIL[how]
    assert told(without_identity(patient)) == []
    spoil(patient.directory / NAMED[key])
    (line,) = told(patient)
    assert line.startswith(f"{NAMED[key]}: {key}: ")
    assert complaint in line


@pytest.mark.needs_root
def test_a_ca_that_cannot_be_parsed_is_found(patient: FaultyDevice) -> None:
    (patient.directory / "manufacturer-ca.pem").write_text(GARBAGE)
    (line,) = told(without_identity(patient))
    assert "manufacturer_ca: contains a certificate that cannot be read: " in line


@pytest.mark.needs_root
@pytest.mark.parametrize("key", NAMED)
def test_a_device_with_an_identity_of_its_own_is_started_whatever_they_are(patient: FaultyDevice, key: str) -> None:
    (patient.directory / NAMED[key]).write_text("")
    assert told(patient) == []
    asked = told(patient, starting=False)
    assert bool(asked) == (key in ("endpoint.ca_file", "manufacturer_ca")), "what a person asks for must be fit"


@pytest.mark.needs_root
@pytest.mark.parametrize(("bug", "value"), [("has_identity", lambda _: False), ("problems", lambda *_, **__: [])])
def test_a_planted_bug_would_be_noticed(
    patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch, bug: str, value: object
) -> None:
    monkeypatch.setattr(bundle, bug, value)
    (patient.directory / "bootstrap.key").unlink()
    served = told(patient) == []
    waits = told(without_identity(patient)) != []
    assert not (served and waits)


@pytest.mark.needs_root
def test_an_identity_counts_also_when_the_record_is_lost(patient: FaultyDevice) -> None:
    (patient.state / "state.json").unlink()
    (patient.directory / "bootstrap.key").unlink()
    assert told(patient) == []
    (patient.identity / "certificate.pem").unlink()
    assert len(told(patient)) == 1


def closed(path: Path) -> None:
    os.chown(path, 0, 0)
    path.chmod(path.stat().st_mode & 0o700)


@pytest.mark.needs_root
@pytest.mark.parametrize("which", ["file", "directory", "directory of a directory"])
def test_the_command_that_is_told_lets_the_agent_read(patient: FaultyDevice, which: str) -> None:
    deep = patient.directory / "a" / "b"
    deep.mkdir(parents=True, mode=0o755)
    deep.parent.chmod(0o755)
    shutil.copy2(patient.directory / "manufacturer-ca.pem", deep / "ca.pem")
    path = patient.directory / "agent.yaml"
    path.write_text(path.read_text().replace("manufacturer-ca.pem", "a/b/ca.pem"))
    assert told(without_identity(patient)) == []
    closed({"file": deep / "ca.pem", "directory": deep, "directory of a directory": deep.parent}[which])
    settings = patient.settings()
    with acting_as(*AGENT):
        (problem,) = bundle.problems(settings, starting=True)
    command = re.fullmatch(r"run: sudo (chown \S+ \S+) && sudo (chmod \S+ \S+)", problem.remedy)
    assert command
    for part in command.groups():
        subprocess.run(part.split(), check=True)
    assert told(patient) == []


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/etc/iot-agent/bootstrap/key.pem", "run: sudo systemd-tmpfiles --create iot-agent.conf"),
        ("/etc/iot-agent/endpoint-ca.pem", "run: sudo systemd-tmpfiles --create iot-agent.conf"),
        ("/etc/iot-agent/other/key", "run: sudo chown root:"),
    ],
)
def test_where_the_package_says_who_owns_what_its_own_command_is_told(path: str, command: str) -> None:
    assert bundle._permit(Path(path)).startswith(command)


def test_no_issuers_and_a_file_that_cannot_be_used_are_not_the_same(patient: FaultyDevice) -> None:
    path = patient.directory / "manufacturer-ca.pem"
    assert bundle.issuers(None) is None
    assert bundle.issuers(path) == path.read_text()
    for content in (b"", b"nothing", GARBAGE.encode(), b"\xff"):
        path.write_bytes(content)
        with pytest.raises(
            Retryable, match=r"no certificate is accepted .*manufacturer-ca\.pem cannot be used"
        ) as said:
            bundle.issuers(path)
        assert said.value.code == "unfit-certificate"
    path.unlink()
    with pytest.raises(Retryable, match="No such file"):
        bundle.issuers(path)


def with_token(patient: FaultyDevice, module: Path) -> Path:
    """Give the PIN's file of a device whose new keys are to be made on a token."""
    pin = patient.directory / "pin"
    pin.write_text("1234\n")
    pin.chmod(0o600)
    os.chown(pin, *AGENT)
    configuration = patient.directory / "agent.yaml"
    keys = f"keys: {{backend: pkcs11, module: {module}, token: iot-agent, pin: {pin}}}\n"
    configuration.write_text(configuration.read_text() + keys)
    return pin


@pytest.mark.needs_root
def test_a_person_hears_of_a_token_that_cannot_work(patient: FaultyDevice) -> None:
    library = next(Path("/usr/lib").glob("*/libc.so.6"))
    pin = with_token(patient, library)
    assert told(patient, starting=False) == []
    pin.chmod(0o644)
    [problem] = told(patient, starting=False)
    assert "keys.pin: " in problem
    assert "mode 0600" in problem
    assert told(patient) == [], "a device with an identity starts whatever is wrong with its token"
    pin.chmod(0o600)
    patient.configure(1)
    with_token(patient, patient.directory / "gone.so")
    [problem] = told(patient, starting=False)
    assert "gone.so: keys.module: No such file or directory; install the PKCS #11 library" in problem


@pytest.mark.needs_root
def test_a_module_that_is_no_library_is_told(patient: FaultyDevice) -> None:
    with_token(patient, patient.directory / "agent.yaml")
    assert "keys.module: is not a library" in told(patient, starting=False)[0]
