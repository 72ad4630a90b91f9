"""Parsers with a bug each, which the fuzzer must find: what it did not see here it would not see in ours."""

import json
import re

from tests.fuzz.targets import Target


def _error(data: bytes) -> None:
    """Forget that a field may be missing."""
    fields = json.loads(data)
    if isinstance(fields, dict) and isinstance(fields.get("renew"), dict):
        assert fields["renew"]["start"] is not Ellipsis


def _time(data: bytes) -> None:
    """Take twice as long for each character more."""
    re.fullmatch(r"serial: ([A-Za-z0-9]+_?)+", data.decode())


def _memory(data: bytes) -> None:
    """Make as much as an input asks for."""
    count = re.fullmatch(rb"count: ([0-9]{1,12})", data)
    if count:
        bytearray(b"x") * int(count[1])


def _promise(data: bytes) -> None:
    """Write what cannot be read back as it was: not a number is not equal to itself."""
    value = json.loads(data)
    assert json.loads(json.dumps(value)) == value


REFUSES = (ValueError, TypeError, RecursionError)
PLANTED = {
    name: Target(name, parse, REFUSES, None)
    for name, parse in (
        ("planted-error", _error),
        ("planted-time", _time),
        ("planted-memory", _memory),
        ("planted-promise", _promise),
    )
}
