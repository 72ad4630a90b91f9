from __future__ import annotations

import pytest

from cloud.setup import arguments


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 7776000), ("12h", 43200), ("30m", 1800), ("10s", 10), ("3652d", 315532800)]
)
def test_a_lifetime_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert arguments.parse(["deploy", "--lifetime", text]).lifetime == seconds


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["deploy", "--lifetime", "9s"],
        ["deploy", "--lifetime", "1y"],
        ["deploy", "--lifetime", "90"],  # days? it would have been seconds
        ["deploy", "--lifetime", "3653d"],
        ["deploy", "--lifetime", "315532801s"],
        ["device", "SN-1", "--vendor-lifetime", "30"],
        ["deploy", "--region", "eu-west-1", "--local", "cloud"],
        ["device", "SN-1", "--vendor-lifetime", "99999d"],
        ["deploy", "--lifetime", "-90d"],
        ["deploy", "--topic-prefix", "a/+"],
        ["deploy", "--topic-prefix", "$aws"],
        ["deploy", "--topic-prefix", "a/b/c/d/e"],
        ["deploy", "--topic-prefix", "a" * 33],
        ["deploy", "--stack", "a_b"],
        ["deploy", "--tag", "team"],
        ["deploy", "--tag", "aws:team=a"],
        ["deploy", "--tag", "team=a b"],
        ["deploy", "--sample-devices", "maybe"],
        ["permissions", "nobody"],
        ["device"],
        ["device", "a/b"],
        ["device", "a b"],
        ["device", "a\n"],
        ["device", "a" * 65],
        ["device", ""],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments.parse(words)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["90", "4000d"])
def test_a_lifetime_that_is_refused_is_told_its_bounds_and_its_form(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["deploy", "--lifetime", text])
    assert f"'{text}' is not a time from 10s to 3652d; write it with a unit" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["cert-rotation", "/cert-rotation", "a/b/c/d"])
def test_a_topic_prefix_may_begin_with_a_slash_and_have_levels(prefix: str) -> None:
    assert arguments.parse(["deploy", "--topic-prefix", prefix]).topic_prefix == prefix


@pytest.mark.parametrize("command", ["deploy", "device", "destroy"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments.parse([command, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert all(option in told for option in ("--stack", "--region", "--local", "--state"))
