"""The `Cloud` port over awscrt, the core of the AWS IoT device SDK: callbacks become results here and nowhere else.

MQTT 5, QoS 1, mutual TLS. Every session is a new client in a short-lived process: no connection, TLS session or
credential outlives a step, so a session over one certificate can never be mistaken for one over another. The SDK's own
reconnecting is switched off in effect: a lost connection ends the step, and the record's back-off decides.

A new certificate may be refused for a moment after it was registered, because the control plane is eventually
consistent; and a just-in-time registered one is always refused once. So a refused connection is tried a few times here
before it counts, never faster than one a second for a client id (an AWS IoT Core quota).
"""

import logging
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tenacity
from awscrt import io, mqtt5
from awscrt.exceptions import AwsCrtError

from iot_agent.errors import LOCKED_PAUSE, Code, Fatal, Retryable
from iot_agent.ports import Credentials, Pins
from iot_agent.settings import TokenKey

T = TypeVar("T")
log = logging.getLogger(__name__)

ALPN_PORT, ALPN_MQTT = 443, "x-amzn-mqtt-ca"
CONNECT_TRIES = 4
CONNECT_SPACING = (1.05, 1.5)  # seconds
# A server that the trust store does not accept is reported only after a random 10 to 30 s (s2n blinding).
CONNECT_TIMEOUT = 40
ACK_TIMEOUT = 10
REPLY_TIMEOUT = 20
KEEP_ALIVE = 30
NEVER_MS = 3_600_000
UNREACHABLE = ("DNS", "TIMEOUT", "CONNECTION_REFUSED", "NO_ROUTE", "NETWORK_DOWN", "INVALID_ADDRESS", "CONNECT_ABORTED")
PIN_REFUSED = ("CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE")
TOKEN_FAILED = ("PKCS11", "SHARED_LIBRARY_LOAD_FAILURE")
FAILURE_CODES = 0x80  # an MQTT 5 reason code from here on is a failure (MQTT 5.0, 2.4); 0x87 is "not authorized"


@dataclass(frozen=True)
class Endpoint:
    """Where the broker is, and which CA file its certificate must lead to."""

    host: str
    port: int
    ca_file: Path
    client_id: str


class MqttCloud:
    """Opens sessions at one endpoint; `pace` is called before each CONNECT, and takes its time."""

    def __init__(self, endpoint: Endpoint, pins: Pins, pace: Callable[[], None] = lambda: None) -> None:
        self._endpoint = endpoint
        self._pace = pace
        self._pins = pins

    @contextmanager
    def session(self, credentials: Credentials) -> Iterator["MqttSession"]:
        """Connect as this identity, disconnect at the end."""
        try:
            session = self._connect(self._tls(credentials))
        except Retryable as error:
            if error.code == Code.UNTRUSTED_SERVER and isinstance(credentials.key, TokenKey):
                raise Retryable(error.code, f"{error}; a key on a token can speak TLS 1.2 only") from error
            raise
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
    def _connect(self, tls: io.ClientTlsContext) -> "MqttSession":
        session = MqttSession(self._endpoint, tls)
        self._pace()
        try:
            session.open()
        except BaseException:
            session.close()
            raise
        return session

    def _tls(self, credentials: Credentials) -> io.ClientTlsContext:
        """Make the TLS context, once for all tries: on a token, each would be another login."""
        certificate, key = credentials.certificate, credentials.key
        pin = self._pins.read(key.token) if isinstance(key, TokenKey) else ""
        try:
            options = _with_token(certificate, key, pin) if isinstance(key, TokenKey) else _with_file(certificate, key)
            options.override_default_trust_store_from_path(ca_filepath=str(self._endpoint.ca_file))
            options.min_tls_ver = io.TlsVersion.TLSv1_2
            if self._endpoint.port == ALPN_PORT:
                options.alpn_list = [ALPN_MQTT]
            return io.ClientTlsContext(options)
        except (AwsCrtError, RuntimeError, OSError) as error:  # a context's errors are RuntimeErrors; their text tells
            if isinstance(key, TokenKey) and any(word in str(error) for word in PIN_REFUSED):
                raise self._pins.refused(key.token, pin) from error
            if isinstance(key, TokenKey) and any(word in str(error) for word in TOKEN_FAILED):
                raise _token_error(key, str(error)) from error
            files = f"{certificate}, {key} or {self._endpoint.ca_file}"
            raise Fatal(Code.BAD_CREDENTIALS, f"cannot use {files}: {error}") from error


class MqttSession:
    """One connection; all SDK callbacks end up in one queue of (kind, value)."""

    def __init__(self, endpoint: Endpoint, tls: io.ClientTlsContext) -> None:
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                host_name=endpoint.host,
                port=endpoint.port,
                tls_ctx=tls,
                connect_options=mqtt5.ConnectPacket(client_id=endpoint.client_id, keep_alive_interval_sec=KEEP_ALIVE),
                session_behavior=mqtt5.ClientSessionBehaviorType.CLEAN,
                min_reconnect_delay_ms=NEVER_MS,
                max_reconnect_delay_ms=NEVER_MS,
                connack_timeout_ms=ACK_TIMEOUT * 1000,
                ack_timeout_sec=ACK_TIMEOUT,
                ping_timeout_ms=ACK_TIMEOUT * 1000,
                disable_metrics=True,
                on_publish_callback_fn=lambda data: self._events.put(("message", data.publish_packet)),
                on_lifecycle_event_connection_success_fn=lambda data: self._events.put(("connected", data)),
                on_lifecycle_event_connection_failure_fn=lambda data: self._events.put(("failed", data)),
                on_lifecycle_event_disconnection_fn=lambda data: self._events.put(("lost", data)),
                on_lifecycle_event_stopped_fn=lambda data: self._events.put(("stopped", data)),
            )
        )

    def open(self) -> None:
        """Connect; raises `Retryable` that says why not."""
        self._client.start()
        kind, data = self._next(CONNECT_TIMEOUT, Code.UNREACHABLE, "no connection")
        if kind == "failed":
            raise _connect_error(data)

    def close(self) -> None:
        """Disconnect and wait for it, so that the client id is free again."""
        self._client.stop()
        try:
            while self._events.get(timeout=ACK_TIMEOUT)[0] != "stopped":
                pass
        except queue.Empty:
            log.warning("the connection did not close in %d s", ACK_TIMEOUT)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe to all of these, or raise."""
        subscriptions = [mqtt5.Subscription(topic_filter=topic, qos=mqtt5.QoS.AT_LEAST_ONCE) for topic in topics]
        suback = self._result(self._client.subscribe(mqtt5.SubscribePacket(subscriptions=subscriptions)), "subscribe")
        denied = [topic for topic, code in zip(topics, suback.reason_codes, strict=True) if code >= FAILURE_CODES]
        if denied:
            raise Retryable(Code.NOT_PERMITTED, f"the policy forbids subscribing to {', '.join(denied)}")

    def exchange(self, topic: str, payload: bytes, reply_topic: str, accept: Callable[[bytes], T | None]) -> T:
        """Publish, then wait for the reply that is meant for us."""
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        puback = self._result(self._client.publish(packet), f"publish to {topic}").puback
        if puback.reason_code >= FAILURE_CODES:
            raise Retryable(Code.NOT_PERMITTED, f"the policy forbids publishing to {topic}")
        log.info("request published; waiting for the reply")
        while True:
            kind, data = self._next(REPLY_TIMEOUT, Code.NO_REPLY, f"no reply on {reply_topic}")
            if kind == "lost":
                raise Retryable(Code.CONNECTION_LOST, f"the connection was lost while waiting: {data.exception}")
            if kind == "message" and data.topic == reply_topic:
                reply = accept(bytes(data.payload or b""))
                if reply is not None:
                    return reply

    def _next(self, timeout: float, code: Code, what: str) -> tuple[str, Any]:
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            raise Retryable(code, f"{what} within {timeout:.0f} s") from None  # the empty queue adds nothing

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


def _connect_error(data: mqtt5.LifecycleConnectFailureData) -> Retryable:
    if data.connack_packet is not None:
        return Retryable(Code.REFUSED, f"the cloud refused the session: {data.connack_packet.reason_code!r}")
    name = getattr(data.exception, "name", "") or str(data.exception)
    if "PKCS11" in name:
        return Retryable(Code.TOKEN, f"the token failed during the TLS handshake: {name}")
    if any(word in name for word in UNREACHABLE):
        return Retryable(Code.UNREACHABLE, f"cannot reach the endpoint: {name}")
    if name == "AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE":
        return Retryable(Code.UNTRUSTED_SERVER, f"the TLS handshake failed: {name}")
    return Retryable(Code.REFUSED, f"the cloud closed the connection: {name}")
