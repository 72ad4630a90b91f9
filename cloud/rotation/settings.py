"""The Lambda's settings, which the stack puts into its environment; read once per process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping


class Timeouts(TypedDict):
    """Seconds, as botocore's Config takes them."""

    connect_timeout: int
    read_timeout: int


TIMEOUTS: Final = Timeouts(connect_timeout=2, read_timeout=5)
"""Short enough that, when a service hangs, the function can still answer the device before its own timeout."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings; see `Environment` in template.yaml."""

    stack: str
    table: str
    history_table: str
    topic_prefix: str
    policies: tuple[str, ...]
    vendor_ca_id: str
    manufacturer_ca_id: str
    manufacturer_ca_pem: str
    manufacturer_key_parameter: str
    manufacturer_key_arn: str
    certificate_lifetime: timedelta

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings; KeyError names a missing one."""
        policies = environ["DEVICE_POLICY_NAME"], environ["APPLICATION_POLICY_NAME"]
        return cls(
            stack=environ["STACK_NAME"],
            table=environ["TABLE_NAME"],
            history_table=environ["HISTORY_TABLE_NAME"],
            topic_prefix=environ["TOPIC_PREFIX"],
            policies=tuple(name for name in policies if name),
            vendor_ca_id=environ["VENDOR_CA_ID"],
            manufacturer_ca_id=environ["MANUFACTURER_CA_ID"],
            manufacturer_ca_pem=environ["MANUFACTURER_CA_CERTIFICATE"],
            manufacturer_key_parameter=environ["MANUFACTURER_KEY_PARAMETER"],
            manufacturer_key_arn=environ["MANUFACTURER_KEY_ARN"],
            certificate_lifetime=timedelta(seconds=int(environ["CERTIFICATE_LIFETIME_SECONDS"])),
        )
