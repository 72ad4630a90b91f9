"""How clients find a local cloud: DIR/cloud.json, written when the cloud is ready and removed when it stops."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "cloud.json"


@dataclasses.dataclass(frozen=True)
class Credentials:
    """The emulator's root account; it listens on loopback only and accepts any secret."""

    access_key_id: str
    secret_access_key: str


@dataclasses.dataclass(frozen=True)
class Description:
    """A running local cloud: the AWS API (`endpoint_url`), the MQTT broker, and the CA of the broker's certificate."""

    endpoint_url: str
    region: str
    account: str
    mqtt_host: str
    mqtt_port: int
    mqtt_ca: str
    pid: int
    credentials: Credentials

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` changed to reach this cloud and nothing else: every AWS_* variable in it is dropped."""
        return {name: value for name, value in base.items() if not name.startswith("AWS_")} | {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_access_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def read(directory: Path) -> Description:
    """Read DIR/cloud.json. Raises FileNotFoundError when no local cloud is running there."""
    fields = json.loads((directory / NAME).read_text())
    return Description(**fields | {"credentials": Credentials(**fields["credentials"])})


def write(directory: Path, description: Description) -> None:
    """Write DIR/cloud.json in one step, so that a reader never sees half of it."""
    temporary = directory / (NAME + ".new")
    temporary.write_text(json.dumps(dataclasses.asdict(description), indent=2) + "\n")
    temporary.rename(directory / NAME)


def remove(directory: Path) -> None:
    """Remove DIR/cloud.json if it is there."""
    (directory / NAME).unlink(missing_ok=True)
