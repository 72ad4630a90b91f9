"""The `Cloud` port over awscrt, the core of the AWS IoT device SDK: its callbacks become results and errors here.

MQTT 5, QoS 1, mutual TLS. Each session is a new client in a process that ends with the step. No connection, TLS session
or credential is used again, so a session is always over the certificate that it was opened with. The SDK does not
reconnect (its delay is longer than a step): a lost connection ends the step, and the record's back-off decides when the
next one begins.

A new certificate may be refused for a moment after it was registered, because the control plane is eventually
consistent; and a just-in-time registered one is always refused once. So a refused connection is tried a few times
before it counts, at most once a second (an AWS IoT Core quota for each client id).

AWS IoT Core gives no reason when it refuses: it closes the connection, or ends the TLS handshake. A network that fails
does the same, and so does a server that is not trusted. Only a refusal by the cloud itself may count against a
certificate. So after a connection that ended before its CONNACK, the server is checked without a CONNECT (`handshake`).

What a broker sends is bounded. CONNECT states the largest packet that we accept; the library accepts larger ones all
the same, so the memory of the process is limited (`hardening`). A message that was not asked for is dropped (`inbox`),
and each wait ends at its deadline, however many messages come.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tenacity
from awscrt import io, mqtt5
from awscrt.exceptions import AwsCrtError

from iot_agent.core.errors import LOCKED_PAUSE, Code, Fatal, Retryable
from iot_agent.core.ports import Credentials, Pins
from iot_agent.core.protocol import MAX_PAYLOAD
from iot_agent.core.settings import TokenKey
from iot_agent.host.handshake import ALPN_MQTT, ALPN_PORT, BrokenOff, Server, Untrusted, shake
from iot_agent.worker.inbox import Inbox, Nothing

T = TypeVar("T")
log = logging.getLogger(__name__)

CONNECT_TRIES = 4  # before a refusal counts
CONNECT_SPACING = (1.05, 1.5)  # seconds
# seconds; a server that is not trusted is reported only after a random 10 to 30 s (s2n blinding)
CONNECT_TIMEOUT = 40
ACK_TIMEOUT = 10  # seconds
REPLY_TIMEOUT = 20  # seconds
KEEP_ALIVE = 30  # seconds
NEVER_MS = 3_600_000  # longer than any step
MAX_PACKET = MAX_PAYLOAD + 4096  # bytes: topic and properties beside the payload
UNREACHABLE = ("DNS", "TIMEOUT", "CONNECTION_REFUSED", "NO_ROUTE", "NETWORK_DOWN", "INVALID_ADDRESS", "CONNECT_ABORTED")
PIN_REFUSED = ("CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE")
TOKEN_FAILED = ("PKCS11", "SHARED_LIBRARY_LOAD_FAILURE")
FAILURE_CODES = 0x80  # an MQTT 5 reason code from here on is a failure (MQTT 5.0, 2.4)
BUSY = (0x88, 0x89, 0x97, 0x9F)  # server unavailable, server busy, quota exceeded, connection rate exceeded


@dataclass(frozen=True)
class Endpoint:
    """Where the broker is, and which CA file its certificate must lead to."""

    host: str
    port: int
    ca_file: Path
    client_id: str


class MqttCloud:
    """Opens sessions at one endpoint; `throttle` is called before each CONNECT, and waits as long as it must."""

    def __init__(self, endpoint: Endpoint, pins: Pins, throttle: Callable[[], None] = lambda: None) -> None:
        self._endpoint = endpoint
        self._throttle = throttle
        self._pins = pins

    @contextmanager
    def session(self, credentials: Credentials) -> Iterator["MqttSession"]:
        """Connect as this identity, disconnect at the end."""
        session = self._connect(self._tls(credentials), on_token=isinstance(credentials.key, TokenKey))
        try:
            yield session
        finally:
            session.close()

    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Retryable) and error.code == Code.REFUSED),
        stop=tenacity.stop_after_attempt(CONNECT_TRIES),
        wait=tenacity.wait_random(*CONNECT_SPACING),
        before_sleep=lambda state: log.info(
            "the cloud closed the connection; try %d follows", state.attempt_number + 1
        ),
        reraise=True,
    )
    def _connect(self, tls: io.ClientTlsContext, *, on_token: bool) -> "MqttSession":
        session = MqttSession(self._endpoint, tls)
        self._throttle()
        try:
            session.open()
        except _Ended as ended:
            session.close()
            raise self._why(str(ended), on_token=on_token) from ended
        except BaseException:
            session.close()
            raise
        return session

    def _why(self, ended: str, *, on_token: bool) -> Retryable:
        """Find out whether the cloud refused this certificate, or whether the connection ended for another reason."""
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        try:
            shake(Server(self._endpoint.host, self._endpoint.port, self._endpoint.ca_file), tls_1_2=on_token)
        except Untrusted as error:
            return Retryable(Code.UNTRUSTED_SERVER, f"{where} is not trusted: {error} ({ended})")
        except BrokenOff as error:
            only = "; a key on a token can speak TLS 1.2 only" if on_token and error.over_the_version else ""
            return Retryable(Code.UNREACHABLE, f"{where} broke off the TLS handshake: {error} ({ended}){only}")
        except OSError as error:
            return Retryable(Code.UNREACHABLE, f"cannot reach {where}: {error.strerror or error} ({ended})")
        return Retryable(Code.REFUSED, f"the cloud closed the connection: {ended}")

    def _tls(self, credentials: Credentials) -> io.ClientTlsContext:
        """Make one TLS context for all tries: with a token, each context is another login."""
        certificate, key = credentials.certificate, credentials.key
        pin = self._pins.read(key.token) if isinstance(key, TokenKey) else ""
        try:
            options = _with_token(certificate, key, pin) if isinstance(key, TokenKey) else _with_file(certificate, key)
            options.override_default_trust_store_from_path(ca_filepath=str(self._endpoint.ca_file))
            options.min_tls_ver = io.TlsVersion.TLSv1_2
            if self._endpoint.port == ALPN_PORT:
                options.alpn_list = [ALPN_MQTT]
            return io.ClientTlsContext(options)
        except (
            AwsCrtError,
            RuntimeError,
            OSError,
        ) as error:  # the errors of a context are RuntimeErrors; only their text says which
            if isinstance(key, TokenKey) and any(word in str(error) for word in PIN_REFUSED):
                raise self._pins.refused(key.token, pin) from error
            if isinstance(key, TokenKey) and any(word in str(error) for word in TOKEN_FAILED):
                raise _token_error(key, str(error)) from error
            files = f"{certificate}, {key} or {self._endpoint.ca_file}"
            raise Fatal(Code.BAD_CREDENTIALS, f"cannot use {files}: {error}") from error


class _Ended(Exception):
    """The connection ended before a CONNACK; the text is the library's name for that, which does not say why."""


class MqttSession:
    """One connection. The library's callbacks run in its own thread; they only fill the `Inbox`."""

    def __init__(self, endpoint: Endpoint, tls: io.ClientTlsContext) -> None:
        inbox = self._inbox = Inbox()
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                host_name=endpoint.host,
                port=endpoint.port,
                bootstrap=_bootstrap(),
                tls_ctx=tls,
                connect_options=mqtt5.ConnectPacket(
                    client_id=endpoint.client_id,
                    keep_alive_interval_sec=KEEP_ALIVE,
                    maximum_packet_size=MAX_PACKET,
                ),
                session_behavior=mqtt5.ClientSessionBehaviorType.CLEAN,
                offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
                min_reconnect_delay_ms=NEVER_MS,
                max_reconnect_delay_ms=NEVER_MS,
                connack_timeout_ms=ACK_TIMEOUT * 1000,
                ack_timeout_sec=ACK_TIMEOUT,
                ping_timeout_ms=ACK_TIMEOUT * 1000,
                disable_metrics=True,
                on_publish_callback_fn=lambda data: _put(inbox, data.publish_packet),
                on_lifecycle_event_connection_success_fn=lambda data: inbox.tell("connected", data),
                on_lifecycle_event_connection_failure_fn=lambda data: inbox.tell("failed", data),
                on_lifecycle_event_disconnection_fn=lambda data: inbox.tell("lost", data),
                on_lifecycle_event_stopped_fn=lambda data: inbox.tell("stopped", data),
            )
        )

    def open(self) -> None:
        """Connect; raises `_Ended`, or a `Retryable` that says why not."""
        self._client.start()
        try:
            kind, data = self._inbox.take(time.monotonic() + CONNECT_TIMEOUT)
        except Nothing as error:
            raise Retryable(Code.UNREACHABLE, f"no connection within {CONNECT_TIMEOUT} s") from error
        if kind == "failed":
            raise _connect_error(data)

    def close(self) -> None:
        """Disconnect and wait for it, so that the client id is free again."""
        deadline = time.monotonic() + ACK_TIMEOUT
        self._inbox.expect(frozenset())
        self._client.stop()
        try:
            while self._inbox.take(deadline)[0] != "stopped":
                pass
        except Nothing:
            log.warning("the connection did not close in %d s", ACK_TIMEOUT)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe to all of these, or raise."""
        self._inbox.expect(frozenset(topics))
        subscriptions = [mqtt5.Subscription(topic_filter=topic, qos=mqtt5.QoS.AT_LEAST_ONCE) for topic in topics]
        suback = self._result(self._client.subscribe(mqtt5.SubscribePacket(subscriptions=subscriptions)), "subscribe")
        if len(suback.reason_codes) != len(topics):
            raise Retryable(Code.BAD_REPLY, "the broker's answer to subscribe names another number of topics")
        for topic, code in zip(topics, suback.reason_codes, strict=True):
            _demand(code, f"the policy forbids subscribing to {topic}")

    def exchange(self, topic: str, payload: bytes, reply_topic: str, accept: Callable[[bytes], T | None]) -> T:
        """Publish, then wait for the reply to this request."""
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        puback = self._result(self._client.publish(packet), f"publish to {topic}").puback
        _demand(puback.reason_code, f"the policy forbids publishing to {topic}")
        log.info("request published; waiting for the reply")
        deadline = time.monotonic() + REPLY_TIMEOUT
        while True:
            try:
                kind, data = self._inbox.take(deadline)
            except Nothing as error:
                raise Retryable(Code.NO_REPLY, f"no reply on {reply_topic} within {REPLY_TIMEOUT} s") from error
            if kind == "lost":
                raise Retryable(Code.CONNECTION_LOST, f"the connection was lost while waiting: {data.exception}")
            if kind == "message" and data[0] == reply_topic:
                reply = accept(data[1])
                if reply is not None:
                    return reply

    def _result(self, future: Any, what: str) -> Any:  # noqa: ANN401 - the SDK's futures carry no types
        try:
            return future.result(ACK_TIMEOUT + 5)
        except TimeoutError as error:
            raise Retryable(Code.CONNECTION_LOST, f"no answer to {what}") from error
        except AwsCrtError as error:
            raise Retryable(Code.CONNECTION_LOST, f"{what} failed: {error.name}") from error


def _with_file(certificate: Path, key: Path) -> io.TlsContextOptions:
    return io.TlsContextOptions.create_client_with_mtls_from_path(str(certificate), str(key))


def _with_token(certificate: Path, key: TokenKey, pin: str) -> io.TlsContextOptions:
    """Have the token sign for TLS; awscrt does that for TLS 1.2 only."""
    return io.TlsContextOptions.create_client_with_mtls_pkcs11(
        pkcs11_lib=io.Pkcs11Lib(file=key.token.module, behavior=io.Pkcs11Lib.InitializeFinalizeBehavior.STRICT),
        user_pin=pin,
        token_label=key.token.label,
        private_key_label=key.label,
        cert_file_contents=certificate.read_bytes(),
    )


def _token_error(key: TokenKey, said: str) -> Retryable:
    where = f"token {key.token.label!r} of {key.token.module}"
    if "PIN_LOCKED" in said:
        return Retryable(Code.PIN_LOCKED, f"the {where} is locked; it is left alone for an hour: {said}", LOCKED_PAUSE)
    return Retryable(Code.TOKEN, f"cannot use key {key.label} on {where}: {said}")


def _bootstrap() -> io.ClientBootstrap:
    """Give the library one thread; by default it starts one for each processor."""
    group = io.EventLoopGroup(1)
    return io.ClientBootstrap(group, io.DefaultHostResolver(group))


def _connect_error(data: mqtt5.LifecycleConnectFailureData) -> Exception:
    if data.connack_packet is not None:
        code = data.connack_packet.reason_code
        return _denied(code, Code.REFUSED, f"the cloud refused the session: {code!r}")
    name = getattr(data.exception, "name", "") or str(data.exception)
    if "PKCS11" in name:
        return Retryable(Code.TOKEN, f"the token failed during the TLS handshake: {name}")
    if any(word in name for word in UNREACHABLE):
        return Retryable(Code.UNREACHABLE, f"cannot reach the endpoint: {name}")
    if "DECODE" in name:
        return Retryable(Code.BAD_REPLY, f"the server does not speak MQTT 5: {name}")
    return _Ended(name)


def _demand(reason: int | None, denied: str) -> None:
    if reason is None or reason >= FAILURE_CODES:
        raise _denied(reason, Code.NOT_PERMITTED, denied)


def _denied(reason: int | None, code: Code, what: str) -> Retryable:
    """Tell a refusal from a busy broker and from an answer that is not MQTT 5: the last two do not concern us."""
    if reason is None:
        return Retryable(Code.BAD_REPLY, "the broker's answer has a reason code that MQTT 5 does not know")
    if reason in BUSY:
        return Retryable(Code.CLOUD_ERROR, f"the broker is busy (MQTT reason code {reason:#x})")
    return Retryable(code, what)


def _put(inbox: Inbox, packet: mqtt5.PublishPacket) -> None:
    inbox.message(packet.topic, bytes(packet.payload or b""))
