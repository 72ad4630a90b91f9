"""The agent's settings, parsed and checked: plain frozen data. `config` makes them from agent.yaml.

The daemon does not parse YAML itself: a child does and hands the result over as JSON (`dump`, `load`), so that neither
the parser's memory nor its faults live in the resident process.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from iot_agent.core import typed_json
from iot_agent.core.schedule import Policy


@dataclass(frozen=True)
class Token:
    """A PKCS #11 token: its module (a library), its label, and where its PIN is: `file:PATH` or `credential:NAME`."""

    module: str
    label: str
    pin_source: str


@dataclass(frozen=True)
class TokenKey:
    """A private key that stays on a token, found there by its label."""

    token: Token
    label: str


@dataclass(frozen=True)
class Settings:
    """One attribute for each key of agent.yaml; spans in seconds; paths absolute."""

    serial: str
    endpoint_host: str
    endpoint_port: int
    endpoint_ca_file: Path
    client_id: str
    topic_prefix: str
    manufacturer_ca: Path | None
    bootstrap_certificate: Path
    bootstrap_key: Path | TokenKey
    keys_backend: str
    keys_algorithm: str
    keys_token: Token | None
    policy: Policy
    step_limit: float
    key_limit: float
    identity_group: str | None
    state_directory: Path
    run_directory: Path
    log_level: str
    metrics_textfile: Path | None = None


def dump(settings: Settings) -> str:
    """Turn settings into JSON."""
    return json.dumps(asdict(settings), default=str)


def load(text: str) -> Settings:
    """Read what `dump` wrote; raises `ValueError`, which is a bug, for it is our own."""
    return typed_json.parse(Settings, text)
