"""agent.yaml into `Settings`: units parsed once, unknown keys and bad values refused with file and line.

Each setting is one row of `SETTINGS`. The only importer of yaml; loaded by the configuration reader (`python -m
iot_agent.config`), a child of the daemon, and never by the daemon itself. What the file may make us compute is bounded
before it is computed: lengths of values, digits of numbers, and lengths of time.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from iot_agent.core.errors import printable
from iot_agent.core.schedule import NEVER, Policy
from iot_agent.core.settings import Settings, Token
from iot_agent.keys import pkcs11_uri

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
HOUR, DAY = 3600.0, 86400.0
# A step may have to wait this long and still succeed: for the identity lock, connections that the cloud closes, a
# handshake, the answers to subscribing and publishing, and the reply. With a lower limit, a cloud that does not answer
# would be reported as a step that was stopped, not as "no answer", which has its own error code and remedy. A test adds
# up the constants of `worker/mqtt.py` and `storage/identity_lock.py`.
LEAST_STEP = 120.0
LEAST_KEY_GENERATION = 30.0  # the wait for the identity lock, and the processes that make a key, on a small board
LONGEST_LIMIT = HOUR  # a step that hangs must not delay a renewal for longer
RENEWAL_END = 0.85  # of the lifetime: the rest is for retries
ALGORITHMS = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072")
MAX_SIZE = 64 * 1024
MAX_VALUE = 4096  # characters, and the longest path (limits.h)
MAX_DEPTH = 8  # levels; the file has two
MAX_KEY = 64  # characters of a key that are looked at, and shown


class AgentYamlError(Exception):
    """One line for each problem: `file:line: key: what is wrong, and what would be right`."""


def _text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    if not value.isprintable():
        raise ValueError(f"{value!r} contains characters that cannot be printed")
    return value


def _path(value: str) -> Path:
    return Path(_text(value))


def _serial(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:_-]{1,64}", value):
        raise ValueError(f"{value!r} is not 1 to 64 letters, digits, ':', '_' or '-' (a thing name and a common name)")
    return value


def _client_id(value: str) -> str:
    if not re.fullmatch(r"(\{serial\}|[A-Za-z0-9:_-]){1,128}", value):
        raise ValueError(f"{value!r} is not letters, digits, ':', '_', '-' and {{serial}}")
    return value


def _prefix(value: str) -> str:
    if not re.fullmatch(r"/?[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){0,3}", value):
        raise ValueError(f"{value!r} is not a topic of one to four levels without wildcards, like cert-rotation")
    return value


def _port(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 0 < int(value) < 65536:  # noqa: PLR2004 - the range of a TCP port
        raise ValueError(f"{value!r} is not a port, like 8883")
    return int(value)


def _duration(least: float, most: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        match = re.fullmatch(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)([{''.join(UNITS)}])", value)
        if not match or float(match[1]) == 0:
            raise ValueError(f"{value!r} is not a number with a unit of time, like 30s, 5m, 12h or 90d")
        seconds = float(match[1]) * UNITS[match[2]]
        if not least <= seconds <= most:
            raise ValueError(f"{value!r} is not from {_written(least)} to {_written(most)}")
        return seconds

    return parse


def _written(seconds: float) -> str:
    """Write a length of time as in the file: in the largest unit of which it is a whole number."""
    unit = next((unit for unit, size in reversed(UNITS.items()) if seconds % size == 0), "s")
    return f"{seconds / UNITS[unit]:g}{unit}"


def _fraction(value: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/([0-9]{1,9})|(%))?", value)
    if not match or (match[2] and int(match[2]) == 0):
        raise ValueError(f"{value!r} is not a fraction, like 2/3, 0.66 or 66%")
    number = Fraction(match[1]) / (100 if match[3] else int(match[2] or 1))
    if not 0 < number < 1:
        raise ValueError(f"{value!r} is not between 0 and 1")
    return float(number)


def _attempts(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 1 <= int(value) <= 100:  # noqa: PLR2004 - more would not be a bound
        raise ValueError(f"{value!r} is not a whole number from 1 to 100")
    return int(value)


def _check_in_interval(value: str) -> float:
    return NEVER if value == "off" else _duration(1, 365 * DAY)(value)


def _metrics_file(value: str) -> Path | None:
    """Take `off`, or a file that node_exporter's textfile collector reads: it ignores all other names."""
    if value == "off":
        return None
    path = _path(value)
    if not value.endswith(".prom") or path.name == ".prom":
        raise ValueError(f"{value!r} is neither off nor a file whose name ends in .prom; node_exporter reads no other")
    return path


def _token_label(value: str) -> str:
    if len(_text(value).encode()) > 32:  # noqa: PLR2004 - PKCS #11, CK_TOKEN_INFO
        raise ValueError(f"{value!r} is not the label of a token: 1 to 32 bytes")
    return value


def _pin(value: str) -> Path | str:
    if value.isdecimal():
        raise ValueError("must not be the PIN itself, but say where it is: a file, or credential:NAME")
    if not value.startswith("credential:"):
        return _path(value)
    if not re.fullmatch(r"credential:[A-Za-z0-9_.-]+", value):
        raise ValueError(f"{value!r} is not credential:NAME, a systemd credential of the unit")
    return value


def _key(value: str) -> Path | str:
    if not value.startswith(pkcs11_uri.SCHEME):
        return _path(value)
    pkcs11_uri.read(value, Token("default", "default", "credential:default"))
    return _text(value)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return parse


def _group(value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value):
        raise ValueError(f"{value!r} is not the name of a group")
    return value


@dataclass(frozen=True)
class Setting:
    """How one key of agent.yaml is read.

    `attribute` of `Settings` receives the value; `policy.` and `keys_token.` stand for an attribute of that attribute.
    `parse` raises ValueError with what is wrong with the value; a relative `Path` starts at the file's directory.
    """

    attribute: str
    parse: Callable[[str], Any]
    default: Any


REQUIRED = object()  # instead of a default

# To add a setting: its row here, its attribute in core/settings.py, its line in config/agent.yaml.
SETTINGS = {
    # key in agent.yaml        attribute of Settings        how the value is read               default
    "serial": Setting("serial", _serial, REQUIRED),
    "endpoint.host": Setting("endpoint_host", _text, REQUIRED),
    "endpoint.port": Setting("endpoint_port", _port, 8883),
    "endpoint.ca_file": Setting("endpoint_ca_file", _path, REQUIRED),
    "client_id": Setting("client_id", _client_id, "{serial}-agent"),
    "topic_prefix": Setting("topic_prefix", _prefix, "cert-rotation"),
    "manufacturer_ca": Setting("manufacturer_ca", _path, None),
    "bootstrap.certificate": Setting("bootstrap_certificate", _path, REQUIRED),
    "bootstrap.key": Setting("bootstrap_key", _key, REQUIRED),
    "keys.backend": Setting("keys_backend", _one_of("file", "pkcs11"), "file"),
    "keys.algorithm": Setting("keys_algorithm", _one_of(*ALGORITHMS), "ec-p256"),
    "keys.module": Setting("keys_token.module", _path, None),
    "keys.token": Setting("keys_token.label", _token_label, None),
    "keys.pin": Setting("keys_token.pin_source", _pin, None),
    "renewal.at": Setting("policy.renewal_fraction", _fraction, Policy.renewal_fraction),
    "renewal.spread": Setting("policy.renewal_spread", _fraction, Policy.renewal_spread),
    "renewal.minimum_interval": Setting("policy.minimum_interval", _duration(1, 365 * DAY), Policy.minimum_interval),
    "retry.first": Setting("policy.retry_base", _duration(0.1, HOUR), Policy.retry_base),
    "retry.longest": Setting("policy.retry_cap", _duration(1, 7 * DAY), Policy.retry_cap),
    "retry.prove_attempts": Setting("policy.prove_attempts", _attempts, Policy.prove_attempts),
    "check_in.every": Setting("policy.check_in_interval", _check_in_interval, Policy.check_in_interval),
    "limits.step": Setting("step_limit", _duration(LEAST_STEP, LONGEST_LIMIT), 180.0),
    "limits.key_generation": Setting("key_limit", _duration(LEAST_KEY_GENERATION, LONGEST_LIMIT), 300.0),
    "identity.group": Setting("identity_group", _group, None),
    "paths.state": Setting("state_directory", _path, Path("/var/lib/iot-agent")),
    "paths.run": Setting("run_directory", _path, Path("/run/iot-agent")),
    "log.level": Setting("log_level", _one_of("debug", "info", "warning", "error"), "info"),
    "metrics.textfile": Setting("metrics_textfile", _metrics_file, None),
}
OF_A_TOKEN = ("keys.module", "keys.token", "keys.pin")
SECTIONS = {key.split(".")[0] for key in SETTINGS if "." in key}


def read(path: Path) -> Settings:
    """Read and check a configuration file; raises `AgentYamlError` with every problem found."""
    try:
        text = path.read_bytes()
        if len(text) > MAX_SIZE:
            raise AgentYamlError(f"{path}: larger than {MAX_SIZE} bytes; is this the right file?")
        root = yaml.compose(text, Loader=_Loader)
    except OSError as error:
        raise AgentYamlError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise AgentYamlError(f"{path}:{line}: not YAML: {printable(str(error.problem))}") from error
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        # The last two: of a number too large to be a character, or a version, which PyYAML does not look at first.
        raise AgentYamlError(f"{path}: not YAML: {printable(str(error))}") from error
    if root is None:
        raise AgentYamlError(
            f"{path}: nothing is set yet: copy the bundle that was made for this device to {path.absolute().parent}, "
            "or set serial, endpoint and bootstrap here"
        )
    values, problems = _collect(root, path)
    if problems:
        raise AgentYamlError("\n".join(problems))
    try:
        settings = _settings(values, path.absolute().parent)
    except ValueError as error:
        raise AgentYamlError(f"{path}: bootstrap.key: {error}") from error
    if settings.metrics_textfile is not None and _is_inside(settings.metrics_textfile, settings.state_directory):
        wrong = f"{settings.metrics_textfile} is inside paths.state, which contains keys and the record"
        raise AgentYamlError(
            f"{path}: metrics.textfile: {wrong}; use another place, like {settings.run_directory}/iot-agent.prom"
        )
    return settings


class _Loader(yaml.SafeLoader):
    """Refuses what is nested deeper than `MAX_DEPTH`: for each word, PyYAML looks at every level that it is in."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read one node, and what is in it."""
        if self._depth == MAX_DEPTH:
            where = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs lack it
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH}", where)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _is_inside(file: Path, directory: Path) -> bool:
    """Say whether `file` would be made somewhere in `directory`, with every link and `..` resolved."""
    return Path(os.path.realpath(file.parent)).is_relative_to(os.path.realpath(directory))


def _collect(root: yaml.Node, path: Path) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for key, node, line in _scalars(root, problems, str(path)):
        if key in lines:
            problems.append(f"{path}:{line}: {key}: is set for the second time (first on line {lines[key]})")
        elif key not in SETTINGS:
            problems.append(f"{path}:{line}: {key}: unknown key{_suggestion(key)}")
        elif len(node.value) > MAX_VALUE:
            problems.append(f"{path}:{line}: {key}: is longer than {MAX_VALUE} characters")
        else:
            try:
                values[key] = SETTINGS[key].parse(node.value)
            except ValueError as error:
                problems.append(f"{path}:{line}: {key}: {error}")
        lines[key] = line
    problems.extend(
        f"{path}: {key}: is required and missing"
        for key, setting in SETTINGS.items()
        if setting.default is REQUIRED and key not in lines
    )
    if values.get("keys.backend") == "pkcs11" or any(key in lines for key in OF_A_TOKEN):
        problems.extend(f"{path}: {key}: is required for keys on a token" for key in OF_A_TOKEN if key not in lines)
    at, spread = (values.get(key, SETTINGS[key].default) for key in ("renewal.at", "renewal.spread"))
    if not problems and at + spread > RENEWAL_END:
        line = lines.get("renewal.spread") or lines["renewal.at"]
        problems.append(f"{path}:{line}: renewal: at + spread must not exceed {RENEWAL_END}: retries need the rest")
    return values, problems


def _scalars(root: yaml.Node, problems: list[str], path: str) -> Iterator[tuple[str, yaml.ScalarNode, int]]:
    """Walk the two levels of the file: (dotted key, value node, line)."""
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{path}:1: must be `key: value` lines")
        return
    for key_node, node in root.value:
        line = key_node.start_mark.line + 1
        key = _shown(key_node)
        if isinstance(node, yaml.ScalarNode) and key not in SECTIONS:
            yield key, node, line
        elif isinstance(node, yaml.MappingNode) and key in SECTIONS:
            for inner_key, inner in node.value:
                inner_line, name = inner_key.start_mark.line + 1, f"{key}.{_shown(inner_key)}"
                if isinstance(inner, yaml.ScalarNode):
                    yield name, inner, inner_line
                else:
                    problems.append(f"{path}:{inner_line}: {name}: must be a single value")
        elif key in SECTIONS:
            problems.append(f"{path}:{line}: {key}: is a section; its keys belong below it, indented")
        else:
            problems.append(f"{path}:{line}: {key}: unknown key{_suggestion(key)}")


def _shown(key: yaml.Node) -> str:
    """Give a key in printable characters, so that it cannot forge a line of our output.

    A list or a mapping is not written out: aliases in it may stand for more than there is memory for.
    """
    return printable(key.value[:MAX_KEY]) if isinstance(key, yaml.ScalarNode) else "(a key that is not text)"


def _suggestion(key: str) -> str:
    close = difflib.get_close_matches(key, [*SETTINGS, *SECTIONS], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _settings(given: dict[str, Any], base: Path) -> Settings:
    """Give each value to its attribute; relative paths start at `base`. Raises `ValueError` about bootstrap.key."""
    parts: dict[str, dict[str, Any]] = {"": {}, "policy": {}, "keys_token": {}}
    for key, setting in SETTINGS.items():
        value = given.get(key, setting.default)
        part, _, name = setting.attribute.rpartition(".")
        parts[part][name] = base / value if isinstance(value, Path) else value  # an absolute path stays as it is
    values = parts[""]
    values["client_id"] = values["client_id"].replace("{serial}", values["serial"])
    values["policy"] = Policy(**parts["policy"])
    values["keys_token"] = token = _token(**parts["keys_token"])
    if isinstance(values["bootstrap_key"], str):
        values["bootstrap_key"] = pkcs11_uri.read(values["bootstrap_key"], token)
    return Settings(**values)


def _token(module: Path | None, label: str | None, pin_source: Path | str | None) -> Token | None:
    """Put the token together; the three settings are given together or not at all."""
    if label is None:
        return None
    return Token(str(module), label, f"file:{pin_source}" if isinstance(pin_source, Path) else str(pin_source))
