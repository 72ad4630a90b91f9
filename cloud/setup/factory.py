"""The factory step for one serial: the bundle is written first, then the serial is put on the allow-list."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud.common.errors import SetupError
from cloud.common.operations import OperatorContext, allow
from cloud.rotation.devices import ConflictError, Devices
from cloud.rotation.lifecycle import Save
from cloud.rotation.operator_rules import OrderError
from cloud.rotation.registry import Registry
from cloud.setup import authorities, bundle, stack
from cloud.setup.ssm_parameters import Names, Parameters

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from cloud.common.aws_session import Cloud, Endpoint
    from cloud.common.certificates import Signer


@dataclass(frozen=True)
class Made:
    """What one step did: whether it wrote the bundle, and whether it put the serial on the allow-list."""

    bundle: bool
    allowed: bool


@dataclass(frozen=True)
class Factory:
    """Everything that is the same for every device of a stack."""

    vendor: Signer
    endpoint: Endpoint
    topic_prefix: str
    manufacturer_ca: str
    office: OperatorContext

    def make(self, serial: str, directory: Path, lifetime: timedelta, *, force: bool = False) -> Made:
        """Write the bundle, or keep it, and allow the serial. Raises SetupError if it cannot be allowed."""
        delivery = bundle.Delivery(serial, self.endpoint, self.topic_prefix, self.manufacturer_ca)
        new = bundle.write(directory, delivery, self.vendor, lifetime, force=force)
        try:
            return Made(new, isinstance(allow(self.office, serial), Save))
        except (OrderError, ConflictError) as error:
            raise SetupError(
                f"its bundle is written, but it is not on the allow-list: {error}",
                f"look at it: cloud/iot-fleet show {serial}",
            ) from error


def open_for(here: Cloud, name: str, keys: authorities.VendorKeys, redo: str) -> Factory:
    """Return the factory of a deployed stack. Raises SetupError; `redo` is the command line that deploys."""
    parameters = Parameters(here.session.client("ssm", config=here.config))
    vendor = authorities.vendor_signer(parameters, name, keys)
    manufacturer_ca = parameters.get(Names(name).manufacturer_certificate)
    outputs = stack.Stack(here, name).outputs()
    if not outputs or manufacturer_ca is None:
        raise SetupError(f"stack {name} is not deployed in {here.place}", f"run: {redo}")
    return Factory(vendor, here.endpoint(), outputs["TopicPrefix"], manufacturer_ca, office(here, outputs))


def office(here: Cloud, outputs: dict[str, str], *, dry_run: bool = False) -> OperatorContext:
    """Return the context of an operator's orders, with the caller's ARN."""
    resource = here.session.resource("dynamodb", config=here.config)
    records = Devices(resource.Table(outputs["TableName"]), resource.Table(outputs["HistoryTableName"]))
    registry = Registry(
        here.session.client("iot", config=here.config), here.session.client("iot-data", config=here.config)
    )
    by = here.session.client("sts", config=here.config).get_caller_identity()["Arn"]
    return OperatorContext(records, registry, lambda: time.time_ns() // 1_000_000, by, dry_run)
