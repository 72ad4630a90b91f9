"""Real workers against a hostile broker over mutual TLS: bounded in memory and time, and told for what it is.

A step that never ends is stopped at its limit, and that is another outcome than the one that each test asks for.
"""

import itertools
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iot_agent.core.codec import Request, encode_request
from iot_agent.core.record import Kind
from tests.device.faulty_device import FaultyDevice, plain_server
from tests.device.hostile import Asked, Manners, packet
from tests.keys.broker import mutual_tls
from tests.simulator.authority import Authority

ROOT = Path(__file__).parents[2]
HURRY = "from iot_agent.worker import mqtt; mqtt.REPLY_TIMEOUT = mqtt.ACK_TIMEOUT = 3\n"
LIMIT = 45.0  # seconds for a step: longer than any wait that it is made of
MOST = 160  # MiB of memory in use: a worker that does its work takes 60
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
Told = dict[str, Any]


class Exposed(FaultyDevice):
    """A device that trusts the CA `endpoint` for its broker."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.endpoint = Authority("Endpoint CA", self.now)
        (directory / "endpoint-ca.pem").write_text(self.endpoint.pem)


@pytest.fixture
def patient(disk: Path) -> Exposed:
    (disk / "device").mkdir()
    return Exposed(disk / "device")


def check_in(patient: Exposed, port: int, changed: str = "") -> Told:
    """Let a worker check in at `port`, perhaps one that is changed; give its outcome, and its most memory (MiB)."""
    patient.configure(port)
    settings = replace(patient.settings(), step_limit=LIMIT)
    request = Request(Kind.CHECK_IN, patient.record, patient.now, clock_trusted=True, settings=settings)
    (patient.directory / "sitecustomize.py").write_text(changed)  # Python loads it before everything else
    paths = f"{patient.directory}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.device.measured"],
        input=encode_request(request),
        capture_output=True, check=True, timeout=2 * LIMIT, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    told: Told = json.loads(done.stdout)
    return {**told["outcome"], "peak": told["peak_mib"]}


def meet(patient: Exposed, behave: Callable[[ssl.SSLSocket], object], changed: str = "") -> Told:
    """Check in with a broker that is trusted, and behaves so."""
    with mutual_tls(patient.directory, patient.manufacturer, patient.endpoint, behave=behave) as broker:
        return check_in(patient, broker.port, changed)


def check(told: Told, code: str, words: str) -> None:
    assert (told["outcome"], told.get("code")) == ("Failed", code), told
    assert words in told["message"], told
    assert told["message"].isprintable(), told
    assert len(told["message"]) <= 1024, told
    assert told["peak"] < MOST, told


# ---- answers --------------------------------------------------------------------------------------------------------


def error(asked: Asked, message: str, after: int | None = 60) -> None:
    asked.answer(error={"code": "x", "message": message, "retry_after_s": after})


def endless_json(asked: Asked) -> None:
    """Begin a packet of 100 MiB, and go on with it."""
    asked.session.sendall(packet(0x30, b"\0\1r\0" + b"[" * (100 * 2**20)))


DIGITS = b'{"request_id": "x", "time": 1' + b"0" * 400 + b"}"
ANSWERS: dict[str, tuple[Callable[[Asked], object], str, str]] = {
    "100 MiB": (endless_json, "worker-crashed", "SIGABRT"),
    "not JSON": (lambda asked: asked.say(b"hello"), "bad-reply", "not JSON"),
    "nothing": (lambda asked: asked.say(b""), "bad-reply", "not JSON"),
    "too deep": (lambda asked: asked.say(b"[" * 60_000), "bad-reply", "nested deeper than 16"),
    "too long": (lambda asked: asked.say(b'"' + b"x" * 100_000 + b'"'), "bad-reply", "more than 65536"),
    "a time of 400 digits": (lambda asked: asked.say(DIGITS), "bad-reply", "before the year 10000"),
    "a number of 5,000 digits": (lambda asked: asked.say(b"1" * 5000), "bad-reply", "not JSON"),
    "a time of the year 10000": (lambda asked: asked.answer(time=253402300800000), "bad-reply", "before the year"),
    "half of a UTF-16 pair": (lambda asked: asked.answer(time="\ud800"), "bad-reply", "time"),
    "half of a pair in an error": (lambda asked: error(asked, "\ud800!"), "cloud-error", "x: ?!"),
    "escape sequences": (lambda asked: error(asked, "a\nREADY=1\x1b[2J"), "cloud-error", "x: a READY=1?[2J"),
    "an error that is too long": (lambda asked: error(asked, "y" * 50_000), "cloud-error", "x: yyy"),
    "a wait of 400 digits": (lambda asked: error(asked, "y", 10**399), "bad-reply", "retry_after_s"),
}


@pytest.mark.parametrize(("answer", "code", "words"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_bounded(patient: Exposed, answer: Callable[[Asked], object], code: str, words: str) -> None:
    check(meet(patient, Manners(answer=answer)), code, words)


def foreign(asked: Asked) -> None:
    asked.say_for_ever(b"x" * 10_000, "somebody/else")


def meant_for_another(asked: Asked) -> None:
    asked.say_for_ever(json.dumps({"request_id": "another", "time": 1, "x": "y" * 10_000}).encode())


@pytest.mark.parametrize("flood", [foreign, meant_for_another])
def test_a_flood_keeps_no_step_alive_and_fills_no_memory(patient: Exposed, flood: Callable[[Asked], object]) -> None:
    check(meet(patient, Manners(answer=flood), HURRY), "no-reply", "within 3 s")


def among_others(asked: Asked) -> None:
    for _ in range(100):
        asked.say(b"not even JSON", "somebody/else")
    asked.say(b'{"request_id": "another", "time": 1}')
    asked.answer(time=1_800_000_000_000)


def test_an_answer_is_found_among_others(patient: Exposed) -> None:
    told = meet(patient, Manners(answer=among_others))
    assert (told["outcome"], told.get("cloud_time")) == ("CheckedIn", 1_800_000_000), told


# ---- the packets before an answer -----------------------------------------------------------------------------------

BAD_PACKETS: dict[str, tuple[Manners, str, str]] = {
    "closes after CONNECT": (Manners(connack=None), "refused", "closed the connection"),
    "closes after SUBSCRIBE": (Manners(suback=None), "connection-lost", "subscribe failed"),
    "closes after PUBLISH": (Manners(puback=None), "connection-lost", "publish to"),
    "closes after PUBACK": (Manners(answer=lambda _asked: False), "connection-lost", "lost while waiting"),
    "no MQTT for CONNACK": (Manners(connack=b"\xff" * 99), "bad-reply", "does not speak MQTT 5"),
    "no MQTT for SUBACK": (Manners(suback=lambda _number: b"\xff" * 99), "connection-lost", "subscribe failed"),
    "no MQTT for PUBACK": (Manners(puback=lambda _number: b"\xff" * 99), "connection-lost", "publish to"),
    "two answers to one SUBSCRIBE": (
        Manners(suback=lambda number: packet(0x90, number + b"\0\1\1")), "bad-reply", "another number of topics",
    ),
    "an unknown reason code": (
        Manners(suback=lambda number: packet(0x90, number + b"\0\xfe")), "bad-reply", "MQTT 5 does not know",
    ),
    "not authorized to connect": (Manners(connack=b"\x20\3\0\x87\0"), "refused", "refused the session"),
    "too busy for CONNECT": (Manners(connack=b"\x20\3\0\x89\0"), "cloud-error", "busy"),
    "not authorized to subscribe": (
        Manners(suback=lambda number: packet(0x90, number + b"\0\x87")), "not-permitted", "subscribing",
    ),
    "no more subscriptions now": (
        Manners(suback=lambda number: packet(0x90, number + b"\0\x97")), "cloud-error", "busy",
    ),
    "not authorized to publish": (
        Manners(puback=lambda number: packet(0x40, number + b"\x87")), "not-permitted", "publishing",
    ),
    "no more messages now": (Manners(puback=lambda number: packet(0x40, number + b"\x97")), "cloud-error", "busy"),
}  # fmt: skip


@pytest.mark.parametrize(("manners", "code", "words"), BAD_PACKETS.values(), ids=BAD_PACKETS)
def test_only_a_refusal_counts_as_one(patient: Exposed, manners: Manners, code: str, words: str) -> None:
    check(meet(patient, manners), code, words)


# ---- the handshake --------------------------------------------------------------------------------------------------


def refused_by(patient: Exposed, version: ssl.TLSVersion, changed: str = "") -> Told:
    """Check in with a broker that is trusted, and takes other devices' certificates only."""
    others = Authority("Other devices", patient.now)
    with mutual_tls(patient.directory, others, patient.endpoint, (version, version)) as broker:
        return check_in(patient, broker.port, changed)


def intercepted(patient: Exposed, changed: str = "") -> Told:
    """Check in with a server that takes every certificate and is not the endpoint."""
    with mutual_tls(patient.directory, patient.manufacturer, Authority("Interceptor", patient.now)) as broker:
        return check_in(patient, broker.port, changed)


@pytest.mark.parametrize("version", [V12, V13], ids=lambda version: version.name)
def test_a_certificate_that_is_refused_in_the_handshake_is_refused(patient: Exposed, version: ssl.TLSVersion) -> None:
    check(refused_by(patient, version), "refused", "the cloud closed the connection: AWS_IO_TLS_ERROR")


def test_a_server_of_another_ca_is_not_trusted_whatever_it_says(patient: Exposed) -> None:
    check(intercepted(patient), "untrusted-server", "unable to get local issuer certificate")


def says(reply: bytes) -> Callable[[socket.socket], object]:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(reply)

    return answer


ALERT = bytes([21, 3, 3, 0, 2, 2, 40])  # fatal, handshake_failure: what refuses a certificate, if it came later
HELLO_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")  # RFC 8446, 4.1.3
TLS_1_3, P_256 = bytes.fromhex("002b00020304"), bytes.fromhex("003300020017")  # extensions


def asks_for_another_hello(connection: socket.socket) -> None:
    """Have the client speak twice before any certificate: ask for another key share (RFC 8446, 4.1.4)."""
    hello = connection.recv(4096)
    session = hello[43 : 44 + hello[43]]  # with its length before it
    body = b"\3\3" + HELLO_RETRY + session + b"\x13\1\0" + bytes([0, len(TLS_1_3 + P_256)]) + TLS_1_3 + P_256
    connection.sendall(b"\x16\3\3" + struct.pack(">HBxH", len(body) + 4, 2, len(body)) + body)
    connection.recv(4096)
    connection.sendall(ALERT)


def closes_then_asks_for_another_hello() -> Callable[[socket.socket], object]:
    """Close the worker's connection, and when it looks who that was, answer so: the MQTT library never meets it."""
    turns = itertools.cycle([lambda _connection: None, asks_for_another_hello])

    def answer(connection: socket.socket) -> None:
        next(turns)(connection)

    return answer


NO_SERVER: dict[str, Callable[[socket.socket], object]] = {
    "closes at once": lambda _connection: None,
    "closes after the ClientHello": lambda connection: connection.recv(4096),
    "is a web server": says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "refuses before it has shown a certificate": says(ALERT),
    "refuses after a second ClientHello": closes_then_asks_for_another_hello(),
}


@pytest.mark.parametrize("answer", NO_SERVER.values(), ids=NO_SERVER)
def test_whoever_proves_nothing_refuses_nothing(patient: Exposed, answer: Callable[[socket.socket], object]) -> None:
    with plain_server(answer) as port:
        check(check_in(patient, port), "unreachable", "broke off the TLS handshake")


def test_who_is_gone_when_looked_for_refuses_nothing(patient: Exposed) -> None:
    """The connection ends, and with it the server: an endpoint that restarts."""

    def once(session: ssl.SSLSocket) -> None:
        session.recv(4096)
        serving.close()

    with ExitStack() as serving:
        broker = serving.enter_context(
            mutual_tls(patient.directory, patient.manufacturer, patient.endpoint, behave=once)
        )
        check(check_in(patient, broker.port), "unreachable", "cannot reach localhost")


def test_a_server_that_takes_a_connection_and_says_nothing_is_unreachable(patient: Exposed) -> None:
    with plain_server(lambda connection: connection.recv(4096) and connection.recv(4096)) as port:
        check(check_in(patient, port), "unreachable", "TLS_NEGOTIATION_TIMEOUT")


def test_a_broker_that_takes_a_session_and_says_nothing_is_unreachable(patient: Exposed) -> None:
    check(meet(patient, Manners(connack=b"")), "unreachable", "CONNACK_TIMEOUT")


# ---- bugs planted ---------------------------------------------------------------------------------------------------


NO_LIMIT = "from iot_agent.host import hardening; hardening.limit_memory = lambda: None"
NO_DEADLINE = f"""{HURRY}
import time
from iot_agent.worker.inbox import Inbox
take = Inbox.take
Inbox.take = lambda self, deadline: take(self, time.monotonic() + 3)
"""
ANY_ANSWER = """
from dataclasses import replace
from iot_agent.core import protocol
parse = protocol.parse_check_in_response
protocol.parse_check_in_response = lambda payload: replace(parse(payload), request_id=None)
"""
ONE_TRY = "from iot_agent.worker import mqtt; mqtt.MqttCloud._connect.retry.stop = lambda _state: True\n"
NO_LOOK = ONE_TRY + "mqtt.shake = lambda *_given, **_named: None"
HASTY_LOOK = ONE_TRY + "from iot_agent.host import handshake; handshake.CLIENT_HELLO = -1"


def test_a_worker_that_is_out_of_memory_itself_has_crashed(patient: Exposed) -> None:
    hungry = "from iot_agent.worker import steps; steps.run = lambda *_given: bytes(2**30)"
    check(meet(patient, Manners(), hungry), "worker-crashed", "ended with status 1")


def test_bug_planted_any_answer_is_taken_for_ours(patient: Exposed) -> None:
    assert meet(patient, Manners(answer=among_others), ANY_ANSWER)["cloud_time"] == 0


def test_bug_planted_a_worker_without_a_limit(patient: Exposed) -> None:
    assert meet(patient, Manners(answer=endless_json), NO_LIMIT)["peak"] > MOST


def test_bug_planted_a_wait_that_begins_anew_with_each_message(
    patient: Exposed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "LIMIT", 12.0)
    assert meet(patient, Manners(answer=meant_for_another), NO_DEADLINE)["code"] == "worker-timeout"


def test_bug_planted_a_false_server_is_taken_for_one_that_refuses(patient: Exposed) -> None:
    assert intercepted(patient, NO_LOOK)["code"] == "refused"


@pytest.mark.parametrize("bug", [NO_LOOK, HASTY_LOOK], ids=["no look", "a hasty look"])
def test_bug_planted_a_second_hello_is_taken_for_proof(patient: Exposed, bug: str) -> None:
    with plain_server(closes_then_asks_for_another_hello()) as port:
        assert check_in(patient, port, bug)["code"] == "refused"
