"""When are two worlds the same? When they are told in the same words.

A world is written out as text. Then labels, keys, requests and certificates are numbered as they appear, and times are
told as their distance from now, by the power of two of its seconds: a power-off of ten minutes and one of a day differ,
two retries some seconds apart do not. What no rule reads (history, texts of failures) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from tests.explorer.tape import Raised

if TYPE_CHECKING:
    from tests.explorer.world import World

UNREAD = frozenset({
    "history", "message", "remedy", "last_contact", "rotations", "failed_at",  # of the device
    "report", "allowed_at", "last_seen", "version", "swept_at",  # of the cloud
    "cycle", "off_until", "destroyed", "counter", "limit_at", "used", "own_keys", "backup", "last_wait",  # of the world
    "floor_at",
})  # fmt: skip
NAME_OR_TIME = re.compile(r"([0-9a-f]{64}|iot-agent-\d+|key-\d+|request-\d+)|(?<!\d)(\d{10})(\d{3})?(?!\d)(?:\.\d+)?")
MOST_KEPT = 50_000

_told: dict[int, tuple[object, str]] = {}
_named: dict[type, tuple[str, ...]] = {}


def key(world: World) -> bytes:
    """Give what worlds have in common that go on in the same way."""
    cycle = "off" if world.cycle is None else tell({k: v for k, v in vars(world.cycle).items() if k != "means"})
    off = world.off_until if world.cycle is None else None
    names: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        if match[1]:
            return names.setdefault(match[1], f"#{len(names)}")
        away = int(int(match[2]) - world.now)
        return f"{'-' if away < 0 else '+'}{abs(away).bit_length()}"

    return blake2b(NAME_OR_TIME.sub(plain, f"{cycle} {off} {tell(world)}").encode(), digest_size=12).digest()


def tell(value: Any) -> str:  # noqa: ANN401, PLR0911 - whatever a world holds; a line for each kind
    """Write a value out; immutable ones are remembered."""
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return _tell_fields(value)
    if isinstance(value, Raised):
        return f"!{value.error!r}"
    if isinstance(value, tuple | list):
        return f"({','.join(map(tell, value))})"
    if isinstance(value, frozenset):
        return f"({','.join(sorted(map(tell, value)))})"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{tell(one)}' for name, one in value.items())}}}"
    return repr(value)


def _tell_fields(value: Any) -> str:  # noqa: ANN401 - any dataclass
    found = _told.get(id(value))
    if found is not None and found[0] is value:
        return found[1]
    kind = type(value)
    names = _named.get(kind)
    if names is None:
        names = _named[kind] = tuple(one.name for one in fields(kind) if one.name not in UNREAD)
    text = f"{kind.__name__}({','.join([tell(getattr(value, name)) for name in names])})"
    if kind.__hash__ is not None:  # frozen
        if len(_told) > MOST_KEPT:
            _told.clear()
        _told[id(value)] = (value, text)
    return text
