import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from iot_agent.config import __main__ as config_reader
from iot_agent.config import agent_yaml
from iot_agent.config.agent_yaml import AgentYamlError
from iot_agent.core import settings
from iot_agent.core.schedule import Policy
from iot_agent.core.settings import Token, TokenKey
from iot_agent.host import subprocesses
from iot_agent.storage import identity_lock
from iot_agent.worker import mqtt
from tests.device.faulty_device import FaultyDevice

ROOT = Path(__file__).parents[2]
GOOD = """\
serial: SN-0001
endpoint:
  host: example.com
  ca_file: ca.pem
bootstrap:
  certificate: bootstrap/certificate.pem
  key: /keys/key.pem
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "agent.yaml"
    path.write_text(text)
    return path


def problems(directory: Path, text: str) -> list[str]:
    path = write(directory, text)
    with pytest.raises(AgentYamlError) as refused:
        agent_yaml.read(path)
    return str(refused.value).replace(f"{path}", "agent.yaml").splitlines()


def test_required_keys_are_enough_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    read = agent_yaml.read(write(tmp_path, GOOD))
    assert read.client_id == "SN-0001-agent"
    assert read.endpoint_ca_file == tmp_path / "ca.pem"
    assert read.bootstrap_key == Path("/keys/key.pem")
    assert read.policy == Policy()


def test_the_annotated_example_sets_every_key_that_has_a_default_to_it() -> None:
    example: dict[str, Any] = yaml.safe_load((ROOT / "config/agent.yaml").read_text())
    for key, setting in agent_yaml.SETTINGS.items():
        section, _, name = key.rpartition(".")
        shown = (example.get(section, {}) if section else example).get(name)
        if setting.default is not None and setting.default is not agent_yaml.REQUIRED:
            assert setting.parse(str(shown)) == setting.default, key


def test_values_of_one_kind_do_not_change_places(tmp_path: Path) -> None:
    text = GOOD + "manufacturer_ca: m.pem\npaths: {state: s, run: r}\nlimits: {step: 2m, key_generation: 4m}\n"
    read = agent_yaml.read(write(tmp_path, text))
    assert (read.endpoint_ca_file.name, read.manufacturer_ca) == ("ca.pem", tmp_path / "m.pem")
    assert (read.bootstrap_certificate.name, read.bootstrap_key) == ("certificate.pem", Path("/keys/key.pem"))
    assert (read.state_directory, read.run_directory) == (tmp_path / "s", tmp_path / "r")
    assert (read.step_limit, read.key_limit) == (120, 240)


def test_each_attribute_of_the_settings_has_its_row() -> None:
    """`keys_token` and `policy` are made of several rows, so their attributes are counted."""
    rows = {setting.attribute for setting in agent_yaml.SETTINGS.values()}
    parts = {"policy": Policy, "keys_token": Token}
    names = {field.name for field in fields(settings.Settings)} - parts.keys()
    assert rows == names | {f"{part}.{field.name}" for part, kind in parts.items() for field in fields(kind)}


ON_TOKEN = GOOD + "keys: {backend: pkcs11, module: /m.so, token: fleet, pin: token.pin}\n"


def test_keys_on_a_token(tmp_path: Path) -> None:
    read = agent_yaml.read(write(tmp_path, ON_TOKEN))
    assert (read.keys_backend, read.keys_token) == ("pkcs11", Token("/m.so", "fleet", f"file:{tmp_path}/token.pin"))
    read = agent_yaml.read(write(tmp_path, ON_TOKEN.replace("token.pin", "credential:token-pin")))
    assert read.keys_token == Token("/m.so", "fleet", "credential:token-pin")


def test_a_bootstrap_key_on_a_token_takes_what_it_does_not_say_from_the_keys_section(tmp_path: Path) -> None:
    read = agent_yaml.read(write(tmp_path, ON_TOKEN.replace("/keys/key.pem", "pkcs11:object=vendor")))
    assert read.bootstrap_key == TokenKey(Token("/m.so", "fleet", f"file:{tmp_path}/token.pin"), "vendor")
    assert settings.load(settings.dump(read)) == read
    whole = "pkcs11:token=other;object=vendor?module-path=/n.so&pin-source=file:/p"
    read = agent_yaml.read(write(tmp_path, GOOD.replace("/keys/key.pem", f'"{whole}"')))
    assert read.bootstrap_key == TokenKey(Token("/n.so", "other", "file:/p"), "vendor")
    assert settings.load(settings.dump(read)) == read


def test_a_bootstrap_key_on_a_token_that_nothing_names_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, GOOD.replace("/keys/key.pem", "pkcs11:object=vendor"))
    assert "bootstrap.key: 'pkcs11:object=vendor' does not say token, module-path, pin-source" in problem


def test_each_part_of_a_token_that_is_missing_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD + "keys: {backend: pkcs11, token: fleet}\n") == [
        "agent.yaml: keys.module: is required for keys on a token",
        "agent.yaml: keys.pin: is required for keys on a token",
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("keys: {pin: 1234}", "agent.yaml:8: keys.pin: must not be the PIN itself"),
        ("keys: {pin: 'credential:../x'}", "agent.yaml:8: keys.pin: 'credential:../x' is not credential:NAME"),
        (f"keys: {{token: {'x' * 33}}}", "agent.yaml:8: keys.token: "),
        (
            "retry: {first: 5}",
            "agent.yaml:8: retry.first: '5' is not a number with a unit of time",
        ),
        (
            "retry: {first: 0s}",
            "agent.yaml:8: retry.first: '0s' is not a number with a unit of time",
        ),
        ("retry:\n  fist: 5s", "agent.yaml:9: retry.fist: unknown key; did you mean retry.first?"),
        ("colour: red", "agent.yaml:8: colour: unknown key"),
        ("serial: SN-2", "agent.yaml:8: serial: is set for the second time (first on line 1)"),
        ("keys: file", "agent.yaml:8: keys: is a section; its keys belong below it, indented"),
        ("keys: {algorithm: rsa-1024}", "'rsa-1024' is not one of ec-p256, ec-p384, rsa-2048, rsa-3072"),
        ("renewal: {at: 1.5}", "agent.yaml:8: renewal.at: '1.5' is not between 0 and 1"),
        ("renewal: {at: soon}", "agent.yaml:8: renewal.at: 'soon' is not a fraction, like 2/3, 0.66 or 66%"),
        (
            "renewal: {at: 80%, spread: 10%}",
            "agent.yaml:8: renewal: at + spread must not exceed 0.85",
        ),
        ("renewal: {at: 1e-9000000}", "agent.yaml:8: renewal.at: '1e-9000000' is not a fraction"),
        ("renewal: {at: 1/0}", "agent.yaml:8: renewal.at: '1/0' is not a fraction"),
        ("limits: {step: 10s}", "agent.yaml:8: limits.step: '10s' is not from 2m to 1h"),
        ("limits: {step: 9d}", "agent.yaml:8: limits.step: '9d' is not from 2m to 1h"),
        ("limits: {key_generation: 1s}", "agent.yaml:8: limits.key_generation: '1s' is not from 30s to 1h"),
        ("retry: {longest: 99999d}", "agent.yaml:8: retry.longest: '99999d' is not from 1s to 7d"),
        (r'log: {level: "\x1b[2J"}', r"agent.yaml:8: log.level: '\x1b[2J' is not one of"),
        (r'"a\nagent.yaml:1: b\e[2J": c', "agent.yaml:8: a agent.yaml:1: b?[2J: unknown key"),
        (
            r'manufacturer_ca: "a\0b"',
            "agent.yaml:8: manufacturer_ca: 'a\\x00b' contains characters that cannot be printed",
        ),
        (f"manufacturer_ca: {'a' * 4097}", "agent.yaml:8: manufacturer_ca: is longer than 4096 characters"),
        (
            "metrics: {textfile: /}",
            "agent.yaml:8: metrics.textfile: '/' is neither off nor a file",
        ),
        (
            "metrics: {textfile: /run/.prom}",
            "metrics.textfile: '/run/.prom' is neither off nor a file",
        ),
        ("metrics: {textfile: /var/lib/iot-agent/state.json}", "is neither off nor a file whose name ends in .prom"),
        ("metrics: {textfile: /var/lib/iot-agent/a.prom}", "metrics.textfile: /var/lib/iot-agent/a.prom is inside"),
        ("metrics: {textfile: /run/../var/lib/iot-agent/identities/a.prom}", "is inside paths.state"),
        ("topic_prefix: a/#", "is not a topic of one to four levels without wildcards"),
        ("identity: {group: a b}", "agent.yaml:8: identity.group: 'a b' is not the name of a group"),
        ("client_id: '*'", "agent.yaml:8: client_id: '*' is not letters, digits"),
        ("log: {level: [debug]}", "agent.yaml:8: log.level: must be a single value"),
        ("a: b: c", "agent.yaml:8: not YAML: mapping values are not allowed here"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(line: str, complaint: str, tmp_path: Path) -> None:
    assert any(complaint in problem for problem in problems(tmp_path, GOOD + line + "\n"))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    told = problems(tmp_path, "serial: a b\nendpoint: {port: 99999}\n")
    assert told == [
        "agent.yaml:1: serial: 'a b' is not 1 to 64 letters, digits, ':', '_' or '-' (a thing name and a common name)",
        "agent.yaml:2: endpoint.port: '99999' is not a port, like 8883",
        "agent.yaml: endpoint.host: is required and missing",
        "agent.yaml: endpoint.ca_file: is required and missing",
        "agent.yaml: bootstrap.certificate: is required and missing",
        "agent.yaml: bootstrap.key: is required and missing",
    ]


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "42", "\0", "&a [*a]", "!!python/object:os.system {}", "[" * 5000])
def test_what_is_not_a_configuration_is_refused(text: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentYamlError, match=r"agent\.yaml: cannot be read: No such file"):
        agent_yaml.read(tmp_path / "agent.yaml")


NUMBERS = [key for key, setting in agent_yaml.SETTINGS.items() if isinstance(setting.default, int | float)]
HUGE = [
    "9" * 4000,
    "0." + "9" * 4000,
    "1/" + "9" * 4000,
    "1e9000000",
    "1e-9000000",
    "9" * 4000 + "d",
    "-1",
    "inf",
    "nan",
    "\u0661",
]


def test_every_kind_of_number_is_meant() -> None:
    assert {"renewal.at", "limits.step", "retry.prove_attempts", "endpoint.port", "check_in.every"} < set(NUMBERS)


@pytest.mark.parametrize("value", HUGE, ids=lambda value: value[:12])
def test_no_number_takes_long_or_becomes_another_one(value: str, tmp_path: Path) -> None:
    """In a process that may use four seconds of a processor: what is refused is refused before it is computed."""
    file: dict[str, Any] = yaml.safe_load(GOOD)
    for key in NUMBERS:
        section, _, name = key.partition(".")
        file.setdefault(section, {})[name] = value
    path = write(tmp_path, yaml.safe_dump(file))
    done = run_child(path, "prlimit", "--cpu=4")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["problems"]
    assert all(f"{key}: '{value[:5]}" in told for key in NUMBERS)


def test_a_link_into_the_state_directory_leads_no_metrics_there(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "state")
    text = GOOD + "paths: {state: state}\nmetrics: {textfile: elsewhere/iot-agent.prom}\n"
    (problem,) = problems(tmp_path, text)
    assert "is inside paths.state" in problem
    read = agent_yaml.read(write(tmp_path, text.replace("elsewhere", "run")))
    assert read.metrics_textfile == tmp_path / "run/iot-agent.prom"


def test_a_step_may_take_as_long_as_all_that_it_may_have_to_wait_for() -> None:
    answers = 2 * (mqtt.ACK_TIMEOUT + 5) + mqtt.REPLY_TIMEOUT  # to subscribing and to publishing, and the reply
    connecting = mqtt.CONNECT_TRIES * mqtt.CONNECT_SPACING[1] + mqtt.CONNECT_TIMEOUT
    assert identity_lock.LONGEST_WAIT + connecting + answers <= agent_yaml.LEAST_STEP
    assert agent_yaml.LEAST_KEY_GENERATION > identity_lock.LONGEST_WAIT


def run_child(path: Path, *before: str) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "iot_agent.config"]
    request, environment = json.dumps({"path": str(path), "starting": False}), {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, input=request, capture_output=True, text=True, check=False, env=environment)


def test_settings_survive_the_way_from_the_child(tmp_path: Path) -> None:
    patient = FaultyDevice(tmp_path)
    answer = json.loads(run_child(tmp_path / "agent.yaml").stdout)
    assert settings.load(answer["settings"]) == patient.settings()


def test_the_child_tells_every_problem_of_a_wrong_file(tmp_path: Path) -> None:
    done = run_child(write(tmp_path, "x: 1\ny: 2"))
    told = json.loads(done.stdout)
    assert (told.keys(), told["files"]) == ({"problems", "files"}, [])
    assert "x: unknown key" in told["problems"]
    assert "y: unknown key" in told["problems"]


def test_an_answer_of_the_child_is_bounded(tmp_path: Path) -> None:
    many = write(tmp_path, "".join(f"k{number}: 1\n" for number in range(7000)))
    with pytest.raises(subprocesses.BadConfiguration, match="unknown key") as told:
        subprocesses.read_configuration(many)
    assert (len(str(told.value)), told.value.passing) == (config_reader.LONGEST_PROBLEMS, False)
