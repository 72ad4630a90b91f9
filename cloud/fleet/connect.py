"""The connection to the deployed stack that a command is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud.common import aws_session
from cloud.common.errors import SetupError
from cloud.setup import stack
from cloud.setup.factory import office as make_context

if TYPE_CHECKING:
    import argparse

    from mypy_boto3_iot import IoTClient

    from cloud.common.operations import OperatorContext


@dataclass(frozen=True)
class Reach:
    """The tables and the registry (`office`), a client for IoT Core, and the stack's outputs."""

    office: OperatorContext
    iot: IoTClient
    outputs: dict[str, str]


def reach(options: argparse.Namespace) -> Reach:
    """Return the stack that the options name. Raises SetupError if it is not deployed."""
    here = aws_session.connect(options.region, options.local, options.profile)
    outputs = stack.Stack(here, options.stack).outputs()
    if "HistoryTableName" not in outputs:
        raise SetupError(
            f"stack {options.stack} is not deployed in {here.place}", "deploy it with cloud/setup.sh deploy"
        )
    office = make_context(here, outputs, dry_run=getattr(options, "dry_run", False))
    return Reach(office, here.session.client("iot", config=here.config), outputs)
