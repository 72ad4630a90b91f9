"""What a worker and its token helper say to each other: one line of JSON each way. Pure.

    {"parent": pid, "state": DIRECTORY, "token": {…}, "operation": NAME, "arguments": […]}
    {"result": …}  or  {"code": …, "message": …, "fatal": bool, "retry_after": seconds}

The helper loads the library of the token's manufacturer, so what comes from it is not ours to trust.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from iot_agent.core import typed_json
from iot_agent.core.errors import AgentError, Code, Fatal, Retryable
from iot_agent.core.settings import Token

RESULTS: dict[str, Any] = {
    "generate": type(None),
    "public_key": str,
    "sign": str,
    "labels": tuple[str, ...],
    "look": tuple[str, ...],
    "remove": type(None),
}
IN_HEX = frozenset({"public_key", "sign"})  # bytes, which JSON has not


@dataclass(frozen=True)
class Request:
    """One operation on a token, asked for by the process `parent`; `state` is the directory of the PIN's refusals."""

    parent: int
    state: str
    token: Token
    operation: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """What the helper could not do, as an `AgentError` says it."""

    code: Code
    message: str
    fatal: bool
    retry_after: int | None


def encode_request(request: Request) -> bytes:
    """Turn a request into one line of JSON."""
    return json.dumps(asdict(request)).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """Read a request; raises `ValueError`."""
    return typed_json.parse(Request, line)


def encode_result(result: object) -> bytes:
    """Turn the result of an operation into one line of JSON."""
    return json.dumps({"result": result}).encode() + b"\n"


def encode_error(error: AgentError) -> bytes:
    """Turn an error into one line of JSON."""
    refusal = Refusal(error.code, str(error), isinstance(error, Fatal), error.retry_after)
    return json.dumps(asdict(refusal)).encode() + b"\n"


def decode_answer(content: bytes, operation: str) -> Any:  # noqa: ANN401 - `RESULTS` says what
    """Give the result of an operation, or raise the `AgentError` that the helper tells; else raises `ValueError`."""
    try:
        answer = json.loads(content)
        if isinstance(answer, dict) and "result" in answer:
            result = typed_json.read(RESULTS[operation], answer["result"])
            return bytes.fromhex(result) if operation in IN_HEX else result
        refusal = typed_json.read(Refusal, answer)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    raise (Fatal if refusal.fatal else Retryable)(refusal.code, refusal.message, refusal.retry_after)
