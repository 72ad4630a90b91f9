"""What the steps make of a cloud's answers, and what `retire` removes: on real files, with a cloud behind the port."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from iot_agent.core.errors import AgentError, Code, Fatal, Retryable
from iot_agent.core.ports import Credentials
from iot_agent.core.protocol import Topics
from iot_agent.core.record import Certificate, CheckedIn, Failed, Identity, Kind, Outcome, Record, Retired, State
from iot_agent.core.schedule import Policy
from iot_agent.keys.file import FileKeys
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.worker import steps

T = TypeVar("T")
NOW = 1_790_000_000.0
CERTIFICATE = Certificate("a" * 64, int(NOW) - 10, int(NOW) + 86400, int(NOW) + 500)
ACTIVE, OLD, OTHER = (Identity(f"iot-agent-{number}", CERTIFICATE) for number in (1, 2, 3))
RECORD = Record("SN-1", State.ACKED, active=ACTIVE)
ASKED = f"check-in-{int(NOW)}"


class ScriptedCloud:
    """A cloud, and its session, that gives these answers to any request, and then is silent."""

    def __init__(self, *answers: dict[str, object] | bytes) -> None:
        self.answers = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in answers]

    @contextmanager
    def session(self, _credentials: Credentials) -> Iterator["ScriptedCloud"]:
        yield self

    def subscribe(self, topics: Sequence[str]) -> None:
        pass

    def exchange(self, _topic: str, _payload: bytes, _reply_topic: str, accept: Callable[[bytes], T | None]) -> T:
        for answer in self.answers:
            accepted = accept(answer)
            if accepted is not None:
                return accepted
        raise Retryable(Code.NO_REPLY, "silence")


class StubbornKeys(FileKeys):
    """Key files, one of which cannot be removed."""

    stuck = ""

    def remove(self, label: str) -> None:
        if label == self.stuck:
            raise Fatal(Code.TOKEN, "its token is away")
        super().remove(label)


class Device:
    """The parts of a device that steps act on, with three complete identities in `directory`."""

    def __init__(self, directory: Path, *answers: dict[str, object] | bytes) -> None:
        directory.mkdir(exist_ok=True)
        self.identities = IdentityDirectories(directory)
        self.keys = StubbornKeys(self.identities.root)
        for identity in (ACTIVE, OLD, OTHER):
            self.keys.generate(identity.label, "ec-p256")
            self.identities.create(identity.label, "a CSR")
            self.identities.store(identity, "a certificate", None)
        self.cloud = ScriptedCloud(*answers)

    def run(self, kind: Kind, record: Record = RECORD) -> Outcome:
        bootstrap = Credentials(Path("vendor.pem"), Path("vendor.key"))

        def examine(pem: str, chain: str | None, public_key: bytes) -> Certificate:  # noqa: ARG001 - of the port
            return CERTIFICATE

        context = steps.StepContext(
            self.keys, self.cloud, self.identities, examine, bootstrap, Topics("x", "SN-1"), "ec-p256", Policy(), {}
        )
        return steps.run(kind, record, NOW, context)


def checked_in(directory: Path, *answers: dict[str, object] | bytes) -> Outcome:
    return Device(directory, *answers).run(Kind.CHECK_IN)


# ---- answers ---------------------------------------------------------------------------------------------------------

OURS: dict[str, object] = {"request_id": ASKED, "time": int(NOW) * 1000}
LATE: dict[str, object] = {"request_id": "check-in-1", "time": 1}


def refusal(code: str, **more: object) -> dict[str, object]:
    return {"request_id": ASKED, "error": {"code": code, "message": "who are you?", **more}}


NOT_ALLOWED = refusal("not-allowed")


def test_a_late_answer_to_an_earlier_request_is_passed_over(tmp_path: Path) -> None:
    assert checked_in(tmp_path, LATE, OURS) == CheckedIn(int(NOW), None)


def test_not_allowed_counts_only_if_no_other_answer_comes(tmp_path: Path) -> None:
    assert checked_in(tmp_path / "one", NOT_ALLOWED, OURS) == CheckedIn(int(NOW), None)
    alone = checked_in(tmp_path / "other", NOT_ALLOWED)
    assert isinstance(alone, Failed)
    assert (alone.code, alone.fatal) == (Code.NOT_ALLOWED, False)
    assert "who are you?" in alone.message


@pytest.mark.parametrize(
    ("answer", "code", "fatal", "after"),
    [
        (refusal("conflict"), Code.CLOUD_REFUSED, True, None),
        (refusal("try-later", retry_after_s=7), Code.CLOUD_ERROR, False, 7),
        (b"not even JSON", Code.BAD_REPLY, False, None),
        (LATE, Code.NO_REPLY, False, None),
    ],
    ids=["a refusal", "a refusal for now", "nonsense", "silence"],
)
def test_what_is_no_answer_becomes_a_failure(
    tmp_path: Path, answer: dict[str, object] | bytes, code: Code, *, fatal: bool, after: int | None
) -> None:
    failed = checked_in(tmp_path, answer)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.fatal, failed.retry_after) == (code, fatal, after)


# ---- retire ----------------------------------------------------------------------------------------------------------


def test_only_what_the_record_lists_and_what_is_incomplete_is_removed(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.identities.create("iot-agent-9", "the CSR of a key that was never made")
    assert device.run(Kind.RETIRE, replace(RECORD, to_delete=(OLD.label,))) == Retired((OLD.label, "iot-agent-9"))
    assert device.identities.labels() == {ACTIVE.label, OTHER.label}, "a complete one that nobody lists stays"


def test_a_key_that_cannot_be_removed_keeps_no_other_from_it(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.keys.stuck = OLD.label
    failed = device.run(Kind.RETIRE, replace(RECORD, to_delete=(OLD.label, OTHER.label)))
    assert isinstance(failed, Failed)
    assert failed.code == Code.TOKEN
    assert device.identities.labels() == {ACTIVE.label, OLD.label}


def test_what_current_names_is_not_removed_as_long_as_it_is_whole(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.identities.point_current(OLD.label)
    failed = device.run(Kind.RETIRE, replace(RECORD, to_delete=(OLD.label,)))
    assert isinstance(failed, Failed)
    assert failed.code == Code.DISK
    assert OLD.label in {identity.label for identity in device.identities.complete()}


def test_bug_planted_a_removal_that_does_not_look_at_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(label: str, context: steps.StepContext) -> AgentError | None:
        context.keys.remove(label)
        context.identities.remove(label)
        return None

    monkeypatch.setattr(steps, "_remove", remove)
    device = Device(tmp_path)
    device.identities.point_current(OLD.label)
    device.run(Kind.RETIRE, replace(RECORD, to_delete=(OLD.label,)))
    assert not (tmp_path / "current" / "key.pem").exists(), "applications would have lost their key"
