"""The active identity, for applications: who may read it, when, and what they are told."""

import errno
import grp
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iot_agent.core.ports import StateStore
from iot_agent.core.reconcile import OnDisk
from iot_agent.core.record import Identity, Record
from iot_agent.core.schedule import Policy
from iot_agent.doctor.findings import Level
from iot_agent.keys.file import FileKeys
from iot_agent.resident.clock import FlooredClock
from iot_agent.resident.cycle import Cycle, Means
from iot_agent.storage import application_access
from iot_agent.storage.application_access import ApplicationAccess
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.record_store import RecordStore
from tests.device.faulty_device import LABEL, FaultyDevice, acting_as

GROUP, MEMBER, STRANGER = "daemon", (4321, 4321), (4322, 4322)
GID = grp.getgrnam(GROUP).gr_gid
NEXT = "iot-agent-20260201T000000Z-00000002"


@pytest.fixture
def patient(open_place: Path) -> FaultyDevice:
    (open_place / "run").mkdir()
    return FaultyDevice(open_place)


def share(patient: FaultyDevice, group: str | None = GROUP) -> None:
    path = patient.directory / "agent.yaml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("identity:")]
    path.write_text("\n".join([*kept, *([f"identity: {{group: {group}}}"] if group else []), ""]))


class Started:
    """What runs in the daemon after its start: the cycle with its store, and what it does for applications."""

    def __init__(self, patient: FaultyDevice, store: StateStore | None = None) -> None:
        identities = IdentityDirectories(patient.state)
        self.applications = ApplicationAccess(identities, patient.settings())
        means = Means(
            store or RecordStore(patient.state, identities, "SN-0001"), self.applications, FlooredClock(0), Policy(),
            lambda: NEXT, lambda: "request",
        )  # fmt: skip
        self.cycle = Cycle(means, patient.record)
        self.applications.begin(self.cycle.record)

    def save(self, record: Record) -> bool:
        self.cycle.record = record
        return self.cycle.save()


def start(patient: FaultyDevice, store: StateStore | None = None) -> Started:
    return Started(patient, store)


def promoted(patient: FaultyDevice) -> Record:
    """Put a second identity on disk, and give the record in which it is active."""
    keys, identities = FileKeys(patient.state / "identities"), IdentityDirectories(patient.state)
    keys.generate(NEXT, "ec-p256")
    identities.create(NEXT, keys.csr(NEXT, "SN-0001"))
    assert patient.record.active is not None
    fresh = Identity(NEXT, replace(patient.record.active.certificate, certificate_id="ff"))
    identities.store(fresh, (patient.identity / "certificate.pem").read_text(), "a chain\n")
    return replace(patient.record, active=fresh, to_delete=(LABEL,))


def readable(path: Path, *gids: int, uid: int = MEMBER[0]) -> bool:
    with acting_as(uid, MEMBER[1], *gids):
        try:
            return bool(path.read_bytes())
        except PermissionError:
            return False


def announced(patient: FaultyDevice) -> dict[str, object]:
    told: dict[str, object] = json.loads((patient.directory / "run" / "identity.json").read_text())
    return told


@pytest.mark.needs_root
def test_by_default_nobody_else_can_read_anything(patient: FaultyDevice) -> None:
    start(patient)
    for name in ("key.pem", "certificate.pem"):
        assert not readable(patient.state / "current" / name, GID)
    assert patient.state.stat().st_mode & 0o7777 == 0o700


@pytest.mark.needs_root
def test_the_group_reads_the_active_identity_and_nothing_else(patient: FaultyDevice) -> None:
    share(patient)
    promoted(patient)  # its identity is on disk, but not active yet
    start(patient)
    current = patient.state / "current"
    assert readable(current / "key.pem", GID)
    assert readable(current / "certificate.pem", GID)
    assert not readable(current / "key.pem")
    assert not readable(patient.state / "identities" / NEXT / "key.pem", GID)
    assert not readable(patient.state / "state.json", GID)
    assert not readable(current / "csr.pem", GID)
    with acting_as(*MEMBER, GID), pytest.raises(PermissionError):
        list(patient.state.iterdir())
    assert current.joinpath("key.pem").stat().st_mode & 0o7777 == 0o640


class Watcher:
    """A store that notes whether the group can read the active identity when the record is saved, and can fail."""

    def __init__(self, patient: FaultyDevice) -> None:
        self.patient, self.seen, self.full = patient, list[bool](), False

    def disk(self) -> OnDisk:
        return OnDisk((), frozenset(), None)

    def save(self, record: Record) -> None:
        assert record.active is not None
        key = self.patient.state / "identities" / record.active.label / "key.pem"
        self.seen.append(readable(key, GID))
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")


@pytest.mark.needs_root
@pytest.mark.parametrize("planted", [False, True])
def test_a_new_identity_is_open_before_current_points_at_it(
    patient: FaultyDevice, monkeypatch: pytest.MonkeyPatch, *, planted: bool
) -> None:
    share(patient)
    watcher = Watcher(patient)
    daemon = start(patient, watcher)
    if planted:
        monkeypatch.setattr(ApplicationAccess, "prepare", lambda *_: None)
    daemon.save(promoted(patient))
    assert watcher.seen[-1] is not planted


@pytest.mark.needs_root
def test_what_could_not_be_saved_is_not_announced(patient: FaultyDevice) -> None:
    watcher = Watcher(patient)
    daemon = start(patient, watcher)
    before = announced(patient)
    watcher.full = True
    assert not daemon.save(promoted(patient))
    daemon.applications.reload(patient.settings())
    assert announced(patient) == before
    watcher.full = False
    assert daemon.save(promoted(patient))
    assert announced(patient)["certificate_id"] == "ff"


def test_a_full_disk_at_the_start_hides_no_identity_from_applications(patient: FaultyDevice) -> None:
    watcher = Watcher(patient)
    watcher.full = True
    daemon = start(patient, watcher)
    assert daemon.cycle.trouble is not None
    assert announced(patient)["key"] == str(patient.identity / "key.pem")


@pytest.mark.needs_root
def test_without_the_setting_everything_is_closed_again(patient: FaultyDevice) -> None:
    share(patient)
    start(patient)
    share(patient, None)
    start(patient)
    assert not readable(patient.state / "current" / "key.pem", GID)
    for path in (patient.state, patient.state / "identities", patient.identity):
        assert path.stat().st_mode & 0o7777 == 0o700
    assert (patient.identity / "key.pem").stat().st_mode & 0o7777 == 0o600
    assert patient.worries().keys() == {"network.tcp", "clock.trust"}


@pytest.mark.needs_root
def test_an_identity_that_is_not_active_any_more_is_closed_at_the_next_start(patient: FaultyDevice) -> None:
    share(patient)
    daemon = start(patient)
    patient.record = promoted(patient)
    daemon.save(patient.record)
    assert readable(patient.identity / "key.pem", GID), "who has it open may finish"
    start(patient)
    assert not readable(patient.identity / "key.pem", GID)
    assert readable(patient.state / "current" / "key.pem", GID)


def test_the_announcement_follows_the_active_identity(patient: FaultyDevice) -> None:
    daemon = start(patient)
    first = announced(patient)
    assert patient.record.active is not None
    assert first == {
        "schema": 1,
        "thing": "SN-0001",
        "endpoint": "localhost",
        "port": patient.settings().endpoint_port,
        "endpoint_ca": str(patient.directory / "endpoint-ca.pem"),
        "certificate": str(patient.identity / "certificate.pem"),
        "key": str(patient.identity / "key.pem"),
        "chain": None,
        "certificate_id": patient.record.active.certificate.certificate_id,
        "not_before": patient.record.active.certificate.not_before,
        "not_after": patient.record.active.certificate.not_after,
    }
    daemon.save(promoted(patient))
    second = announced(patient)
    assert (second["certificate_id"], second["chain"]) == ("ff", str(patient.state / "identities" / NEXT / "chain.pem"))
    assert Path(str(second["key"])).samefile(patient.state / "current" / "key.pem")
    patient.configure(8884)
    daemon.applications.reload(patient.settings())
    assert announced(patient)["port"] == 8884


def test_nobody_is_woken_for_nothing(patient: FaultyDevice) -> None:
    daemon = start(patient)
    path = patient.directory / "run" / "identity.json"
    before = path.stat()
    daemon.save(replace(patient.record, attempt=3))
    start(patient)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_device_without_a_certificate_announces_none(patient: FaultyDevice) -> None:
    daemon = start(patient)
    daemon.save(Record("SN-0001"))
    assert not (patient.directory / "run" / "identity.json").exists()


def test_the_record_is_saved_whatever_happens_to_applications(
    patient: FaultyDevice, caplog: pytest.LogCaptureFixture
) -> None:
    share(patient, "nobody-has-this-group")
    (patient.directory / "run").rmdir()
    with caplog.at_level(logging.WARNING):
        daemon = start(patient)
        daemon.save(promoted(patient))
    assert (patient.state / "current").readlink().name == NEXT
    assert "group nobody-has-this-group cannot be given the identity" in caplog.text
    assert "applications could not be told" in caplog.text


def test_no_link_is_followed_to_a_file_of_somebody_else(patient: FaultyDevice) -> None:
    share(patient)
    foreign = patient.directory / "foreign"
    foreign.write_text("not ours")
    foreign.chmod(0o600)
    (patient.identity / "key.pem").unlink()
    (patient.identity / "key.pem").symlink_to(foreign)
    start(patient)
    assert foreign.stat().st_mode & 0o7777 == 0o600


def a_pipe_for_the_key(patient: FaultyDevice) -> None:
    (patient.identity / "key.pem").unlink()
    os.mkfifo(patient.identity / "key.pem", 0o600)


def a_pipe_for_the_announcement(patient: FaultyDevice) -> None:
    os.mkfifo(patient.directory / "run" / "identity.json")


def a_directory_for_the_announcement(patient: FaultyDevice) -> None:
    (patient.directory / "run" / "identity.json").mkdir()


def a_label_that_leads_elsewhere(patient: FaultyDevice) -> None:
    assert patient.record.active is not None
    patient.record = replace(patient.record, active=replace(patient.record.active, label="../../etc"))


ODD = [a_pipe_for_the_key, a_pipe_for_the_announcement, a_directory_for_the_announcement, a_label_that_leads_elsewhere]


@pytest.mark.parametrize("spoil", ODD)
def test_nothing_that_lies_in_the_way_holds_up_the_record(
    patient: FaultyDevice, spoil: Callable[[FaultyDevice], None]
) -> None:
    share(patient)
    spoil(patient)
    daemon = start(patient)
    daemon.save(promoted(patient))
    assert (patient.state / "current").readlink().name == NEXT


@pytest.mark.needs_root
def test_the_doctor_knows_what_is_shared_on_purpose(patient: FaultyDevice) -> None:
    share(patient)
    found = patient.worries()
    assert "cannot use" in found["files.group"].message, "the agent has not been restarted yet"
    start(patient)
    assert "files.group" not in patient.worries()
    (patient.identity / "key.pem").chmod(0o644)
    assert "everybody" in patient.worries()["files.mode"].message
    (patient.identity / "key.pem").chmod(0o660)
    assert patient.worries()["files.mode"].level is Level.ERROR
    share(patient, "nobody-has-this-group")
    assert "there is no group" in patient.worries()["files.group"].message


@pytest.mark.needs_root
def test_a_key_on_a_token_is_named_by_its_uri(patient: FaultyDevice) -> None:
    uri = "pkcs11:token=iot-agent;object=iot-agent-1;type=private?module-path=/usr/lib/module.so"
    (patient.identity / "key.pem").unlink()
    (patient.identity / "key.uri").write_text(uri + "\n")
    share(patient)
    start(patient)
    assert announced(patient)["key"] == uri
    assert readable(patient.state / "current" / "certificate.pem", GID)


@pytest.mark.needs_root
def test_modes_are_set_only_where_they_differ(patient: FaultyDevice) -> None:
    path = patient.identity / "key.pem"
    application_access._set(path, 0o640, GID)
    changed = path.stat().st_ctime_ns
    application_access._set(path, 0o640, GID)
    assert path.stat().st_ctime_ns == changed
