"""The doctor at real tokens: there, not there, PIN wrong, locked; and never an attempt where one has failed."""

from pathlib import Path

from iot_agent.doctor.findings import Level
from iot_agent.doctor.probes.keystore import TokenInspector, inspect
from iot_agent.doctor.rules.keystore import Keys, Pin, judge
from iot_agent.keys.token import TokenKeys
from iot_agent.record import Record
from tests.keys.bench import FIRST, LIMIT, SECOND, Bench

RECORD = Record("SN-0001")


def examine(bench: Bench, *labels: str) -> Keys:
    assert bench.token is not None
    keys = TokenKeys(bench.state, bench.token, LIMIT)
    return inspect(TokenInspector(bench.keys, "the token", keys.look), list(labels), RECORD)


def test_a_key_on_the_token_is_found(on_token: Bench) -> None:
    on_token.make(FIRST)
    seen = examine(on_token, FIRST, SECOND)
    assert seen.store.pin is Pin.GOOD
    assert seen.found[FIRST] == on_token.keys.public_key(FIRST)
    assert [finding.check for finding in judge(seen) if finding.level is Level.ERROR] == [f"keys.{SECOND}"]


def test_a_token_that_is_not_there_is_told(on_token: Bench) -> None:
    assert on_token.token is not None
    gone = type(on_token.token)(on_token.token.module, "gone", on_token.token.pin_source)
    keys = TokenKeys(on_token.state, gone, LIMIT)
    [finding] = judge(inspect(TokenInspector(keys, "the token", keys.look), [FIRST], RECORD))
    assert (finding.check, finding.level) == ("keys.store", Level.ERROR)


def test_a_wrong_pin_is_tried_once_and_looking_again_tries_none(on_token: Bench) -> None:
    on_token.make(FIRST)
    assert on_token.local is not None
    Path(on_token.local.pin_file).write_text("wrong-pin\n")
    first = examine(on_token, FIRST)
    assert "refused the PIN" in str(first.found[FIRST])
    second = examine(on_token, FIRST)
    assert second.withheld is not None or "not tried again" in str(second.found[FIRST])
