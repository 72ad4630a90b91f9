"""Frozen dataclasses from JSON, by their annotations: the one decoder of records, outcomes and settings. Pure.

- A field that is absent takes its default, so that a later version can read what an earlier one wrote.
- A field that is not known is ignored, so that an earlier version can read what a later one wrote.
- A value of another type, or a number above 2**53, is a `ValueError`.
"""

import json
import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
LARGEST_NUMBER = 2**53  # what every reader of JSON can hold exactly (RFC 8259, section 6)


def parse(kind: type[T], content: bytes | str) -> T:
    """Make a `kind` of JSON; raises `ValueError`, also for what is nested deeper than Python can follow."""
    try:
        return read(kind, json.loads(content))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read(kind: type[T], value: object) -> T:
    """Make an instance of `kind` from what `json.loads` gave; raises `ValueError`."""
    made: T = _read(kind, value)
    return made


def _read(kind: Any, value: object) -> Any:  # noqa: ANN401 - any annotation, any value
    if get_origin(kind) in (Union, types.UnionType):
        return _union(get_args(kind), value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{value!r:.40} is not a list")
        return tuple(_read(get_args(kind)[0], item) for item in value)
    if is_dataclass(kind):
        return _dataclass(kind, value)
    if kind is Path or (isinstance(kind, type) and issubclass(kind, Enum)):
        return kind(_scalar(str, value))
    return _scalar(kind, value)


def _union(kinds: tuple[Any, ...], value: object) -> Any:  # noqa: ANN401 - one of them
    """Try each: None, and a text beside an object, are told apart by their own types."""
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is not type(None) and is_dataclass(kind) == isinstance(value, dict):
            return _read(kind, value)
    raise ValueError(f"{value!r:.40} is none of {kinds}")


def _dataclass(kind: Any, value: object) -> Any:  # noqa: ANN401 - a dataclass and an object of it
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.40} is not an object")  # noqa: TRY004 - data, not a caller's type
    hints = _hints(kind)
    absent = [field.name for field in fields(kind) if field.name not in value and field.default is MISSING]
    if absent:
        raise ValueError(f"{kind.__name__} lacks {', '.join(absent)}")
    return kind(**{name: _read(hint, value[name]) for name, hint in hints.items() if name in value})


def _scalar(kind: Any, value: object) -> Any:  # noqa: ANN401 - str, int, float or bool
    if isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:  # what is not a number compares as false
        raise ValueError("a number is too large")
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"{value!r:.40} is not {kind.__name__}")
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    return get_type_hints(kind)
