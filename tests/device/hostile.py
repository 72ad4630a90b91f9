"""A broker that means no good: MQTT 5 by hand, so that each packet may be wrong, late, endless or the last."""

import json
import select
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.keys.broker import CONNACK

CONNECT, SUBSCRIBE, PUBLISH = 1, 8, 3  # packet types: the upper half of a packet's first byte (MQTT 5.0, 2.1.2)
PIECE = 64 * 1024


@dataclass(frozen=True)
class Asked:
    """A request that came in: where its answer belongs, its own words, and how to say something."""

    session: ssl.SSLSocket
    topic: str
    request_id: str

    def say(self, payload: bytes, topic: str | None = None) -> None:
        self.session.sendall(publish(topic or self.topic, payload))

    def say_for_ever(self, payload: bytes, topic: str | None = None) -> None:
        """Say it until the client leaves; what it says meanwhile is read, so that it never has to wait."""
        packets = publish(topic or self.topic, payload) * max(1, PIECE // (len(payload) + 64))
        while True:
            self.session.sendall(packets)
            while self.session.pending() or select.select([self.session], [], [], 0)[0]:
                if not self.session.recv(PIECE):
                    return

    def answer(self, **fields: object) -> None:
        self.say(json.dumps({"request_id": self.request_id, **fields}).encode())


@dataclass(frozen=True)
class Manners:
    """What it does: what it sends for CONNECT, SUBSCRIBE and PUBLISH (None: it closes), and then, with the request.

    `{id}` is where a packet's identifier goes.
    """

    connack: bytes | None = CONNACK
    suback: Callable[[bytes], bytes] | None = lambda number: packet(0x90, number + b"\0\1")
    puback: Callable[[bytes], bytes] | None = lambda number: packet(0x40, number)
    answer: Callable[[Asked], object] = lambda _asked: None

    def __call__(self, session: ssl.SSLSocket) -> None:
        """Serve one session."""
        stream = Stream(session)
        while (arrived := stream.read()) is not None:
            kind, body = arrived
            if kind == CONNECT:
                if self.connack is None:
                    return
                session.sendall(self.connack)
            elif kind == SUBSCRIBE:
                if self.suback is None:
                    return
                session.sendall(self.suback(body[:2]))
            elif kind == PUBLISH:
                if self.puback is None:
                    return
                topic, number, payload = _publish(body)
                session.sendall(self.puback(number))
                request_id = json.loads(payload)["request_id"]
                if self.answer(Asked(session, topic.removesuffix("rqst") + "rspn", request_id)) is False:
                    return


class Stream:
    """Packets out of a session."""

    def __init__(self, session: ssl.SSLSocket) -> None:
        self._session, self._read = session, b""

    def read(self) -> tuple[int, bytes] | None:
        """Give (type, what follows the header); None at the end."""
        while (found := self._whole()) is None:
            piece = self._session.recv(PIECE)
            if not piece:
                return None
            self._read += piece
        return found

    def _whole(self) -> tuple[int, bytes] | None:
        length = 0
        for at, byte in enumerate(self._read[1:5]):
            length |= (byte & 127) << (7 * at)
            if byte < 128:
                end = at + 2 + length
                if len(self._read) < end:
                    return None
                kind, body = self._read[0] >> 4, self._read[at + 2 : end]
                self._read = self._read[end:]
                return kind, body
        return None


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _length(len(body)) + body


def publish(topic: str, payload: bytes) -> bytes:
    """Write a PUBLISH of QoS 1, all with one identifier (MQTT 5.0, 3.3)."""
    name = topic.encode()
    return packet(0x32, struct.pack(">H", len(name)) + name + b"\0\7\0" + payload)


def _publish(body: bytes) -> tuple[str, bytes, bytes]:
    """Read the client's PUBLISH, which is of QoS 1 and has no more than 127 bytes of properties."""
    end = 2 + struct.unpack(">H", body[:2])[0]
    return body[2:end].decode(), body[end : end + 2], body[end + 3 + body[end + 2] :]


def _length(length: int) -> bytes:
    written = b""
    while True:
        length, low = divmod(length, 128)
        written += bytes([low | (128 if length else 0)])
        if not length:
            return written
