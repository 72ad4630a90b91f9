"""The doctor and a key store with a PIN: no login after one may have failed, whatever the backend."""

import pytest

from iot_agent.core.errors import Code, Fatal
from iot_agent.core.record import Failure, Kind, Record
from iot_agent.doctor.findings import Level
from iot_agent.doctor.probes.keystore import Inspector, inspect
from iot_agent.doctor.rules.keystore import Pin, Store, judge

RECORD = Record("SN-0001")
FAILED = Record("SN-0001", failure=Failure(Kind("prove"), "key-store", "PIN incorrect", "…", 1))


class Token:
    """A token that counts logins, each with a PIN that is right or wrong, and remembers the wrong ones as tokens do."""

    def __init__(self, pin: Pin = Pin.GOOD, problem: str | None = None, *, right: bool = True) -> None:
        self.pin, self.problem, self.right, self.logins = pin, problem, right, 0

    def store(self) -> Store:
        return Store("token test", self.pin, self.problem)

    def public_key(self, label: str) -> bytes:
        self.logins += 1
        if not self.right:
            self.pin = Pin.LOW
            raise Fatal(Code.KEY_STORE, "PIN incorrect")
        if label == "gone":
            raise Fatal(Code.KEY_STORE, "no such key")
        return label.encode()


def test_with_the_right_pin_every_key_is_looked_at() -> None:
    token = Token()
    inspector: Inspector = token
    seen = inspect(inspector, ["a", "gone", "b"], RECORD, lock_held=True)
    assert seen.found["a"] == b"a"
    assert seen.found["b"] == b"b"
    assert [finding.check for finding in judge(seen) if finding.level is Level.ERROR] == ["keys.gone"]


def test_a_wrong_pin_costs_one_attempt_not_one_for_each_key() -> None:
    token = Token(right=False)
    seen = inspect(token, ["a", "b", "c"], RECORD, lock_held=True)
    assert token.logins == 1
    assert seen.withheld is not None


@pytest.mark.parametrize("pin", [Pin.LOW, Pin.FINAL_TRY, Pin.LOCKED])
def test_no_login_is_tried_where_the_token_reports_failed_attempts(pin: Pin) -> None:
    token = Token(pin)
    levels = {finding.check: finding.level for finding in judge(inspect(token, ["a"], RECORD, lock_held=True))}
    assert token.logins == 0
    assert levels["keys.pin"] is Level.ERROR


@pytest.mark.parametrize("pin", [Pin.GOOD, Pin.UNKNOWN])
def test_no_login_is_tried_after_the_agents_own_failure(pin: Pin) -> None:
    token = Token(pin)
    levels = {finding.check: finding.level for finding in judge(inspect(token, ["a"], FAILED, lock_held=True))}
    assert token.logins == 0
    assert Level.WARNING in levels.values()


def test_no_login_is_tried_while_a_step_may_use_the_token() -> None:
    token = Token()
    found = inspect(token, ["a"], RECORD, lock_held=False)
    assert token.logins == 0
    assert "in the middle of a step" in str(found.withheld)
    assert {finding.level for finding in judge(found)} == {Level.FINE, Level.SKIPPED}


def test_no_login_is_tried_where_there_is_no_token() -> None:
    token = Token(problem="no token named x")
    [finding] = judge(inspect(token, ["a"], RECORD, lock_held=True))
    assert (token.logins, finding.check, finding.level) == (0, "keys.store", Level.ERROR)


def test_a_login_in_spite_of_failed_attempts_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iot_agent.doctor.probes.keystore.withhold", lambda *_, **__: None)
    token = Token(right=False)
    inspect(token, ["a", "b"], FAILED, lock_held=True)
    assert token.logins == 2
