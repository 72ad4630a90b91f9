"""The vendor CA's key is that of one account, region and stack, and no command uses or deletes it for another."""

from __future__ import annotations

import dataclasses
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from cloud.common import certificates
from cloud.common.aws_session import Cloud
from cloud.common.errors import SetupError
from cloud.setup import files, state_directory
from cloud.setup.authorities import VendorKeys

if TYPE_CHECKING:
    from pathlib import Path

    import boto3

HERE = Cloud(cast("boto3.Session", SimpleNamespace(region_name="eu-west-1")), "111111111111", None)
ELSEWHERE = Cloud(cast("boto3.Session", SimpleNamespace(region_name="us-east-1")), "111111111111", None)
PRODUCTION = dataclasses.replace(HERE, account="222222222222")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of all stacks."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "iot-agent-cloud"


def of(here: Cloud) -> Path:
    return state_directory.path_for(here, "iot-agent", None, None)


@pytest.mark.usefixtures("base")
def test_each_account_and_region_has_its_own() -> None:
    assert len({of(here) for here in (HERE, ELSEWHERE, PRODUCTION)}) == 3


def test_a_chosen_directory_of_another_place_is_refused(base: Path) -> None:
    state_directory.claim(base, PRODUCTION, "iot-agent")
    state_directory.claim(base, PRODUCTION, "iot-agent")  # again
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    for here, stack in ((HERE, "iot-agent"), (PRODUCTION, "another")):
        with pytest.raises(SetupError, match="stack iot-agent in AWS 222222222222 eu-west-1, not"):
            state_directory.claim(base, here, stack)
        with pytest.raises(SetupError):
            state_directory.check(base, here, stack)


def earlier(base: Path) -> str:
    """Leave the directory of an earlier version; return its CA's certificate."""
    keys = VendorKeys(base / "iot-agent")
    files.private_directory(keys.state)
    pem = certificates.new_key()
    files.write(keys.key, pem, secret=True)
    return certificates.ca_certificate(certificates.load(pem, "it"), "vendor", certificates.now())


def test_an_earlier_directory_is_moved_where_its_ca_is_deployed(base: Path) -> None:
    pem = earlier(base)
    key = VendorKeys(base / "iot-agent").key.read_bytes()
    told = state_directory.take_over(of(HERE), HERE, "iot-agent", pem)
    assert told is not None
    assert str(of(HERE)) in told
    assert VendorKeys(of(HERE)).key.read_bytes() == key
    assert not (base / "iot-agent").exists()
    assert state_directory.take_over(of(HERE), HERE, "iot-agent", pem) is None


def test_it_stays_where_it_is_if_another_ca_is_deployed_or_none(base: Path) -> None:
    earlier(base)
    other = certificates.load(certificates.new_key(), "it")
    pem = certificates.ca_certificate(other, "vendor", certificates.now())
    assert state_directory.take_over(of(HERE), HERE, "iot-agent", pem) is None
    assert "mv " in str(state_directory.take_over(of(HERE), HERE, "iot-agent", None))
    assert state_directory.take_over(base / "chosen", HERE, "iot-agent", pem) is None
    assert VendorKeys(base / "iot-agent").key.exists()
    assert not of(HERE).exists()
