"""What can go wrong with a token, on SoftHSM and on a software TPM; what must never happen to it."""

import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.local.tokens import LABEL, PIN, SO_PIN, SoftTpm
from iot_agent.core.errors import AgentError, Fatal, Retryable
from iot_agent.core.record import Failed, Generated, Kind, Pending, Retired
from iot_agent.keys import token as adapter
from iot_agent.worker import steps
from tests.harness import PATIENCE, gone, wait_for
from tests.keys.bench import FIRST, ROOT, SECOND, THIRD, Bench, connect, in_a_process
from tests.keys.broker import MutualTls, mutual_tls
from tests.keys.conftest import Meddler
from tests.simulator.authority import Authority

WRONG = "not-the-pin"
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
DEVICE_MEMORY, PIN_LOCKED, MECHANISM_INVALID, DEVICE_REMOVED = "49", "164", "112", "50"  # CK_RV


def refused(act: Callable[[], Any]) -> AgentError:
    with pytest.raises(AgentError) as caught:
        act()
    return caught.value


# ---- keys stay on the token -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ec-p256", "rsa-2048"])
def test_another_program_reads_that_the_key_can_not_leave_the_token(on_token: Bench, algorithm: str) -> None:
    on_token.keys.generate(FIRST, algorithm)
    assert on_token.local is not None
    shown = on_token.local.tool("--list-objects", "--type", "privkey")
    access = next(line for line in shown.splitlines() if "Access:" in line)
    assert access.split(":")[1].strip() == "sensitive, always sensitive, never extractable, local"


def test_bug_planted_a_key_that_could_leave_the_token_is_not_kept(
    on_token: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "PROGRAM", "tests.keys.extractable")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    problem = refused(lambda: on_token.keys.generate(FIRST, "ec-p256"))
    assert (type(problem), problem.code) == (Fatal, "key-store")
    said = "could leave it (EXTRACTABLE, NEVER_EXTRACTABLE)" if on_token.is_softhsm else "AttributeValueInvalid"
    assert said in str(problem), "SoftHSM makes it, and we destroy it; the TPM's module does not make it"
    assert on_token.objects() == []


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_a_key_under_our_label_that_could_leave_the_token_is_not_taken_for_ours(on_token: Bench) -> None:
    """Made by somebody else, or by a crash before it was read back."""
    assert on_token.local is not None
    make = ("--keypairgen", "--key-type", "EC:prime256v1", "--label", FIRST, "--id", "01", "--extractable")
    on_token.local.tool(*make)
    problem = refused(lambda: on_token.keys.generate(FIRST, "ec-p256"))
    assert (type(problem), problem.code) == (Fatal, "key-store")
    assert on_token.objects() == []


def test_only_our_own_keys_are_collected(on_token: Bench) -> None:
    assert on_token.local is not None
    foreign = ["iot-agent-bootstrap", "iot-agent-20260101", "somebody"]
    for number, label in enumerate(foreign):
        make = ("--keypairgen", "--key-type", "EC:prime256v1", "--label", label, "--id", f"0{number}")
        on_token.local.tool(*make)
    for label in (FIRST, SECOND):
        on_token.make(label)
    on_token.keys.generate(THIRD, "ec-p256")
    (on_token.state / "identities" / THIRD / "key.uri").unlink()
    (on_token.state / "identities" / THIRD).rmdir()
    assert steps.retire(on_token.in_force(SECOND), 0, on_token.context()) == Retired((FIRST, THIRD))
    assert on_token.objects() == sorted([*foreign, *foreign, SECOND, SECOND])


def test_bug_planted_an_agent_that_takes_every_key_for_its_own_is_caught(
    on_token: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "PROGRAM", "tests.keys.greedy")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(AssertionError):
        test_only_our_own_keys_are_collected(on_token)


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_a_key_that_was_begun_elsewhere_is_made_where_the_settings_say_now(on_token: Bench) -> None:
    """The settings change between two attempts at one key: a token that is away must not hold the device up."""
    in_a_file = Bench(on_token.state, "ec-p256")
    on_token.make(FIRST)
    in_a_file.make(FIRST)
    assert {path.name for path in (on_token.state / "identities" / FIRST).iterdir()} == {"csr.pem", "key.pem"}
    on_token.make(FIRST)
    assert {path.name for path in (on_token.state / "identities" / FIRST).iterdir()} == {"csr.pem", "key.uri"}
    csr = x509.load_pem_x509_csr((on_token.state / "identities" / FIRST / "csr.pem").read_bytes())
    der = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert der == on_token.keys.public_key(FIRST)


def test_a_damaged_reference_is_said_to_be_damaged(on_token: Bench) -> None:
    on_token.make(FIRST)
    (on_token.state / "identities" / FIRST / "key.uri").write_text("pkcs11:token=")
    problem = refused(lambda: on_token.keys.csr(FIRST, "SN-0001"))
    assert (type(problem), problem.code) == (Fatal, "key-store")
    assert "cannot tell from" in str(problem)


# ---- the PIN --------------------------------------------------------------------------------------------------------


def write_pin(bench: Bench, pin: str) -> None:
    assert bench.local is not None
    bench.local.pin_file.write_text(f"{pin}\n")


def test_a_wrong_pin_is_tried_once_and_a_corrected_one_at_once(on_token: Bench, meddler: Meddler) -> None:
    on_token.make(FIRST)
    before = meddler.calls(Meddler.LOGIN)
    write_pin(on_token, WRONG)
    for act in (on_token.keys.labels, lambda: on_token.keys.csr(FIRST, "SN-0001"), on_token.keys.labels):
        problem = refused(act)
        assert (type(problem), problem.code) == (Retryable, "pin-refused")
    assert meddler.calls(Meddler.LOGIN) == before + 1
    write_pin(on_token, PIN)
    assert on_token.keys.labels() == {FIRST}
    write_pin(on_token, WRONG + "!")
    assert refused(on_token.keys.labels).code == "pin-refused"
    assert meddler.calls(Meddler.LOGIN) == before + 3


def test_a_wrong_pin_is_tried_once_by_tls_too(
    on_token: Bench,
    meddler: Meddler,
    devices: Authority,
    broker: MutualTls,
) -> None:
    on_token.make(FIRST)
    on_token.certify(FIRST, devices)
    before = meddler.calls(Meddler.LOGIN)
    write_pin(on_token, WRONG)
    assert connect(on_token, FIRST, broker)["error"] == "pin-refused"
    assert connect(on_token, FIRST, broker)["error"] == "pin-refused"
    assert refused(on_token.keys.labels).code == "pin-refused"
    assert meddler.calls(Meddler.LOGIN) == before + 1
    write_pin(on_token, PIN)
    assert connect(on_token, FIRST, broker)["error"] == ""


@pytest.mark.parametrize("on_token", ["tpm"], indirect=True)
def test_the_tpm_itself_has_counted_one_attempt(on_token: Bench, tpm: SoftTpm) -> None:
    before = tpm.wrong_pins()
    write_pin(on_token, WRONG)
    for _ in range(3):
        assert refused(on_token.keys.labels).code == "pin-refused"
    assert tpm.wrong_pins() == before + 1


@pytest.mark.parametrize("on_token", ["tpm"], indirect=True)
def test_a_tpm_that_somebody_has_locked_is_left_alone_for_an_hour_and_then_serves_again(
    on_token: Bench, tpm: SoftTpm
) -> None:
    on_token.make(FIRST)
    assert on_token.local is not None
    for number in range(3):
        with pytest.raises(OSError, match="CKR_PIN_INCORRECT"):
            on_token.local.tool("--list-objects", pin=f"guess {number}")
    problem = refused(on_token.keys.labels)
    assert (type(problem), problem.code, problem.retry_after) == (Retryable, "pin-locked", 3600)
    tpm.unlock()
    assert on_token.keys.csr(FIRST, "SN-0001")


def test_a_touched_pin_file_is_tried_once_more(on_token: Bench, meddler: Meddler) -> None:
    write_pin(on_token, WRONG)
    assert refused(on_token.keys.labels).code == "pin-refused"
    assert on_token.local is not None
    os.utime(on_token.local.pin_file, ns=(0, 0))
    assert refused(on_token.keys.labels).code == "pin-refused"
    assert refused(on_token.keys.labels).code == "pin-refused"
    assert meddler.calls(Meddler.LOGIN) == 2


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"salt": "zz"}', "\0" * 64])
def test_a_damaged_memory_of_a_refusal_does_not_keep_the_device_from_its_key(on_token: Bench, content: str) -> None:
    on_token.make(FIRST)
    write_pin(on_token, WRONG)
    assert refused(on_token.keys.labels).code == "pin-refused"
    (memory,) = on_token.state.glob("pin-refused-*")
    assert memory.stat().st_mode & 0o777 == 0o600
    memory.write_text(content)
    write_pin(on_token, PIN)
    assert on_token.keys.csr(FIRST, "SN-0001")


def test_bug_planted_an_agent_that_forgets_refusals_is_caught(
    on_token: Bench, meddler: Meddler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "PROGRAM", "tests.keys.forgetful")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(AssertionError):
        test_a_wrong_pin_is_tried_once_and_a_corrected_one_at_once(on_token, meddler)


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_a_locked_token_is_left_alone_for_an_hour(on_token: Bench, meddler: Meddler) -> None:
    meddler.spoil(Meddler.LOGIN, "b", PIN_LOCKED)
    problem = refused(on_token.keys.labels)
    assert (type(problem), problem.code, problem.retry_after) == (Retryable, "pin-locked", 3600)
    meddler.mend()
    assert on_token.keys.labels() == set()


def test_a_credential_of_the_unit_serves_as_pin(on_token: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_token.token is not None
    credentials = replace(on_token.token, pin_source="credential:token-pin")
    keys = adapter.TokenKeys(on_token.state, credentials, PATIENCE)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "the unit loads none" in str(refused(keys.labels))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(on_token.state))
    assert refused(keys.labels).code == "pin"
    (on_token.state / "token-pin").write_text(PIN)
    assert keys.labels() == set()


@pytest.mark.needs_root
@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda pin: pin.unlink(), "No such file"),
        (lambda pin: pin.chmod(0o640), "mode 0600"),
        (lambda pin: os.chown(pin, 12345, 0), "user 12345"),
        (lambda pin: pin.write_text("\n"), "holds no PIN"),
        (lambda pin: pin.write_bytes(b"\xff"), "cannot read"),
        (lambda pin: (pin.unlink(), pin.mkdir(mode=0o700)), "directory"),
    ],
    ids=["missing", "readable by others", "of another user", "empty", "not text", "a directory"],
)
def test_a_pin_that_is_not_private_or_not_there_is_not_used(
    on_token: Bench, meddler: Meddler, spoil: Callable[[Path], None], said: str
) -> None:
    assert on_token.local is not None
    spoil(on_token.local.pin_file)
    problem = refused(on_token.keys.labels)
    assert (type(problem), problem.code) == (Retryable, "pin")
    assert said in str(problem)
    assert meddler.calls(Meddler.LOGIN) == 0


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_the_pin_is_nowhere_but_in_the_process_that_uses_it(
    on_token: Bench,
    meddler: Meddler,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Looked for while a login hangs, in every process's arguments and environment; afterwards in words and files."""
    on_token.make(FIRST)
    before = meddler.calls(Meddler.LOGIN)
    meddler.spoil(Meddler.LOGIN, "a", "h")
    asked = {"state": str(on_token.state), "token": vars(on_token.token), "label": SECOND, "algorithm": "ec-p256"}
    generating = in_a_process("generate", asked)
    child = wait_for(lambda: children(generating.pid))[0]
    wait_for(lambda: meddler.calls(Meddler.LOGIN) > before)
    seen = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended
        assert PIN.encode() not in shown, process
        seen += 1
    assert seen > 2
    limits = Path(f"/proc/{child}/limits").read_text()
    assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]
    generating.kill()
    wait_for(lambda: gone(child))
    meddler.mend()
    write_pin(on_token, WRONG)
    assert refused(on_token.keys.labels).code == "pin-refused"
    told = "".join(capfd.readouterr()) + "".join(generating.communicate())
    assert PIN not in told
    assert WRONG not in told
    for path in on_token.state.rglob("*"):
        if path.is_file():
            assert PIN.encode() not in path.read_bytes(), path
            assert WRONG.encode() not in path.read_bytes(), path


def test_the_process_can_neither_dump_core_nor_be_read_by_others() -> None:
    asks = "from iot_agent.host.hardening import *; keep_private(); print(ctypes.CDLL(None).prctl(3))"
    shown = subprocess.run((sys.executable, "-c", asks), capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout == "0\n"


def children(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_a_server_that_speaks_tls_1_3_alone_is_named_for_what_it_is(
    on_token: Bench, devices: Authority, tmp_path: Path
) -> None:
    on_token.make(FIRST)
    on_token.certify(FIRST, devices)
    with mutual_tls(tmp_path, devices, Authority("Server CA", devices.born), (V13, V13)) as modern:
        told = connect(on_token, FIRST, modern)
    assert told["error"] == "unreachable"
    assert "a key on a token can speak TLS 1.2 only" in told["message"], told


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
@pytest.mark.parametrize("highest", [V12, V13], ids=lambda version: version.name)
def test_a_server_that_takes_tls_1_2_and_not_the_certificate_refuses_it(
    on_token: Bench, devices: Authority, tmp_path: Path, highest: ssl.TLSVersion
) -> None:
    on_token.make(FIRST)
    on_token.certify(FIRST, devices)
    others, servers = Authority("Other devices", devices.born), Authority("Server CA", devices.born)
    with mutual_tls(tmp_path, others, servers, (V12, highest)) as broker:
        told = connect(on_token, FIRST, broker)
    assert told["error"] == "refused", told
    assert "TLS 1.2 only" not in told["message"]


# ---- the module and the token fail ----------------------------------------------------------------------------------


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
@pytest.mark.parametrize("content", [None, "not a library"], ids=["missing", "not a library"])
def test_a_module_that_cannot_be_loaded(on_token: Bench, tmp_path: Path, content: str | None) -> None:
    on_token.make(FIRST)
    assert on_token.local is not None
    on_token.local.module = tmp_path / "module.so"
    if content is not None:
        on_token.local.module.write_text(content)
    problem = refused(lambda: on_token.keys.csr(FIRST, "SN-0001"))
    assert (type(problem), problem.code) == (Retryable, "token")
    assert str(on_token.local.module) in str(problem)


POINTS = {
    "as the module is initialised": (Meddler.INITIALIZE, "b"),
    "before the login": (Meddler.LOGIN, "b"),
    "before the key is made": (Meddler.GENERATE, "b"),
    "after the key was made": (Meddler.GENERATE, "a"),
    "before the signature": (Meddler.SIGN, "b"),
    "before the first half is destroyed": (Meddler.DESTROY, "b"),
    "after the first half was destroyed": (Meddler.DESTROY, "a"),
}


@pytest.mark.parametrize(("function", "when"), POINTS.values(), ids=POINTS)
def test_a_module_that_crashes_costs_one_attempt(on_token: Bench, meddler: Meddler, function: int, when: str) -> None:
    """Whatever a crash leaves half done, the next attempt completes, and nothing is left over."""

    def live() -> None:
        on_token.make(FIRST)
        on_token.keys.remove(FIRST)

    meddler.spoil(function, when, "c")
    problem = refused(live)
    assert (type(problem), problem.code) == (Retryable, "token")
    assert "SIGABRT" in str(problem)
    meddler.mend()
    on_token.make(FIRST)
    assert on_token.objects() == [FIRST, FIRST]
    on_token.keys.remove(FIRST)
    assert on_token.objects() == []


@pytest.mark.parametrize("function", [Meddler.INITIALIZE, Meddler.LOGIN, Meddler.GENERATE])
def test_a_module_that_hangs_is_stopped(on_token: Bench, meddler: Meddler, function: int) -> None:
    on_token.limit = 1.5
    meddler.spoil(function, "b", "h")
    problem = refused(lambda: on_token.keys.generate(FIRST, "ec-p256"))
    assert (type(problem), problem.code) == (Retryable, "token")
    assert "hung and was stopped" in str(problem)
    meddler.mend()
    on_token.limit = PATIENCE
    on_token.make(FIRST)


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_a_hanging_module_ends_with_the_process_that_waits_for_it(on_token: Bench, meddler: Meddler) -> None:
    meddler.spoil(Meddler.LOGIN, "b", "h")
    asked = {"state": str(on_token.state), "token": vars(on_token.token), "label": FIRST, "algorithm": "ec-p256"}
    waiting = in_a_process("generate", asked)
    child = wait_for(lambda: children(waiting.pid))[0]
    wait_for(lambda: meddler.calls(Meddler.LOGIN))
    waiting.kill()
    wait_for(lambda: gone(child))
    waiting.communicate()


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_a_token_that_is_taken_away_and_comes_back(on_token: Bench) -> None:
    on_token.make(FIRST)
    before = on_token.keys.public_key(FIRST)
    assert on_token.local is not None
    objects = on_token.local.directory / "tokens"
    objects.rename(objects.with_name("elsewhere"))
    objects.mkdir()
    for act in (on_token.keys.labels, lambda: on_token.keys.csr(FIRST, "SN-0001")):
        problem = refused(act)
        assert (type(problem), problem.code) == (Retryable, "token")
        assert "there is no token 'iot-agent'" in str(problem)
    objects.rmdir()
    objects.with_name("elsewhere").rename(objects)
    assert on_token.keys.public_key(FIRST) == before


@pytest.mark.parametrize("on_token", ["tpm"], indirect=True)
def test_a_tpm_that_stops_and_comes_back(on_token: Bench, tpm: SoftTpm) -> None:
    on_token.make(FIRST)
    on_token.limit = 2
    tpm.hold()
    try:
        assert "hung and was stopped" in str(refused(on_token.keys.labels))
    finally:
        tpm.resume()
    on_token.limit = PATIENCE
    tpm.stop()
    try:
        assert refused(on_token.keys.labels).code == "token"
    finally:
        tpm.start()
    assert on_token.keys.csr(FIRST, "SN-0001")


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_another_token_with_the_same_label_is_not_guessed_at(on_token: Bench) -> None:
    on_token.make(FIRST)
    twin = ("--init-token", "--free", "--label", LABEL, "--so-pin", SO_PIN, "--pin", PIN)
    subprocess.run(("softhsm2-util", *twin), check=True, capture_output=True)
    problem = refused(on_token.keys.labels)
    assert problem.code == "token"
    assert "More than 1 token" in str(problem)


def test_a_key_that_the_token_cannot_make(on_token: Bench, meddler: Meddler) -> None:
    meddler.spoil(Meddler.GENERATE, "b", MECHANISM_INVALID)
    problem = refused(lambda: on_token.keys.generate(FIRST, "ec-p256"))
    assert (type(problem), problem.code) == (Fatal, "key-store")
    assert "cannot make such a key" in str(problem)


# ---- a full token ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory), check=True)
    yield directory
    subprocess.run(("umount", "--lazy", directory), check=True)


def pending(bench: Bench, label: str) -> Any:  # noqa: ANN401 - a record, of which replace() tells nothing
    return replace(bench.in_force(FIRST), pending=Pending(label, "request"))


@pytest.mark.needs_root
def test_a_full_token_is_said_to_be_full_and_the_key_in_force_is_safe(on_token: Bench, small_disk: Path) -> None:
    on_token.make(FIRST)
    assert on_token.local is not None
    home = on_token.local.directory / ("tokens" if on_token.is_softhsm else "store")
    subprocess.run(("cp", "-a", f"{home}/.", small_disk), check=True)
    home.rename(home.with_name("elsewhere"))
    home.symlink_to(small_disk)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"x" * 2_000_000)
    outcome = steps.run(Kind.GENERATE, pending(on_token, SECOND), 0, on_token.context())
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.fatal) == ("token-full", False)
    assert on_token.keys.csr(FIRST, "SN-0001")
    (small_disk / "filler").unlink()
    assert steps.run(Kind.GENERATE, pending(on_token, SECOND), 0, on_token.context()) == Generated()
    assert on_token.objects() == [FIRST, FIRST, SECOND, SECOND]


def test_orphans_make_room_for_a_new_key(on_token: Bench, meddler: Meddler, monkeypatch: pytest.MonkeyPatch) -> None:
    on_token.make(FIRST)
    on_token.make(THIRD)
    meddler.spoil(Meddler.GENERATE, "b", DEVICE_MEMORY)
    honest = steps.retire

    def retire(*arguments: Any) -> Any:  # noqa: ANN401 - stands in for the step
        outcome = honest(*arguments)
        meddler.mend()  # now there is room
        return outcome

    monkeypatch.setattr(steps, "retire", retire)
    assert steps.run(Kind.GENERATE, pending(on_token, SECOND), 0, on_token.context()) == Generated()
    assert on_token.objects() == [FIRST, FIRST, SECOND, SECOND]


def test_a_token_that_is_away_keeps_nothing_else_from_being_removed(on_token: Bench, tmp_path: Path) -> None:
    on_token.make(FIRST)
    on_token.make(SECOND)
    files = Bench(on_token.state, "ec-p256")
    files.make(THIRD)
    assert on_token.local is not None
    moved = replace(on_token, local=None)
    module, on_token.local.module = on_token.local.module, tmp_path / "gone.so"
    outcome = steps.run(Kind.RETIRE, on_token.in_force(FIRST), 0, on_token.context())
    assert isinstance(outcome, Failed)
    assert outcome.code == "token"
    assert on_token.identities.labels() == {FIRST, SECOND}
    assert moved.keys.labels() == {FIRST, SECOND}
    on_token.local.module = module
    assert steps.run(Kind.RETIRE, on_token.in_force(FIRST), 0, on_token.context()) == Retired((SECOND,))
    assert on_token.objects() == [FIRST, FIRST]
