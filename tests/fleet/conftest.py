"""The operator's commands as they are typed, against a cloud on moto whose Lambda is the real one."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cloud.common import aws_session
from cloud.fleet.__main__ import main
from cloud.setup import factory, stack
from tests.cloud.conftest import aws_environment, bench
from tests.cloud.lambda_bench import made_once

if TYPE_CHECKING:
    import boto3

    from tests.cloud.lambda_bench import Bench

__all__ = ["aws_environment", "bench"]

OUTPUTS = {
    "TableName": "devices",
    "HistoryTableName": "history",
    "DevicePolicyName": "device",
    "ApplicationPolicyName": "application",
    "BootstrapPolicyName": "bootstrap",
}


@dataclass
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was printed
        """Return its one JSON value."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return its JSON values, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Fleet:
    """A cloud, and an operator at a terminal."""

    bench: Bench
    capsys: pytest.CaptureFixture[str]

    def __call__(self, line: str) -> Said:
        """Type a command."""
        self.capsys.readouterr()
        try:
            status = main(shlex.split(line))
        except SystemExit as stopped:  # argparse
            status = int(stopped.code or 0)
        said = self.capsys.readouterr()
        return Said(status, said.out, said.err)

    def aboard(self, serial: str = "SN-1", number: int = 1) -> str:
        """Bring a device aboard; return the id of its certificate."""
        if self.bench.devices.get(serial) is None:
            self.bench.allow(serial)
        vendor = self.bench.vendor(serial)
        self.bench.deliver(self.bench.registered_event(vendor))
        made = self.bench.create(vendor, number, serial)
        assert "error" not in self.bench.ack(made["cert_id"], serial)
        return str(made["cert_id"])

    def check_in(self, certificate_id: str, serial: str = "SN-1") -> dict[str, Any]:
        """Have a device report."""
        return self.bench.ask("check-in", serial, certificate_id, {"request_id": "r-9", "report": {"version": "1"}})


@pytest.fixture
def fleet(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fleet:
    """Give a stack, whose outputs are not asked of CloudFormation, and whose clock is the bench's."""
    clients = SimpleNamespace(
        region_name="eu-west-1",
        client=lambda service, **_: made_once("client", service),
        resource=lambda service, **_: made_once("resource", service),
    )
    here = aws_session.Cloud(cast("boto3.Session", clients), "123456789012", None)
    monkeypatch.setattr(aws_session, "connect", lambda *_where: here)
    monkeypatch.setattr(stack.Stack, "outputs", lambda _self: OUTPUTS)
    monkeypatch.setattr(factory, "time", SimpleNamespace(time_ns=lambda: bench.now * 1_000_000))
    return Fleet(bench, capsys)
