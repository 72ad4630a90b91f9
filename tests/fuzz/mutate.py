"""Changes an input a little: its bytes, its JSON, or the DER inside its PEM. Pure: all chance is an argument.

The fuzzer changes bytes by itself; but most of what it makes of JSON is no JSON any more, and of PEM no base64, so it
would hardly ever get past the first line of a parser. These changes keep the outer form and spoil what is inside.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

PEM = re.compile(rb"(-----BEGIN ([A-Z ]+)-----)((?:[A-Za-z0-9+/=\s]|\\n)*)(-----END \2-----)")
# What a parser may have forgotten: other types, limits of numbers, text that cannot be written, values that Python has
# and JSON has not.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**53 + 1, 2**64, 10**30, -(10**400), 0.5, 1e300, float("inf"),
    float("nan"), "", "0", "x", "\0", "\x1b[2J", "\ud800", "\u2028", "ü" * 70, "x" * 5000, "9" * 5000, [], {}, [[]],
    ["x"] * 2000, {"x": {"x": {}}}, {"result": 1}, "file:/", "pkcs11:", "-----BEGIN CERTIFICATE-----\n",
)  # fmt: skip
PIECES = (
    b"\0", b"\r", b"\n", b"\t", b" ", b'"', b"'", b"\\", b"{", b"[", b"}", b"]", b":", b",", b"=", b";", b"%", b"&a ",
    b"*a", b"? ", b"- ", b"!!", b"#", b"<<: ", b"|", b">", b"%YAML 1.1\n", b"---\n", b"\\UFFFFFFFF", b"\\ud800", b"%00",
    b"%ff", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"1e999", b"NaN", b"9" * 10, b"9" * 5000, b"serial", b"pin=",
)  # fmt: skip
DEEP = (100, 5000)
GROWN = (2, 8, 50, 2000)


def mutate(data: bytes, most: int, chance: Random) -> bytes:
    """Give another input, made of `data`, of at most `most` bytes."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice((_bytes, _json, _json, _pem))(data, chance)[:most]
    return data


def _bytes(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 1, 4, 16, 200)))
    change: Callable[[], bytes] = chance.choice((
        lambda: data[:at] + chance.choice(PIECES) + data[at:],
        lambda: data[:at] + chance.choice(PIECES) + data[end:],
        lambda: data[:at] + data[end:],
        lambda: data[:at],
        lambda: data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :],
        lambda: data[:at] + data[at:end] * chance.choice(GROWN) + data[end:],
        lambda: data[:at] + data[at:end] * chance.choice(GROWN) + chance.choice(PIECES),
        lambda: chance.choice(PIECES) * chance.choice(GROWN) + data,
    ))  # fmt: skip
    return change()


def _json(data: bytes, chance: Random) -> bytes:
    try:
        root: list[Any] = [json.loads(data)]
    except (ValueError, RecursionError):
        return _bytes(data, chance)
    holder, key = chance.choice(_places(root))
    value = holder[key]
    match chance.randrange(6):
        case 0 if holder is not root:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice((key + "x", *holder))] = value
        case 2:
            holder[key] = [value]
        case 3 if isinstance(value, str) and value:
            holder[key] = _bytes(value.encode(errors="replace"), chance).decode(errors="replace")
        case 4:
            depth = chance.choice(DEEP)
            return json.dumps(root[0])[:-1].encode() + b',"x":' + b"[" * depth + b"]" * depth + b"}"
        case _:
            holder[key] = chance.choice(ODD)
    return json.dumps(root[0], ensure_ascii=True).encode()


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Name every place in a document, as a container and a key."""
    places: list[tuple[Any, Any]] = []
    todo: list[Any] = [root]
    while todo:
        holder = todo.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            places.append((holder, key))
            if isinstance(value, dict | list):
                todo.append(value)
    return places


def _pem(data: bytes, chance: Random) -> bytes:
    """Change the DER in one of the PEM blocks; in JSON the ends of its lines are written as two characters."""
    blocks = list(PEM.finditer(data))
    if not blocks:
        return _bytes(data, chance)
    block = chance.choice(blocks)
    end = rb"\n" if rb"\n" in block[3] else b"\n"
    try:
        der = base64.b64decode(block[3].replace(end, b""))
    except binascii.Error:
        return _bytes(data, chance)
    return data[: block.start(3)] + end + base64.b64encode(_der(der, chance)) + end + data[block.end(3) :]


def _der(der: bytes, chance: Random) -> bytes:
    """Change one byte mostly: lengths stay right, and a version, a type, an identifier or a date becomes another."""
    at = chance.randrange(len(der) + 1)
    if chance.randrange(4):
        return der[:at] + bytes([chance.choice((0, 1, 2, 3, 5, 127, 128, 255, chance.randrange(256)))]) + der[at + 1 :]
    return _bytes(der, chance)
