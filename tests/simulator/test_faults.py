"""What could strand a device or flood the cloud: wrong clocks, damaged identities, old records, long silence."""

import errno
import itertools
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from iot_agent.core import lifecycle
from iot_agent.core.lifecycle import LONG_SILENCE
from iot_agent.core.record import Record, State, Step
from iot_agent.resident import cycle
from iot_agent.storage import atomic
from iot_agent.worker import steps
from tests.powercut.renames import Renames
from tests.simulator.cloud import Faults
from tests.simulator.device import LIFETIME, POLICY, SERIAL, NoProgress, SimulatedDevice
from tests.simulator.fuse import Crash, Fuse

YEARS = 10 * 365 * 86400.0
DAY = 86400.0


class Outage(Faults):
    """Nothing of the cloud can be reached, until it is `over`."""

    over = False

    def out_of_reach(self) -> bool:
        return not self.over


class Silence(Faults):
    """Requests arrive, answers do not, until it is `over`."""

    over = False

    def lose_reply(self, _topic: str) -> bool:
        return not self.over


def in_service(disk: Path) -> SimulatedDevice:
    disk.mkdir(exist_ok=True)
    device = SimulatedDevice(disk)
    device.life(1)
    return device


def label(device: SimulatedDevice) -> str:
    assert device.record.active is not None
    return device.record.active.label


def renewal(device: SimulatedDevice) -> float:
    return lifecycle.renewal_due(device.record)


def struggle(device: SimulatedDevice, turns: int) -> list[float]:
    """Live on in vain; gives the instants of the attempts, by a clock that is right."""
    attempts = []
    for _ in range(turns):
        before = device.record.attempt
        device.turn()
        if device.record.attempt > before:
            attempts.append(device.time())
    return attempts


# ---- clocks ----------------------------------------------------------------------------------------------------------


def recover_from_a_clock(device: SimulatedDevice, errors: list[float], *, restarts: bool) -> float:
    """Have each attempt fail under another error of the clock; then all is right. Gives how long it took then."""
    outage = Outage()
    device.faults = outage
    for error in errors:
        device.clock.error = error
        if restarts:
            device.boot()
        struggle(device, 3)
    outage.over = True
    device.clock.error = 0
    if restarts:
        device.boot()
    begun, rotations = device.time(), device.record.rotations
    while device.record.rotations == rotations:
        assert device.time() < begun + 10 * POLICY.retry_cap, device.cycle.decide()
        device.turn()
    return device.time() - begun


ERRORS = [[YEARS], [-YEARS], [YEARS, 0, YEARS], [720, -720, YEARS, -YEARS], [0]]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("errors", ERRORS)
def test_whatever_the_clock_said_while_something_failed_the_wait_ends(
    errors: list[float], disk: Path, *, restarts: bool
) -> None:
    device = in_service(disk)
    device.time.now = renewal(device) + 1
    recover_from_a_clock(device, errors, restarts=restarts)
    device.life(2)
    device.check_settled()


@pytest.mark.parametrize("errors", ERRORS)
def test_the_same_in_the_middle_of_a_rotation(errors: list[float], disk: Path) -> None:
    device = in_service(disk)
    device.time.now = renewal(device) + 1
    while device.record.state is not State.ROTATED:
        device.turn()
    recover_from_a_clock(device, errors, restarts=False)


def test_a_check_in_that_was_set_by_a_clock_ahead_is_not_put_off_for_years(disk: Path) -> None:
    device = in_service(disk)
    device.clock.error = YEARS / 1000
    device.time.now += POLICY.check_in_interval
    device.turn()
    device.clock.error = 0
    heard = device.record.last_contact
    struggle(device, 5)
    assert device.record.last_contact != heard


def test_with_a_clock_that_is_slow_few_certificates_are_asked_for_and_none_is_left_over(disk: Path) -> None:
    """For a day no certificate is valid yet by the device's clock."""
    device = SimulatedDevice(disk)
    device.clock.error = -2 * LIFETIME
    begun = device.time()
    while device.time() < begun + DAY:
        device.turn()
        assert device.labels - 10 <= (device.time() - begun) / (POLICY.retry_cap / 2), "certificates without a pause"
        assert len(list((device.disk / "identities").glob("*"))) <= 2, "keys pile up"
    device.clock.error = 0
    device.life(1)
    device.check_settled()


# ---- damage ----------------------------------------------------------------------------------------------------------


def flipped(directory: Path) -> None:
    path = directory / "certificate.pem"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def empty_key(directory: Path) -> None:
    (directory / "key.pem").write_bytes(b"")


def missing_key(directory: Path) -> None:
    (directory / "key.pem").unlink()


def no_certificate(directory: Path) -> None:
    (directory / "certificate.pem").unlink()


def no_facts(directory: Path) -> None:
    (directory / "identity.json").write_bytes(b"\0" * 100)


def gone(directory: Path) -> None:
    shutil.rmtree(directory)


def a_link(directory: Path) -> None:
    (directory / "key.pem").unlink()
    (directory / "key.pem").symlink_to("/nowhere")


UNUSABLE = [flipped, empty_key, missing_key, no_certificate, gone, a_link]


def comes_back_after(damage: Callable[[Path], None], device: SimulatedDevice) -> None:
    damage(device.disk / "identities" / label(device))
    device.boot()
    attempts = struggle(device, 60)
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert min(pauses[8:]) >= POLICY.retry_cap / 2 - 1, "the pauses do not grow"
    assert device.labels <= 4, "a new key at each attempt"
    device.cloud.readmit(SERIAL, 10 * DAY)
    device.life(device.record.rotations + 1)
    device.check_settled()


@pytest.mark.parametrize("damage", UNUSABLE)
@pytest.mark.parametrize("due", [False, True])
def test_a_device_whose_active_identity_is_damaged_comes_back_when_it_is_readmitted(
    damage: Callable[[Path], None], disk: Path, *, due: bool
) -> None:
    device = in_service(disk)
    if due:
        device.time.now = renewal(device) + 1
    comes_back_after(damage, device)


def test_a_key_that_is_away_for_a_while_is_used_again_when_it_returns(disk: Path) -> None:
    device = in_service(disk)
    served = label(device)
    key = device.disk / "identities" / served / "key.pem"
    key.rename(key.with_name("away"))
    device.boot()
    struggle(device, 30)
    key.with_name("away").rename(key)
    device.life(2)
    device.check_settled()


@pytest.mark.parametrize("damage", [flipped, empty_key, no_facts, gone])
def test_a_new_certificate_that_is_damaged_before_it_is_proven_is_given_up(
    damage: Callable[[Path], None], disk: Path
) -> None:
    device = in_service(disk)
    device.time.now = renewal(device) + 1
    while device.record.state is not State.ROTATED:
        device.turn()
    assert device.record.pending is not None
    damage(device.disk / "identities" / device.record.pending.label)
    device.life(2)
    device.check_settled()


def pending_key(device: SimulatedDevice) -> Path:
    device.faults = Silence()
    device.time.now = renewal(device) + 1
    struggle(device, 4)
    device.faults = Faults()
    assert device.record.pending is not None
    assert device.record.pending.certificate is None
    return device.disk / "identities" / device.record.pending.label


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\0", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
@pytest.mark.parametrize("name", ["csr.pem", "key.pem"])
def test_a_pending_key_that_cannot_be_used_is_made_again(name: str, content: bytes | None, disk: Path) -> None:
    device = in_service(disk)
    path = pending_key(device) / name
    path.unlink() if content is None else path.write_bytes(content)
    made = device.labels
    device.life(2)
    device.check_settled()
    assert device.labels - made == (1 if name == "key.pem" else 0), "the CSR is made again from the key"


# ---- old records -----------------------------------------------------------------------------------------------------


def lose_one_save_everywhere(disk: Path) -> None:
    """Lose the power at every third effect of a life, and with it the rename of the last save."""
    (disk / "counted").mkdir()
    counted = SimulatedDevice(disk / "counted")
    counted.fuse = Fuse()
    counted.life(3)
    for at in range(1, counted.fuse.count + 1, 3):
        place = disk / f"at-{at}"
        place.mkdir()
        device = SimulatedDevice(place)
        device.fuse = Fuse(lambda count, _name, at=at: count == at)  # type: ignore[misc]  # binds the loop's value
        with pytest.raises(Crash):
            device.life(3)
        previous = place / "state.json.previous"
        if previous.exists():
            shutil.copy(previous, place / "state.json")
        device.check_never_bricked()
        device.fuse = Fuse()
        device.life(3)
        device.check_settled()
        shutil.rmtree(place)


def test_a_record_that_is_one_save_older_than_the_disk_loses_nothing(disk: Path) -> None:
    lose_one_save_everywhere(disk)


@pytest.mark.parametrize("names", [("state.json",), ("state.json", "state.json.previous")])
def test_a_record_that_is_lost_while_a_certificate_is_proven_loses_nothing(names: tuple[str, ...], disk: Path) -> None:
    """The cloud commits, its answers are lost, the record is lost: the accepted certificate is found on the disk."""
    device = in_service(disk)
    device.time.now = renewal(device) + 1
    while device.record.state is not State.ROTATED:
        device.turn()
    device.faults = Silence()
    struggle(device, 3)
    device.faults = Faults()
    for name in names:
        (disk / name).write_bytes(b"\0" * 100)
    device.boot()
    device.life(1)
    device.check_never_bricked()
    assert device.record.active is not None
    assert device.cloud.active() == [device.record.active.certificate.certificate_id]


def test_an_identity_stays_whole_while_current_still_names_it(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applications follow `current`. It cannot be changed for a while; what it names is deleted after that."""
    device = in_service(disk)
    before = label(device)
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "point", Mock(side_effect=OSError(errno.EIO, "of the disk")))
        device.time.now = renewal(device) + 1
        struggle(device, 20)
        assert label(device) != before
        assert (disk / "current").resolve() in {path.parent for path in device.complete_identities().values()}
    device.life(2)
    for _ in range(3):  # the deletion that failed is tried again after the longest pause
        device.turn()
    device.check_settled()


# ---- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [State.UNPROVISIONED, State.JITP, State.ROTATED, State.ACKED])
@pytest.mark.parametrize("kind", [Silence, Outage])
def test_however_long_the_cloud_is_silent_the_device_goes_on_afterwards(
    kind: type[Silence] | type[Outage], until: State, disk: Path
) -> None:
    device = SimulatedDevice(disk)
    if until is State.ACKED:
        device.life(1)
    while device.record.state is not until:
        device.turn()
    quiet = kind()
    device.faults = quiet
    attempts = struggle(device, 80)
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert min(pauses[8:], default=1e9) >= 1
    quiet.over = True
    with suppress(NoProgress):
        device.life(device.record.rotations + 1, turns=40)
    device.cloud.readmit(SERIAL, 10 * DAY)  # its certificate may have expired meanwhile
    device.life(device.record.rotations + 1)
    device.check_settled()


def test_silence_never_has_the_cloud_issue_more_than_a_few(disk: Path) -> None:
    device = in_service(disk)
    device.time.now = renewal(device) + 1
    device.faults = Silence()
    struggle(device, 60)
    assert device.labels <= 3


# ---- planted bugs ----------------------------------------------------------------------------------------------------


def planted_wait_on_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold back by the wall clock, sliding with it."""

    def decide(self: cycle.Cycle) -> Step:
        now = self.means.clock.now()
        left = min(self.record.waiting_since + self.record.wait - now, POLICY.retry_cap)
        return lifecycle.decide(self.record, now, POLICY, self.record.wait - left)

    monkeypatch.setattr(cycle.Cycle, "decide", decide)


def planted_count_that_a_new_key_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = lifecycle.begin

    def begin(record: Record, *arguments: object) -> Record:
        begun: Record = honest(record, *arguments)  # type: ignore[arg-type]  # passed through
        return lifecycle.reset_backoff(begun) if begun != record else begun

    monkeypatch.setattr(lifecycle, "begin", begin)


def planted_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "turn", lambda _record: None)


def planted_forgetful_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither look at the disk at boot, nor for a stored certificate before asking."""
    monkeypatch.setattr(cycle, "reconcile", lambda record, *_: record)


@pytest.mark.parametrize(
    ("plant", "life"),
    [
        (
            planted_wait_on_the_wall_clock,
            lambda disk: test_the_same_in_the_middle_of_a_rotation([YEARS], disk),
        ),
        (
            planted_count_that_a_new_key_resets,
            test_with_a_clock_that_is_slow_few_certificates_are_asked_for_and_none_is_left_over,
        ),
        (planted_no_fallback, lambda disk: comes_back_after(missing_key, in_service(disk))),
        (
            planted_forgetful_boot,
            lambda disk: test_a_record_that_is_lost_while_a_certificate_is_proven_loses_nothing(
                ("state.json", "state.json.previous"), disk
            ),
        ),
    ],
)
def test_a_planted_bug_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None],
    life: Callable[[Path], object],
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, NoProgress)):
        life(disk)


def test_the_bounds_of_this_file_are_the_rules() -> None:
    assert LONG_SILENCE * POLICY.prove_attempts < 80
    assert steps.MOST_AT_ONCE < lifecycle.MOST_TO_DELETE


def test_a_certificate_whose_directory_could_not_be_synced_is_stored_again(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, failed = atomic.sync_directory, list[Path]()

    def sync(path: Path) -> None:
        if (path / "identity.json").exists() and not failed:
            failed.append(path)
            raise OSError(errno.EIO, "the disk failed once")
        honest(path)

    device, renames = SimulatedDevice(disk), Renames(disk.resolve())
    monkeypatch.setattr(atomic, "sync_directory", sync)
    with renames.watched():
        assert device.life(0).state is State.ACKED
    assert len(failed) == 1
    assert renames.unsynced == (), "a power cut would undo them, though the record relies on them"
