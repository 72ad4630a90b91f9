"""Many devices from a list, as a factory makes them."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.local.local_stack import SETUP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.local.local_stack import Stage

WHICH = ("--stack", "bulk")
MANY = 1000


@pytest.fixture(scope="module")
def factory(stage: Stage) -> Iterator[Stage]:
    """Give a cloud with a stack to make devices for."""
    stage.setup("deploy", *WHICH)
    yield stage
    stage.setup("destroy", "--yes", "--delete-vendor-key", *WHICH)


def allowed(stage: Stage) -> set[str]:
    """Return every serial in the table."""
    client = stage.session.client("dynamodb", endpoint_url=stage.here.endpoint_url)
    table = next(name for name in client.list_tables()["TableNames"] if name.startswith("bulk-DeviceTable"))
    pages = client.get_paginator("scan").paginate(TableName=table)
    return {item["serial"]["S"] for page in pages for item in page["Items"]}


def bundles(directory: Path) -> set[str]:
    """Return the serials whose bundle is complete."""
    return {path.parent.name for path in directory.glob("*/agent.yaml")} if directory.exists() else set()


def test_wrong_lines_are_named_and_nothing_is_done(factory: Stage, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("SN-1\nSN 2\nSN-1\n")
    out = tmp_path / "devices"
    said = factory.setup("device", "--from", str(tmp_path / "list"), "--out", str(out), *WHICH, succeeds=False)
    assert "line 2: 'SN 2' is not a serial" in said
    assert "line 3: 'SN-1' is there already, on line 1" in said
    assert (bundles(out), allowed(factory)) == (set(), set())


def test_a_thousand_interrupted_and_continued(factory: Stage, tmp_path: Path) -> None:
    serials = [f"SN-{number:04d}" for number in range(MANY)]
    (tmp_path / "list").write_text("serial\n" + "\n".join(serials))
    out = tmp_path / "devices"
    words = ["device", "--from", str(tmp_path / "list"), "--out", str(out), *WHICH]
    command = [str(SETUP), *words, "--local", str(factory.cloud.directory)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as first:
        while len(bundles(out)) < 50:
            assert first.poll() is None
        os.killpg(first.pid, signal.SIGINT)
        assert first.stderr is not None
        assert "run the same command again to continue" in first.stderr.read()
    assert first.returncode == 130
    assert 50 <= len(bundles(out)) < MANY
    assert allowed(factory) <= bundles(out), "allowed without a bundle"
    kept = {
        path: path.stat().st_ino for path in out.glob("*/bootstrap/key.pem") if path.parents[1].name in bundles(out)
    }

    said = factory.setup(*words)
    assert any(f"{count} already existed" in said for count in (len(kept), len(kept) + 1))
    assert bundles(out) == allowed(factory) == set(serials)
    assert {path: path.stat().st_ino for path in kept} == kept


def test_one_that_fails_does_not_keep_the_others_from_being_made(factory: Stage, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("SN-A\nSN-B\nSN-C\n")
    out = tmp_path / "devices"
    out.mkdir()
    (out / "SN-B").write_text("a file where the directory should go")
    words = ["device", "--from", str(tmp_path / "list"), "--out", str(out), *WHICH]
    said = factory.setup(*words, succeeds=False)
    assert "1 devices are not ready" in said
    assert "line 2: SN-B" in said
    assert bundles(out) == {"SN-A", "SN-C"}
    assert {"SN-A", "SN-C"} <= allowed(factory)
    assert "SN-B" not in allowed(factory)
