"""A deploy that would cut devices off is refused before anything is touched, or even asked of AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloud.common import aws_session
from cloud.common.errors import SetupError
from cloud.setup import preflight
from cloud.setup.__main__ import main
from cloud.setup.stack import Stack
from tests.cloud.conftest import aws_environment, bench
from tests.cloud.template import STACK
from tests.fleet import conftest as of_fleet
from tests.fleet.conftest import fleet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.conftest import Fleet

__all__ = ["aws_environment", "bench", "fleet"]

HOUR = 3600


@pytest.fixture
def deployed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Return a stack with the prefix cert-rotation that knows no device yet."""
    monkeypatch.setitem(of_fleet.OUTPUTS, "TopicPrefix", "cert-rotation")
    monkeypatch.setattr(preflight, "check", lambda *_, **__: None)
    for device in list(fleet.bench.devices.scan()):
        fleet.bench.table.delete_item(Key={"serial": device.serial})
    return fleet


def check(prefix: str | None) -> None:
    here = aws_session.connect(None, None)
    preflight.check_topic_prefix(here, Stack(here, "iot-agent"), prefix)


@pytest.mark.parametrize("options", ["", "--dry-run"])
def test_another_topic_prefix_is_refused_once_a_device_is_known(deployed: Fleet, tmp_path: Path, options: str) -> None:
    deployed("allow SN-7")
    assert main(["deploy", "--topic-prefix", "new", "--state", str(tmp_path / "state"), *options.split()]) == 1
    said = deployed.capsys.readouterr().err
    assert "cert-rotation: with new" in said
    assert "what to do: leave out --topic-prefix" in said
    assert not (tmp_path / "state").exists()
    with pytest.raises(SetupError):
        check("/cert-rotation")  # a leading slash makes it another one


def test_it_may_change_while_no_device_is_known(deployed: Fleet) -> None:
    assert list(deployed.bench.devices.scan()) == []
    check("new")


@pytest.mark.parametrize("prefix", [None, "cert-rotation"])
def test_the_same_prefix_or_none_is_kept_with_devices(deployed: Fleet, prefix: str | None) -> None:
    deployed("allow SN-7")
    check(prefix)


@pytest.mark.usefixtures("fleet")
def test_the_first_deploy_may_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "outputs", lambda _self: {})
    check("new")


def rule(fleet: Fleet, name: str, topic_filter: str, *, disabled: bool = False) -> None:
    sql = f"SELECT * FROM '{topic_filter}'"  # noqa: S608 - a topic rule's, of a test
    payload: Any = {"sql": sql, "actions": [], "ruleDisabled": disabled}
    fleet.bench.iot.create_topic_rule(ruleName=name, topicRulePayload=payload)


def is_free(prefix: str | None) -> str | None:
    here = aws_session.connect(None, None)
    return preflight.check_topic_is_free(here, Stack(here, "iot-agent"), prefix)


@pytest.fixture
def new(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Return a region in which the stack is not deployed yet."""
    monkeypatch.setattr(Stack, "outputs", lambda _self: {})
    return fleet


@pytest.mark.parametrize("topic_filter", ["cert-rotation/create-man-cert/+/rqst", "cert-rotation/#", "+/check-in/#"])
@pytest.mark.parametrize("options", ["", "--dry-run"])
def test_a_prefix_that_another_rule_uses_is_refused_before_anything_is_made(
    new: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, topic_filter: str, options: str
) -> None:
    rule(new, "of_somebody", topic_filter)
    monkeypatch.setattr(preflight, "check", lambda *_, **__: None)
    assert main(["deploy", "--state", str(tmp_path / "state"), *options.split()]) == 1
    said = new.capsys.readouterr().err
    assert f"of_somebody ({topic_filter})" in said
    assert "what to do: give another --topic-prefix" in said
    assert not (tmp_path / "state").exists()


def test_an_archive_of_everything_and_a_disabled_rule_are_in_nobodys_way(new: Fleet) -> None:
    rule(new, "archive", "#")
    rule(new, "asleep", "cert-rotation/#", disabled=True)
    rule(new, "of_another", "another/#")
    assert is_free(None) is None


def test_a_stack_that_shares_its_prefix_already_can_still_be_updated(deployed: Fleet) -> None:
    rule(deployed, "of_somebody", "cert-rotation/#")
    assert "of_somebody" in str(is_free(None))
    assert "of_somebody" in str(is_free("cert-rotation"))
    rule(deployed, "of_somebody_else", "new/#")
    with pytest.raises(SetupError, match="of_somebody_else"):
        is_free("new")


def test_the_prefix_that_is_looked_for_at_first_is_the_templates() -> None:
    assert STACK["Parameters"]["TopicPrefix"]["Default"] == preflight.DEFAULT_PREFIX


def test_a_lifetime_that_agents_refuse_is_for_the_local_cloud_only() -> None:
    for seconds, written in {10: "10s", HOUR: "1h", 2 * HOUR - 1: "7199s"}.items():
        preflight.check_lifetime(seconds, local=True)
        with pytest.raises(SetupError, match=f"a lifetime of {written} is too short"):
            preflight.check_lifetime(seconds, local=False)
    for kept in (None, 2 * HOUR):
        preflight.check_lifetime(kept, local=False)


def test_deploy_looks_at_the_lifetime_before_it_asks_anybody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(*_: object) -> None:
        raise AssertionError("AWS was asked")

    monkeypatch.setattr(aws_session, "connect", nobody)
    assert main(["deploy", "--lifetime", "90s"]) == 1
    assert "give --lifetime 2h or more" in capsys.readouterr().err
