"""The examination of a faulty device: each finding is caused by real files, sockets and mounts."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from iot_agent.config import bundle
from iot_agent.core.errors import Code
from iot_agent.core.record import CheckedIn, Event, Failed, Outcome, Record
from iot_agent.core.settings import Settings
from iot_agent.doctor import examine, findings
from iot_agent.doctor.checks import RECORD_CHECKS, Context
from iot_agent.doctor.findings import Finding, Level
from iot_agent.doctor.probes import cloud, disk, network
from iot_agent.doctor.rules import clock, files, renewal
from iot_agent.doctor.rules import disk as disk_rules
from iot_agent.doctor.rules.files import FileKind
from iot_agent.doctor.rules.network import Network
from iot_agent.keys import certificates
from iot_agent.storage import identity_lock
from iot_agent.storage.identities import IdentityDirectories
from tests.device.faulty_device import DAY, LABEL, FaultyDevice, acting_as, closed_port, plain_server, tls_server
from tests.simulator.authority import Authority

CALM = {"network.tcp", "clock.trust"}  # no broker is there, so nobody vouches for the clock either


def test_a_healthy_device_without_a_broker_has_only_that_trouble(patient: FaultyDevice) -> None:
    assert set(patient.worries()) - {"disk.kind", "disk.space"} <= CALM
    assert not (patient.state / "doctor.probe").exists()


def other_key(patient: FaultyDevice) -> None:
    (patient.identity / "key.pem").write_bytes(certificates.generate_key("ec-p256"))


def wrong_owner(patient: FaultyDevice) -> None:
    os.chown(patient.identity / "key.pem", 12345, 12345)


def point(target: str) -> Callable[[FaultyDevice], None]:
    def change(patient: FaultyDevice) -> None:
        (patient.state / "current").unlink()
        (patient.state / "current").symlink_to(target)

    return change


SPOILT: dict[str, tuple[Callable[[FaultyDevice], object], str, str]] = {
    "key readable by all": (lambda p: (p.identity / "key.pem").chmod(0o644), "files.mode", "rights to everybody"),
    "key readable by its group": (lambda p: (p.identity / "key.pem").chmod(0o640), "files.mode", "rights to its group"),
    "state directory open": (lambda p: p.state.chmod(0o755), "files.mode", "state has mode 0755"),
    "key of somebody else": (wrong_owner, "files.owner", "belongs to uid 12345"),
    "bootstrap key open": (lambda p: (p.directory / "bootstrap.key").chmod(0o604), "files.mode", "bootstrap.key"),
    "configuration writable": (lambda p: (p.directory / "agent.yaml").chmod(0o666), "files.mode", "agent.yaml"),
    "CA file missing": (lambda p: (p.directory / "endpoint-ca.pem").unlink(), "files.access", "No such file"),
    "CA file empty": (
        lambda p: (p.directory / "manufacturer-ca.pem").write_text(""), "files.content", "contains no certificate",
    ),
    "another key": (other_key, "identity.active", "it is not for our key"),
    "key missing": (lambda p: (p.identity / "key.pem").unlink(), f"keys.{LABEL}", "cannot read"),
    "key garbage": (lambda p: (p.identity / "key.pem").write_text("x"), f"keys.{LABEL}", "not a usable private key"),
    "certificate missing": (lambda p: (p.identity / "certificate.pem").unlink(), "identity.active", "cannot be read"),
    "expired": (lambda p: p.issue(-31 * DAY), "identity.active", "has expired by this clock"),
    "not valid yet": (lambda p: p.issue(DAY), "identity.active", "is not valid yet"),
    "of another CA": (
        lambda p: p.issue(by=Authority("Other CA", p.now)), "identity.active", "not signed by the manufacturer's CA",
    ),
    "of another device": (lambda p: p.issue(serial="SN-0002"), "identity.active", "not CN=SN-0001"),
    "bootstrap pair torn": (
        lambda p: (p.directory / "bootstrap.key").write_bytes(certificates.generate_key("ec-p256")),
        "identity.bootstrap", "it is not for our key",
    ),
    "no current": (lambda p: (p.state / "current").unlink(), "identity.current", "points at nothing"),
    "current elsewhere": (point("identities/iot-agent-other"), "identity.current", "points at iot-agent-other"),
    "current dangling": (lambda p: shutil.rmtree(p.identity), "identity.current", "which does not exist"),
    "record damaged": (lambda p: (p.state / "state.json").write_text("{}"), "record", "not a record"),
    "record missing": (lambda p: (p.state / "state.json").unlink(), "record", "is missing"),
    "record of another device": (lambda p: p.change(serial="SN-0002"), "record", "belongs to serial SN-0002"),
    "record was damaged": (lambda p: (p.state / "state.json.bad").touch(), "record.bad", "state.json.bad"),
    "record was damaged twice": (lambda p: (p.state / "state.json.bad-0a1b2c3d").touch(), "record.bad", "bad-0a1b2c3d"),
    "clock behind the floor": (lambda p: p.change(time_floor=int(p.now) + DAY), "clock.floor", "behind a time"),
    "name unknown": (lambda p: p.configure(8883, "nobody.invalid"), "network.name", "does not resolve"),
    "port closed": (lambda p: p.configure(closed_port()), "network.tcp", "Connection refused"),
    "silent for long": (lambda p: p.change(last_contact=int(p.now) - 9 * DAY), "renewal.contact", "9 days ago"),
    "renewal late": (lambda p: p.issue(-29 * DAY), "renewal.headroom", "should have been done long ago"),
    "renewal due": (lambda p: p.issue(-23 * DAY), "renewal.headroom", "has been due for"),
    "rotations too slow": (
        lambda p: p.change(history=(Event(0, "introduced", ""), Event(8 * DAY, "promoted", ""))),
        "renewal.headroom", "the longest rotation so far took 8 days",
    ),
}  # fmt: skip


def named(table: dict[str, Any]) -> list[ParameterSet]:
    """Give the names in a table; only root can give a file to another user."""
    needs_root = [pytest.mark.needs_root]
    return [pytest.param(name, marks=needs_root if SPOILT[name][0] is wrong_owner else ()) for name in table]


@pytest.mark.parametrize("name", named(SPOILT))
def test_what_is_spoilt_is_found_with_a_remedy(patient: FaultyDevice, name: str) -> None:
    spoil, check, words = SPOILT[name]
    spoil(patient)
    found = patient.worries()
    assert words in found[check].message
    assert found[check].remedy


HONEST_CLOCK = clock.ClockFacts


def forgiving_clock(now: float, floor: int, *rest: int | None) -> clock.ClockFacts:
    return HONEST_CLOCK(max(now, floor), floor, *rest)  # type: ignore[arg-type]  # as they came


def trusting_look(host: str, port: int, _ca_file: Path, **_named: object) -> Network:
    return Network(host, port, ("127.0.0.1",))


BUGS: dict[str, tuple[object, str, object]] = {
    "CA file empty": (bundle, "_flaw", lambda *_, **__: None),
    "key readable by all": (files, "FORBIDDEN", dict.fromkeys(FileKind, 0)),
    "key of somebody else": (files, "_judge_one", lambda *_: iter(())),
    "another key": (certificates, "_flaws", lambda *_: ()),
    "of another CA": (certificates, "_issued_by", lambda *_: True),
    "no current": (IdentityDirectories, "current", lambda _: LABEL),
    "clock behind the floor": (clock, "ClockFacts", forgiving_clock),
    "port closed": (network, "look", trusting_look),
    "rotations too slow": (renewal, "longest_rotation", lambda _: 0),
}


@pytest.mark.parametrize("name", named(BUGS))
def test_a_planted_bug_would_be_noticed(patient: FaultyDevice, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, check, words = SPOILT[name]
    monkeypatch.setattr(*BUGS[name])
    spoil(patient)
    found = patient.worries().get(check)
    assert found is None or words not in found.message, "a doctor with this bug must fail the test above"


def test_a_check_is_added_by_adding_a_function_to_a_list(
    patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state_of_the_record(context: Context) -> Iterator[Finding]:
        yield findings.fine("extra", context.record.state)

    monkeypatch.setattr(examine, "RECORD_CHECKS", [*RECORD_CHECKS, state_of_the_record])
    assert patient.findings()[-1] == Finding("extra", Level.FINE, "acked")


# ---- disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(patient: FaultyDevice) -> Iterator[Callable[[str], None]]:
    """Move the state directory to a file system with these mount options."""
    kept = patient.directory / "kept"

    def mount(options: str) -> None:
        shutil.move(patient.state, kept)
        patient.state.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", str(patient.state)], check=True)
        shutil.copytree(kept, patient.state, symlinks=True, dirs_exist_ok=True)

    yield mount
    subprocess.run(["umount", "--lazy", str(patient.state)], check=True)


@pytest.mark.needs_root
def test_a_full_disk_is_found(patient: FaultyDevice, small_disk: Callable[[str], None]) -> None:
    small_disk("size=1m")
    assert patient.worries()["disk.space"].level is Level.WARNING
    with pytest.raises(OSError, match="No space left"):
        (patient.state / "filler").write_bytes(b"x" * 2_000_000)
    found = patient.worries()
    assert found["disk.space"].level is Level.ERROR
    assert "No space left" in found["disk.write"].message
    assert "next reboot deletes" in found["disk.kind"].message, "a state directory in memory is a fault of its own"


@pytest.mark.needs_root
def test_a_disk_without_inodes_is_found(patient: FaultyDevice, small_disk: Callable[[str], None]) -> None:
    small_disk("nr_inodes=24")
    assert "not enough for a rotation" in patient.worries()["disk.inodes"].message


@pytest.mark.needs_root
def test_a_read_only_disk_is_found(patient: FaultyDevice, small_disk: Callable[[str], None]) -> None:
    small_disk("size=16m")
    subprocess.run(["mount", "-o", "remount,ro", str(patient.state)], check=True)
    assert "read-only" in patient.worries()["disk.write"].message


def test_bug_planted_no_inode_is_needed(
    patient: FaultyDevice, small_disk: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_rules, "ROTATION_INODES", 0)
    small_disk("nr_inodes=24")
    assert "not enough" not in patient.worries()["disk.inodes"].message


def test_bug_planted_nothing_is_written_to_the_disk(
    patient: FaultyDevice, small_disk: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        disk, "look", lambda state: disk_rules.Disk(str(state), "ext4", 2**30, None, read_only=False, problem=None)
    )
    small_disk("size=16m")
    subprocess.run(["mount", "-o", "remount,ro", str(patient.state)], check=True)
    assert "disk.write" not in patient.worries()


# ---- network --------------------------------------------------------------------------------------------------------


def endpoint(patient: FaultyDevice, ca: Authority | None = None) -> Authority:
    """Make the CA that the device trusts for its endpoint."""
    trusted = ca or Authority("Endpoint CA", patient.now)
    (patient.directory / "endpoint-ca.pem").write_text(trusted.pem)
    return trusted


def test_a_server_of_another_ca_is_found(patient: FaultyDevice) -> None:
    endpoint(patient)
    with tls_server(patient.directory, Authority("Interceptor", patient.now)) as port:
        patient.configure(port)
        found = {finding.check: finding for finding in patient.findings()}
    assert "unable to get local issuer certificate" in found["network.tls"].message
    assert "intercepts TLS" in found["network.tls"].remedy
    assert found["cloud.check-in"].level is Level.SKIPPED, "half a minute is not spent on what is known"


@pytest.mark.parametrize(
    ("name", "days", "words"), [("elsewhere", 90, "ostname mismatch"), ("localhost", -1, "expired")]
)
def test_a_server_with_a_wrong_certificate_is_found(patient: FaultyDevice, name: str, days: float, words: str) -> None:
    with tls_server(patient.directory, endpoint(patient), name, days) as port:
        patient.configure(port)
        assert words in patient.worries()["network.tls"].message


def test_a_server_certificate_that_ends_soon_is_found(patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "LONGEST_WAIT", 0.0)
    with tls_server(patient.directory, endpoint(patient), days=3) as port, held(patient.state):
        patient.configure(port)
        found = patient.worries()
    assert found["network.tls"].level is Level.WARNING
    assert "expires in 3.0 days" in found["network.tls"].message
    assert "keyUsage" in found["network.tls-strict"].remedy


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_is_not_tls_is_found(patient: FaultyDevice, said: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(said)

    with plain_server(answer) as port:
        patient.configure(port)
        assert "ended the TLS handshake" in patient.worries()["network.tls"].message


# ---- the identity lock -----------------------------------------------------------------------------------------------


@contextmanager
def held(state: Path) -> Iterator[None]:
    """Hold the identity lock, as the daemon's worker does during a step."""
    with identity_lock.exclusive_use(state, 0.0) as ours:
        assert ours
        yield


def test_the_doctor_opens_no_session_during_a_step(patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "LONGEST_WAIT", 0.1)
    monkeypatch.setattr(cloud, "check_in", lambda *_, **__: pytest.fail("a second session was opened"))
    with tls_server(patient.directory, endpoint(patient)) as port, held(patient.state):
        patient.configure(port)
        found = patient.worries()["cloud.check-in"]
    assert found.level is Level.WARNING
    assert "in the middle of a step" in found.message


def test_bug_planted_a_doctor_without_the_lock(patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []

    def check_in(settings: Settings, *_: object, **__: object) -> Outcome:
        asked.append(settings)
        return CheckedIn(int(patient.now), None)

    monkeypatch.setattr(examine, "exclusive_use", lambda *_: nullcontext(enter_result=True))
    monkeypatch.setattr(cloud, "check_in", check_in)
    with tls_server(patient.directory, endpoint(patient)) as port, held(patient.state):
        patient.configure(port)
        patient.worries()
    assert asked, "this doctor opens a second session in the middle of a step"


@pytest.mark.parametrize(("looks", "level"), [(examine.LOOKS, Level.FINE), (1, Level.ERROR)])
def test_a_promotion_meanwhile_is_not_taken_for_a_fault(
    patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch, looks: int, level: Level
) -> None:
    """The step before had the old certificate retired, and the daemon saves that only now."""

    def check_in(_settings: Settings, record: Record, _now: float, **_: bool) -> Outcome:
        if record.rotations == 0:
            patient.change(rotations=1)
            return Failed("refused", "the cloud closed the connection", "…", fatal=False)
        return CheckedIn(int(patient.now), None)

    monkeypatch.setattr(cloud, "check_in", check_in)
    monkeypatch.setattr(examine, "LOOKS", looks)
    with tls_server(patient.directory, endpoint(patient)) as port:
        patient.configure(port)
        found = {finding.check: finding for finding in patient.findings()}
    assert found["cloud.check-in"].level is level, "with one look only, it is"


def test_the_lock_is_free_again_when_its_holder_ends(tmp_path: Path) -> None:
    with held(tmp_path), identity_lock.exclusive_use(tmp_path, 0.1) as ours:
        assert not ours
    with identity_lock.exclusive_use(tmp_path, 0.0) as ours:
        assert ours
    with identity_lock.exclusive_use(tmp_path / "nowhere", 0.0) as ours:
        assert not ours


@pytest.mark.needs_root
def test_what_the_agent_may_not_read_is_found_although_root_could(open_place: Path) -> None:
    patient, nobody = FaultyDevice(open_place), pwd.getpwnam("nobody")
    patient.findings()  # whatever Python still has to load for it, it loads as root
    for path in [patient.state, *patient.state.rglob("*"), open_place / "bootstrap.key"]:
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    with acting_as(nobody.pw_uid, nobody.pw_gid):
        assert set(patient.worries()) - {"disk.kind"} == CALM
    os.chown(patient.identity / "key.pem", 0, 0)
    with acting_as(nobody.pw_uid, nobody.pw_gid):
        found = patient.worries()
    assert "Permission denied" in found["files.access"].message
    assert "Permission denied" in found[f"keys.{LABEL}"].message


# ---- clouds without check-ins ---------------------------------------------------------------------------------------


def checked_in(patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> Finding:
    """Give the finding about a check-in that ends like this."""
    monkeypatch.setattr(cloud, "check_in", lambda *_, **__: outcome)
    with tls_server(patient.directory, endpoint(patient)) as port:
        patient.configure(port)
        return next(finding for finding in patient.findings() if finding.check == "cloud.check-in")


def test_a_cloud_that_answers_no_check_in_is_fine_if_it_is_known_as_such(
    patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = Failed(Code.NO_REPLY, "no reply", "look", fatal=False)
    assert checked_in(patient, monkeypatch, silence).level is Level.ERROR
    patient.change(answers_once=True)
    assert checked_in(patient, monkeypatch, silence).level is Level.FINE
    refused = Failed(Code.REFUSED, "refused", "look", fatal=False)
    assert checked_in(patient, monkeypatch, refused).level is Level.ERROR


def test_a_check_in_that_is_off_is_not_tried(patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "check_in", lambda *_, **__: pytest.fail("it was tried"))
    configuration = patient.directory / "agent.yaml"
    configuration.write_text(configuration.read_text() + "check_in: {every: off}\n")
    found = next(finding for finding in patient.findings() if finding.check == "cloud.check-in")
    assert (found.level, found.message) == (Level.SKIPPED, "not tried: check_in.every is off in agent.yaml")
