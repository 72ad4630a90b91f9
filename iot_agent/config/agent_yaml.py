"""agent.yaml into `Settings`: units parsed once, unknown keys and bad values refused with file and line.

The only importer of yaml; loaded by `reader`, a child of the daemon, and never by the daemon itself. What the file may
make us compute is bounded before it is computed: lengths of values, digits of numbers, and what a span may last.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from iot_agent.core.errors import printable
from iot_agent.core.schedule import Policy
from iot_agent.core.settings import Settings, Token, TokenKey
from iot_agent.keys import pkcs11_uri

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
HOUR, DAY = 3600.0, 86400.0
# What a step may have to wait for and still succeed: the doctor's turn, connections that the cloud closes, a handshake,
# the answers to subscribing and publishing, the reply. A limit below that would turn silence, which has a name and a
# remedy, into a step that was stopped; a test adds it up from the constants of `mqtt` and `turns`.
LEAST_STEP = 120.0
LEAST_KEY_GENERATION = 30.0  # the doctor's turn, and the processes that make a key, on a small board
LONGEST_LIMIT = HOUR  # a step that hangs must not hold up a renewal for longer
REQUIRED = object()
ALGORITHMS = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072")
MAX_SIZE = 64 * 1024
MAX_VALUE = 4096  # characters, and the longest path (limits.h)
MAX_DEPTH = 8  # levels; the file has two
MAX_KEY = 64  # characters of a key that are looked at, and shown


class BadConfiguration(Exception):
    """One line for each problem: `file:line: key: what is wrong, and what would be right`."""


@dataclass(frozen=True)
class Setting:
    """How one key is read: `parse` raises ValueError with the rest of the sentence."""

    parse: Callable[[str], Any]
    default: Any = REQUIRED


def _text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    if not value.isprintable():
        raise ValueError(f"{value!r} holds characters that cannot be printed")
    return value


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


def _span(least: float, most: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", value)
        if not match or float(match[1]) == 0:
            raise ValueError(f"{value!r} is not a span of time with its unit, like 30s, 5m, 12h or 90d")
        seconds = float(match[1]) * UNITS[match[2]]
        if not least <= seconds <= most:
            raise ValueError(f"{value!r} is not from {_spelled(least)} to {_spelled(most)}")
        return seconds

    return parse


def _spelled(seconds: float) -> str:
    """Write a span as it is written in the file: in the largest unit of which it is a whole number."""
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


def _metrics_file(value: str) -> str | None:
    """Take `off`, or a file as node_exporter's textfile collector reads them: it passes over all others."""
    if value == "off":
        return None
    if not _text(value).endswith(".prom") or Path(value).name == ".prom":
        raise ValueError(f"{value!r} is not a file whose name ends in .prom, which is what node_exporter reads; or off")
    return value


def _token_label(value: str) -> str:
    if len(_text(value).encode()) > 32:  # noqa: PLR2004 - PKCS #11, CK_TOKEN_INFO
        raise ValueError(f"{value!r} is not the label of a token: 1 to 32 bytes")
    return value


def _pin(value: str) -> str:
    if value.isdecimal():
        raise ValueError("must not be the PIN itself, but say where it is: a file, or credential:NAME")
    if value.startswith("credential:") and not re.fullmatch(r"credential:[A-Za-z0-9_.-]+", value):
        raise ValueError(f"{value!r} is not credential:NAME, a systemd credential of the unit")
    return _text(value)


def _key(value: str) -> str:
    if value.startswith(pkcs11_uri.SCHEME):
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


SETTINGS = {
    "serial": Setting(_serial),
    "endpoint.host": Setting(_text),
    "endpoint.port": Setting(_port, 8883),
    "endpoint.ca_file": Setting(_text),
    "client_id": Setting(_client_id, "{serial}-agent"),
    "topic_prefix": Setting(_prefix, "cert-rotation"),
    "manufacturer_ca": Setting(_text, None),
    "bootstrap.certificate": Setting(_text),
    "bootstrap.key": Setting(_key),
    "keys.backend": Setting(_one_of("file", "pkcs11"), "file"),
    "keys.algorithm": Setting(_one_of(*ALGORITHMS), "ec-p256"),
    "keys.module": Setting(_text, None),
    "keys.token": Setting(_token_label, None),
    "keys.pin": Setting(_pin, None),
    "renewal.at": Setting(_fraction, Policy.renewal_fraction),
    "renewal.spread": Setting(_fraction, Policy.renewal_spread),
    "renewal.minimum_interval": Setting(_span(1.0, 365 * DAY), Policy.minimum_interval),
    "retry.first": Setting(_span(0.1, HOUR), Policy.retry_base),
    "retry.longest": Setting(_span(1.0, 7 * DAY), Policy.retry_cap),
    "retry.prove_attempts": Setting(_attempts, Policy.prove_attempts),
    "check_in.every": Setting(_span(1.0, 365 * DAY), Policy.check_in_interval),
    "limits.step": Setting(_span(LEAST_STEP, LONGEST_LIMIT), 180.0),
    "limits.key_generation": Setting(_span(LEAST_KEY_GENERATION, LONGEST_LIMIT), 300.0),
    "identity.group": Setting(_group, None),
    "paths.state": Setting(_text, "/var/lib/iot-agent"),
    "paths.run": Setting(_text, "/run/iot-agent"),
    "log.level": Setting(_one_of("debug", "info", "warning", "error"), "info"),
    "metrics.textfile": Setting(_metrics_file, None),
}
OF_A_TOKEN = ("keys.module", "keys.token", "keys.pin")
SECTIONS = {key.split(".")[0] for key in SETTINGS if "." in key}
RENEWAL_END = 0.85


def read(path: Path) -> Settings:
    """Read and check a configuration file; raises `BadConfiguration` with every problem found."""
    try:
        text = path.read_bytes()
        if len(text) > MAX_SIZE:
            raise BadConfiguration(f"{path}: larger than {MAX_SIZE} bytes; is this the right file?")
        root = yaml.compose(text, Loader=_Loader)
    except OSError as error:
        raise BadConfiguration(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadConfiguration(f"{path}:{line}: not YAML: {printable(str(error.problem))}") from error
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        # The last two: of a number too large to be a character, or a version, which PyYAML does not look at first.
        raise BadConfiguration(f"{path}: not YAML: {printable(str(error))}") from error
    if root is None:
        raise BadConfiguration(
            f"{path}: nothing is set yet: copy the bundle that was made for this device to {path.absolute().parent}, "
            "or set serial, endpoint and bootstrap here"
        )
    values, problems = _collect(root, path)
    if problems:
        raise BadConfiguration("\n".join(problems))
    try:
        settings = _settings(values, path.absolute().parent)
    except ValueError as error:
        raise BadConfiguration(f"{path}: bootstrap.key: {error}") from error
    if settings.metrics_textfile is not None and _is_inside(settings.metrics_textfile, settings.state_directory):
        said = f"{settings.metrics_textfile} is inside paths.state, which holds keys and the record; put it elsewhere"
        raise BadConfiguration(f"{path}: metrics.textfile: {said}, like {settings.run_directory}/iot-agent.prom")
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
    """Say whether `file` would be made somewhere in `directory`, whatever links and `..` lead there."""
    return Path(os.path.realpath(file.parent)).is_relative_to(os.path.realpath(directory))


def _collect(root: yaml.Node | None, path: Path) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for key, node, line in _scalars(root, problems, str(path)):
        if key in lines:
            problems.append(f"{path}:{line}: {key}: is here for the second time (first on line {lines[key]})")
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
        problems.append(f"{path}:{line}: renewal: at + spread must not pass {RENEWAL_END}: retries need the rest")
    return values, problems


def _scalars(root: yaml.Node | None, problems: list[str], path: str) -> Iterator[tuple[str, yaml.ScalarNode, int]]:
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
    """Give a key as it may be shown, whatever is in it: no line of ours may be forged by it.

    A list or a mapping is not written out: aliases in it may stand for more than there is memory for.
    """
    return printable(key.value[:MAX_KEY]) if isinstance(key, yaml.ScalarNode) else "(a key that is not text)"


def _suggestion(key: str) -> str:
    import difflib  # noqa: PLC0415 - only when something is wrong

    close = difflib.get_close_matches(key, [*SETTINGS, *SECTIONS], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _settings(given: dict[str, Any], base: Path) -> Settings:
    values = {key: given.get(key, setting.default) for key, setting in SETTINGS.items()}

    def path(key: str) -> Path:
        return base.joinpath(values[key])  # an absolute path stays as it is

    token = None
    if values["keys.token"] is not None:
        pin = values["keys.pin"] if values["keys.pin"].startswith("credential:") else f"file:{path('keys.pin')}"
        token = Token(str(path("keys.module")), values["keys.token"], pin)
    bootstrap_key: Path | TokenKey = path("bootstrap.key")
    if values["bootstrap.key"].startswith(pkcs11_uri.SCHEME):
        bootstrap_key = pkcs11_uri.read(values["bootstrap.key"], token)
    return Settings(
        serial=values["serial"],
        endpoint_host=values["endpoint.host"],
        endpoint_port=values["endpoint.port"],
        endpoint_ca_file=path("endpoint.ca_file"),
        client_id=values["client_id"].replace("{serial}", values["serial"]),
        topic_prefix=values["topic_prefix"],
        manufacturer_ca=None if values["manufacturer_ca"] is None else path("manufacturer_ca"),
        bootstrap_certificate=path("bootstrap.certificate"),
        bootstrap_key=bootstrap_key,
        keys_backend=values["keys.backend"],
        keys_algorithm=values["keys.algorithm"],
        keys_token=token,
        policy=Policy(
            renewal_fraction=values["renewal.at"],
            renewal_spread=values["renewal.spread"],
            minimum_interval=values["renewal.minimum_interval"],
            retry_base=values["retry.first"],
            retry_cap=values["retry.longest"],
            prove_attempts=values["retry.prove_attempts"],
            check_in_interval=values["check_in.every"],
        ),
        step_limit=values["limits.step"],
        key_limit=values["limits.key_generation"],
        identity_group=values["identity.group"],
        state_directory=path("paths.state"),
        run_directory=path("paths.run"),
        log_level=values["log.level"],
        metrics_textfile=None if values["metrics.textfile"] is None else path("metrics.textfile"),
    )
