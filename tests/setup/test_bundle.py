from __future__ import annotations

import os
import stat
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import yaml

from cloud.common import certificates
from cloud.common.aws_session import Endpoint
from cloud.common.certificates import Signer
from cloud.setup import bundle, files
from cloud.setup.bundle import Delivery

if TYPE_CHECKING:
    from pathlib import Path

MONTH = timedelta(days=30)
KEY = certificates.load(certificates.new_key(), "the CA")
VENDOR = Signer(certificates.ca_certificate(KEY, "vendor", certificates.now()), KEY)
DELIVERY = Delivery("0012", Endpoint("example.test", 8883, "trust\n"), "/cert-rotation", "manufacturer\n")


def contents(directory: Path) -> dict[str, str]:
    """Return every file of the bundle."""
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def test_the_configuration_is_what_the_agent_reads(tmp_path: Path) -> None:
    bundle.write(tmp_path / "b", DELIVERY, VENDOR, MONTH)
    assert yaml.safe_load((tmp_path / "b/agent.yaml").read_text()) == {
        "serial": "0012",  # text, though it looks like a number
        "endpoint": {"host": "example.test", "port": 8883, "ca_file": "endpoint-ca.pem"},
        "topic_prefix": "/cert-rotation",
        "manufacturer_ca": "manufacturer-ca.pem",
        "bootstrap": {"certificate": "bootstrap/certificate.pem", "key": "bootstrap/key.pem"},
    }


def test_every_file_that_the_configuration_names_is_there(tmp_path: Path) -> None:
    bundle.write(tmp_path, DELIVERY, VENDOR, MONTH)
    assert set(contents(tmp_path)) == {
        "agent.yaml", "endpoint-ca.pem", "manufacturer-ca.pem", "bootstrap/certificate.pem", "bootstrap/key.pem",
    }  # fmt: skip


def test_only_the_owner_reads_the_key_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        bundle.write(tmp_path / "b", DELIVERY, VENDOR, MONTH)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "b/bootstrap/key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b/bootstrap").stat().st_mode) == 0o700


def test_a_complete_bundle_is_kept_as_it_is(tmp_path: Path) -> None:
    assert bundle.write(tmp_path, DELIVERY, VENDOR, MONTH)
    before = contents(tmp_path)
    assert not bundle.write(tmp_path, DELIVERY, VENDOR, MONTH)
    assert contents(tmp_path) == before


def test_force_makes_another_key(tmp_path: Path) -> None:
    bundle.write(tmp_path, DELIVERY, VENDOR, MONTH)
    before = contents(tmp_path)
    assert bundle.write(tmp_path, DELIVERY, VENDOR, MONTH, force=True)
    assert contents(tmp_path)["bootstrap/key.pem"] != before["bootstrap/key.pem"]


@pytest.mark.parametrize("missing", ["bootstrap/certificate.pem", "bootstrap/key.pem", "agent.yaml"])
def test_an_unfinished_bundle_is_finished(tmp_path: Path, missing: str) -> None:
    bundle.write(tmp_path, DELIVERY, VENDOR, MONTH)
    before = contents(tmp_path)
    (tmp_path / missing).unlink()
    bundle.write(tmp_path, DELIVERY, VENDOR, MONTH)
    after = contents(tmp_path)
    assert (after["bootstrap/key.pem"] == before["bootstrap/key.pem"]) == (missing != "bootstrap/key.pem")
    chain, key = after["bootstrap/certificate.pem"], after["bootstrap/key.pem"]
    assert certificates.is_current(chain, key, "0012", VENDOR.certificate, certificates.now())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("no space left on device")

    files.write(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write(tmp_path / "file", "new")
    assert contents(tmp_path) == {"file": "old"}
