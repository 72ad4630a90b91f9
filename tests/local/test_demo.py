"""What the demo takes for good and for bad; the demo itself runs in CI, and on bare machines in tests/clean."""

import shlex
from pathlib import Path

import pytest

from cloud.fleet import arguments
from cloud.local import demo


def say(directory: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Put a program in the place of agentctl that answers, and ends with this status."""
    program = directory / "agentctl"
    program.write_text(f"#!/bin/sh\necho '{{}}'\necho trouble >&2\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setattr(demo, "BIN", directory)


@pytest.mark.parametrize("health", [0, 1, 2])
def test_a_device_that_is_not_well_is_no_daemon_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, health: int
) -> None:
    say(tmp_path, monkeypatch, health)
    assert demo.status() == {}


@pytest.mark.parametrize("status", [69, 74, 78])
def test_a_daemon_that_is_down_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    say(tmp_path, monkeypatch, status)
    with pytest.raises(OSError, match="trouble"):
        demo.status()


def test_nothing_is_checked_while_the_next_renewal_is_near() -> None:
    resting = {"state": "acked", "next_step": {"kind": "wait"}}
    assert demo.settled(resting, demo.SETTLED_S + 1)
    assert not demo.settled(resting, 5)
    assert not demo.settled(resting | {"state": "rotated"}, demo.SETTLED_S + 1)
    assert not demo.settled(resting | {"next_step": {"kind": "retire"}}, demo.SETTLED_S + 1)


def test_every_command_of_the_fleet_that_it_offers_is_one() -> None:
    offered = [line.strip() for line in demo.invitation().splitlines() if "iot-fleet" in line]
    assert len(offered) == 2
    for line in offered:
        _, *words = shlex.split(line)
        assert arguments.parse(words).command == words[0]
