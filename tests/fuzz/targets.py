"""Each parser of bytes that somebody else wrote, as a function of those bytes, and what it may raise.

Whatever else a target raises is a finding; so is a promise that does not hold (`AssertionError`). Inputs are what comes
in, with two exceptions: the record is also tried under a checksum that fits, and X.509 is also taken as DER, because
chance finds neither.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import selectors
import socket
import tempfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from boto3.dynamodb.types import DYNAMODB_CONTEXT

from cloud.common import serial_list
from cloud.fleet import listing
from cloud.rotation import agenda, csr, devices, messages
from cloud.rotation.handler import RequestHandler
from cloud.rotation.messages import MalformedError
from iot_agent.config import agent_yaml
from iot_agent.core import codec, protocol, settings
from iot_agent.core.errors import AgentError, Fatal, Retryable
from iot_agent.core.settings import Token
from iot_agent.doctor import findings
from iot_agent.doctor.rules import daemon
from iot_agent.host import control_socket, journal
from iot_agent.keys import certificates, pin, pkcs11_uri, token_messages
from iot_agent.keys.remote_key import remote_key
from iot_agent.status import text
from iot_agent.storage import atomic
from iot_agent.storage.identities import IdentityDirectories
from tests.simulator.cloud import BOOTSTRAP_POLICY, VENDOR_CA, Listed, SimulatedCloud

NOW = 1_795_000_000.0
SERIAL = "SN-0001"
LABEL = "iot-agent-20260901T000000Z-00000001"
TOKEN = Token("/usr/lib/module.so", "fleet", "file:/etc/iot-agent/token.pin")
LARGEST = 16 * 1024  # bytes of an input to a parser that has no limit of its own: who calls it has read no more


@dataclass(frozen=True)
class Target:
    """`parse` may raise what is in `declared`; a parser that has a `limit` (bytes) refuses more before it looks."""

    name: str
    parse: Callable[[bytes], object]
    declared: tuple[type[Exception], ...]
    limit: int | None

    @property
    def most(self) -> int:
        """How long an input may be (bytes): a little longer than the parser takes."""
        return (self.limit or LARGEST) + 256

    def run(self, data: bytes) -> bool:
        """Parse an input; tells whether it was taken or refused. Raises what is a finding."""
        try:
            self.parse(data)
        except self.declared:
            return False
        return True


TARGETS: dict[str, Target] = {}
Parse = Callable[[bytes], object]


def target(name: str, *declared: type[Exception], limit: int | None = None) -> Callable[[Parse], Parse]:
    """Make a target of a function."""

    def add(parse: Parse) -> Parse:
        TARGETS[name] = Target(name, parse, declared, limit)
        return parse

    return add


# --- the device's half of the wire, and the cloud's -------------------------------------------------------------------


def _fit(read: Any) -> None:  # noqa: ANN401 - one of the replies
    fields = asdict(read)
    for value in (*fields.values(), *(fields.get("renew") or {}).values()):
        if isinstance(value, int):
            assert 0 <= value <= protocol.MAX_NUMBER
        if isinstance(value, str) and not value.lstrip().startswith("-----BEGIN"):
            assert value.isprintable() and len(value) <= protocol.MAX_TEXT  # noqa: PT018 - one promise


@target("create-response", protocol.Malformed, limit=protocol.MAX_PAYLOAD)
def _create_response(data: bytes) -> None:
    _fit(protocol.parse_create_response(data))


@target("ack-response", protocol.Malformed, limit=protocol.MAX_PAYLOAD)
def _ack_response(data: bytes) -> None:
    _fit(protocol.parse_ack_response(data))


@target("check-in-response", protocol.Malformed, limit=protocol.MAX_PAYLOAD)
def _check_in_response(data: bytes) -> None:
    _fit(protocol.parse_check_in_response(data))


@target("create-request", MalformedError, limit=messages.MAX_PAYLOAD)
def _create_request(data: bytes) -> None:
    read = messages.parse_create(data)
    assert messages.parse_create(json.dumps(asdict(read)).encode()) == read


@target("ack-request", MalformedError, limit=messages.MAX_PAYLOAD)
def _ack_request(data: bytes) -> None:
    read = messages.parse_ack(data)
    assert messages.parse_ack(json.dumps(asdict(read)).encode()) == read


@target("check-in-request", MalformedError, limit=messages.MAX_PAYLOAD)
def _check_in_request(data: bytes) -> None:
    read = messages.parse_check_in(data)
    assert json.loads(read.report_text()) == read.report
    assert messages.parse_check_in(json.dumps(asdict(read)).encode()) == read


@target("registered-event", MalformedError, limit=messages.MAX_PAYLOAD)
def _registered_event(data: bytes) -> None:
    messages.parse_registered(data)


@target("topic", MalformedError)
def _topic(data: bytes) -> None:
    topic = data.decode(errors="replace")
    address = messages.parse_address("cert-rotation", topic)
    assert address.reply_to == topic.removesuffix("rqst") + "rspn"


@cache
def _cloud() -> tuple[SimulatedCloud, str, Listed]:
    cloud = SimulatedCloud(lambda: NOW, 30 * 86400)
    pem, _ = cloud.vendor.issue(SERIAL, NOW)
    return cloud, certificates.examine(pem, None, _expectation()).facts.certificate_id, Listed(pem, "ACTIVE", VENDOR_CA)


@target("lambda")
def _lambda(data: bytes) -> None:
    """Have the whole Lambda serve a message of an allowed device; whatever it is, there is one answer, and no error."""
    cloud, principal, vendor = _cloud()
    for verb, kind in (("create-man-cert", "create"), ("ack-man-cert", "ack"), ("check-in", "check-in")):
        cloud.allow(SERIAL)
        cloud.register.entries = {principal: Listed(vendor.pem, vendor.status, vendor.ca, {BOOTSTRAP_POLICY})}
        cloud.register.said.clear()
        topic = f"cert-rotation/{verb}/{SERIAL}/rqst"
        event = {"event": kind, "topic": topic, "principal": principal, "data": base64.b64encode(data).decode()}
        with contextlib.redirect_stdout(io.StringIO()):
            RequestHandler(cloud.desk.world, cloud.desk.prefix).serve(event)
        (answer,) = cloud.register.said
        assert isinstance(json.loads(answer[1]), dict)
        assert len(answer[1]) <= messages.MAX_PAYLOAD


@target("advice")
def _advice(data: bytes) -> None:
    """Read a device's item in which an operator has written the advice by hand; others must be shown all the same."""
    try:
        number = DYNAMODB_CONTEXT.create_decimal
        written = json.loads(data, parse_float=number, parse_int=number)
        json.dumps(written, ensure_ascii=False, default=str).encode()
    except (ValueError, ArithmeticError, RecursionError):
        return  # no such item is in DynamoDB: text is UTF-8, a number has 38 digits and at most 125 zeros
    item: dict[str, Any] = {"serial": SERIAL, "state": "ALLOWED", "version": Decimal(1), "renew": written}
    device, now = devices.read(item), int(NOW * 1000)
    agenda.next_look(device, now)
    listing.notes(device, now)
    messages.encode(messages.CheckInResponse("r-1", now, device.renew))


# --- X.509 ------------------------------------------------------------------------------------------------------------


def _pem(data: bytes, name: str) -> str:
    if b"-----" in data:
        return data.decode(errors="replace")
    return f"-----BEGIN {name}-----\n{base64.encodebytes(data).decode()}-----END {name}-----\n"


def _expectation() -> certificates.Expectation:
    return certificates.Expectation(b"", SERIAL, None, NOW)


@target("csr", csr.BadCsrError, limit=messages.MAX_CSR)
def _csr(data: bytes) -> None:
    csr.check(_pem(data, "CERTIFICATE REQUEST"), SERIAL)


@target("registered-certificate")
def _registered_certificate(data: bytes) -> None:
    csr.subject_and_end(_pem(data, "CERTIFICATE"))


@target("certificate", ValueError)
def _certificate(data: bytes) -> None:
    pem = _pem(data, "CERTIFICATE")
    with contextlib.suppress(Retryable):
        certificates.check_fit(pem, pem, _expectation())
    certificates.examine(pem, pem, _expectation())


@target("issuers", ValueError)
def _issuers(data: bytes) -> None:
    assert certificates.load_issuers(_pem(data, "CERTIFICATE"))


@target("private-key", Fatal)
def _private_key(data: bytes) -> None:
    certificates.public_key(certificates.load_key(_pem(data, "PRIVATE KEY").encode(errors="replace")))


# --- what is on the disk ----------------------------------------------------------------------------------------------


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp())


@target("record", codec.Damaged, codec.LaterFormat)
def _record(data: bytes) -> None:
    try:
        body = json.dumps(json.loads(data)["record"], separators=(",", ":"))
    except (ValueError, LookupError, TypeError, RecursionError):
        return _same_record(data)
    with contextlib.suppress(codec.Damaged, codec.LaterFormat):
        _same_record(data)
    return _same_record(f'{{"format": 1, "crc32": "{zlib.crc32(body.encode()):08x}", "record": {body}}}'.encode())


def _same_record(data: bytes) -> None:
    record = codec.decode_record(data)
    assert codec.decode_record(codec.encode_record(record)) == record


@target("facts", limit=atomic.MAX_READ)
def _facts(data: bytes) -> None:
    directory = _scratch() / "identities" / LABEL
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("key.pem", "certificate.pem"):
        (directory / name).write_bytes(b"x")
    (directory / "identity.json").write_bytes(data)
    identities = IdentityDirectories(_scratch())
    assert {identity.label for identity in identities.complete()} <= {LABEL}
    assert identities.orphans() == frozenset()


@target("agent-yaml", agent_yaml.AgentYamlError, limit=agent_yaml.MAX_SIZE)
def _agent_yaml(data: bytes) -> None:
    path = _scratch() / "agent.yaml"
    path.write_bytes(data)
    try:
        given = agent_yaml.read(path)
    except agent_yaml.AgentYamlError as problem:
        for line in str(problem).split("\n"):
            assert line.startswith(f"{path}:") and line.isprintable()  # noqa: PT018 - one promise: one line a problem
        raise
    assert settings.load(settings.dump(given)) == given


@target("key-uri", ValueError)
def _key_uri(data: bytes) -> None:
    key = pkcs11_uri.read(data.decode(), TOKEN)
    assert pkcs11_uri.read(pkcs11_uri.write(key)) == key


@target("pin", Retryable, limit=atomic.MAX_READ)
def _pin(data: bytes) -> None:
    """Take an input for the PIN, and for what is remembered of a PIN that was refused."""
    secret = _scratch() / "token.pin"
    secret.touch(0o600)
    secret.write_bytes(data)
    refused = _scratch() / f"pin-refused-{TOKEN.label.encode().hex()}.json"
    refused.write_bytes(data)
    pin.SCRYPT["n"] = 2  # how hard a PIN is to guess does not matter here, how often it is tried does
    assert pin.PinSources(_scratch()).read(Token(TOKEN.module, TOKEN.label, f"file:{secret}"))


# --- between processes ------------------------------------------------------------------------------------------------


@target("outcome", codec.Damaged)
def _outcome(data: bytes) -> None:
    outcome = codec.decode_outcome(data)
    assert codec.decode_outcome(codec.encode_outcome(outcome)) == outcome


@target("worker-request", codec.Damaged, codec.LaterFormat)
def _worker_request(data: bytes) -> None:
    request = codec.decode_request(data)
    assert codec.decode_request(codec.encode_request(request)) == request


@target("settings", ValueError)
def _settings(data: bytes) -> None:
    given = settings.load(data.decode())
    assert settings.load(settings.dump(given)) == given


@target("token-request", ValueError)
def _token_request(data: bytes) -> None:
    request = token_messages.decode_request(data)
    assert token_messages.decode_request(token_messages.encode_request(request)) == request


@target("token-answer", AgentError, ValueError)
def _token_answer(data: bytes) -> None:
    for operation in token_messages.RESULTS:
        with contextlib.suppress(AgentError, ValueError):
            token_messages.decode_answer(data, operation)
    certificates.public_key(remote_key(token_messages.decode_answer(data, "public_key"), bytes))


@target("finding", ValueError)
def _finding(data: bytes) -> None:
    finding = findings.decode(data)
    assert findings.decode(findings.encode(finding)) == finding
    findings.write(finding)


@target("control-request", limit=control_socket.MAX_REQUEST)
def _control_request(data: bytes) -> None:
    """Be a client of the daemon's socket; the daemon neither fails nor waits, and has no client at the end."""
    path = _scratch() / "request.sock"
    path.unlink(missing_ok=True)
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as client:
        server = control_socket.ControlServer(path, selector, lambda command: {"ok": True, "command": command})
        client.connect(str(path))
        client.setblocking(False)  # noqa: FBT003 - positional only
        rest = memoryview(data)
        for _ in range(3 + len(data) // control_socket.MAX_REQUEST):
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                rest = rest[client.send(rest) :]
            if not rest:
                client.shutdown(socket.SHUT_WR)
            for key, _ in selector.select(0):
                key.data()
        assert not [key for key in selector.get_map().values() if key.fileobj is not server._listener]
        server.close()


@cache
def _daemon() -> tuple[Path, list[bytes]]:
    """Start a daemon that answers with what is in the list."""
    path, answers = _scratch() / "answer.sock", [b""]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(answers[0])

    threading.Thread(target=serve, daemon=True).start()
    return path, answers


@target("control-answer", OSError, *control_socket.SENSELESS, limit=control_socket.MAX_REPLY)
def _control_answer(data: bytes) -> None:
    """Show what a daemon answers, as agentctl and the doctor do."""
    path, answers = _daemon()
    answers[0] = data
    answer = text.safe(control_socket.ask(path, "status"))
    with contextlib.suppress(*control_socket.SENSELESS):
        text.history(answer["history"])
    with contextlib.suppress(*control_socket.SENSELESS):
        for found in list(daemon.judge(answer["status"])):
            findings.write(found)  # whatever was judged can be shown
    text.status(answer["status"])


# --- text -------------------------------------------------------------------------------------------------------------


@target("serial-list")
def _serial_list(data: bytes) -> None:
    rows, faults = serial_list.read(data.decode(errors="replace").splitlines(), messages.SERIAL)
    assert all(messages.SERIAL.fullmatch(row.serial) for row in rows)
    assert len({row.serial for row in rows}) == len(rows)
    assert all(str(fault) for fault in faults)


@target("log-line")
def _log_line(data: bytes) -> None:
    line = journal.redact(data.decode(errors="surrogateescape"))
    assert not re.search("-----BEGIN [A-Z ]*PRIVATE KEY-----", line)
    assert all(part.isprintable() for part in line.split("\n"))
    journal.datagram({"MESSAGE": line})
