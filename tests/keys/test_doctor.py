"""The doctor at real tokens: there, not there, PIN wrong, locked; and never an attempt where one has failed."""

import ssl
import time
from pathlib import Path

import pytest

from iot_agent.core.record import Record
from iot_agent.doctor.findings import Level
from iot_agent.doctor.probes import network
from iot_agent.doctor.probes.keystore import TokenInspector, inspect
from iot_agent.doctor.rules import network as network_rules
from iot_agent.doctor.rules.keystore import Keys, Pin, judge
from iot_agent.keys.token import TokenKeys
from tests.keys.bench import FIRST, LIMIT, SECOND, Bench
from tests.keys.broker import mutual_tls
from tests.simulator.authority import Authority

RECORD = Record("SN-0001")


def examine(bench: Bench, *labels: str) -> Keys:
    assert bench.token is not None
    keys = TokenKeys(bench.state, bench.token, LIMIT)
    return inspect(TokenInspector(bench.keys, "the token", keys.look), list(labels), RECORD, lock_held=True)


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
    [finding] = judge(inspect(TokenInspector(keys, "the token", keys.look), [FIRST], RECORD, lock_held=True))
    assert (finding.check, finding.level) == ("keys.store", Level.ERROR)


def test_a_wrong_pin_is_tried_once_and_looking_again_tries_none(on_token: Bench) -> None:
    on_token.make(FIRST)
    assert on_token.local is not None
    Path(on_token.local.pin_file).write_text("wrong-pin\n")
    first = examine(on_token, FIRST)
    assert "refused the PIN" in str(first.found[FIRST])
    second = examine(on_token, FIRST)
    assert second.withheld is not None or "not tried again" in str(second.found[FIRST])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_an_endpoint_that_wants_a_certificate_first_has_proven_itself(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority("Endpoint CA", time.time())
    with mutual_tls(tmp_path, authority, authority, (version, version)) as broker:
        seen = network.look("localhost", broker.port, broker.ca_file)
    assert seen.good, seen


def test_an_endpoint_without_tls_1_2_is_told_where_keys_are_on_a_token(tmp_path: Path) -> None:
    authority = Authority("Endpoint CA", time.time())
    told = {}
    for lowest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        (tmp_path / lowest.name).mkdir()
        with mutual_tls(tmp_path / lowest.name, authority, authority, (lowest, ssl.TLSVersion.TLSv1_3)) as broker:
            for on_token in (False, True):
                seen = network.look("localhost", broker.port, broker.ca_file, on_token=on_token)
                findings = network_rules.judge(seen, time.time())
                version = [one.level for one in findings if one.check == "network.tls-version"]
                told[lowest.name, on_token] = version
    assert told == {
        ("TLSv1_2", False): [],
        ("TLSv1_2", True): [Level.FINE],
        ("TLSv1_3", False): [],
        ("TLSv1_3", True): [Level.ERROR],
    }
