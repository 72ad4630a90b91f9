"""Child processes, all under one protocol, bounded in time and size.

    stdin    one line of JSON, the request; then the pipe stays open until the parent closes it or ends
    stdout   one line of JSON, the answer; only the doctor's examination gives a line for each finding
    stderr   the parent's: the journal, or a terminal

The children are the worker, the configuration reader, the token helper and the doctor's examination.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from iot_agent.core.codec import Damaged, Request, decode_outcome, encode_request
from iot_agent.core.errors import Code, Retryable
from iot_agent.core.record import Failed, Kind, Outcome
from iot_agent.core.settings import Settings, load

LONGEST_ANSWER = 256 * 1024  # bytes
CONFIGURATION_LIMIT = 20.0  # seconds
TIME_TO_END = 2.0  # seconds that a child has after it has closed its stdout
OF_SYSTEMD = ("NOTIFY_", "WATCHDOG_", "LISTEN_")  # variables that concern only the service manager and the daemon


class NoAnswer(Exception):
    """A child ended, or was killed, without an answer; the text says how, and what ended is its subject."""


class TooSlow(NoAnswer):
    """It was killed at its time limit."""


class Child:
    """One running child. `fileno()` becomes readable when there is something to `poll` for.

    With `own_group`, killing it kills all that it has started. Further arguments are those of `subprocess.Popen`.
    Raises `OSError` when the machine has no process, memory or descriptor for it; then nothing is left behind.
    """

    def __init__(
        self,
        module: str,
        request: bytes,
        limit: float,
        *options: str,
        own_group: bool = True,
        **arguments: Any,  # noqa: ANN401 - of Popen
    ) -> None:
        self._limit, self._own_group = limit, own_group
        self._deadline = time.monotonic() + limit
        self._received = bytearray()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, module and options, no shell
            [sys.executable, "-P", "-m", module, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what could not be written must not wait in a buffer, to fail once more when that is closed
            start_new_session=own_group,
            **{"env": _without_systemd(os.environ)} | arguments,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - for mypy
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdout.fileno(), False)
        rest = request
        try:
            while rest:
                rest = rest[os.write(self._stdin.fileno(), rest) :]
        except BrokenPipeError:
            pass  # the child has ended already; `poll` says how

    def __enter__(self) -> Self:
        """Kill it at the end of the block."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Kill it."""
        self.kill()

    def fileno(self) -> int:
        """For the selector."""
        return self._stdout.fileno()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def seconds_left(self) -> float:
        """Until its limit."""
        return self._deadline - time.monotonic()

    def poll(self) -> bytes | None:
        """Give the answer once the child has ended; None while it runs. Raises `NoAnswer`."""
        if not self._read():
            return None
        ended = self._end()
        if not self._received.endswith(b"\n"):
            raise NoAnswer(f"{ended} without an answer")
        return bytes(self._received)

    def lines(self) -> Iterator[bytes]:
        """Wait, and give each line when it is there; raises `NoAnswer` if the child did not end with status 0."""
        at_end = False
        while not at_end:
            self.wait()
            at_end = self._read()
            *lines, self._received = self._received.split(b"\n")
            yield from map(bytes, lines)
        ended = self._end()
        if self._process.returncode != 0:
            raise NoAnswer(f"{ended} before it was done")

    def wait(self) -> None:
        """Wait until there is something to read, or until the limit."""
        select.select([self], [], [], max(0.0, self.seconds_left))

    def _read(self) -> bool:
        """Read what is there; give True at the end of the output."""
        if self.seconds_left <= 0:
            self.kill()
            raise TooSlow(f"hung and was stopped after {self._limit:.0f} s")
        while len(self._received) <= LONGEST_ANSWER:
            try:
                piece = os.read(self._stdout.fileno(), LONGEST_ANSWER)
            except BlockingIOError:
                return False
            if not piece:
                return True
            self._received += piece
        self.kill()
        raise NoAnswer(f"wrote more than {LONGEST_ANSWER} bytes and was stopped")

    def _end(self) -> str:
        try:
            code = self._process.wait(TIME_TO_END)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        return how_it_ended(code)

    def kill(self) -> None:
        """End it now, and wait for its end."""
        if self._process.poll() is None:
            if self._own_group:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()


def ask(module: str, request: bytes, limit: float, *, own_group: bool = True, **arguments: Any) -> bytes:  # noqa: ANN401
    """Run a child for one request, and wait for its answer; raises `NoAnswer`, or `OSError` if it cannot start."""
    with Child(module, request, limit, own_group=own_group, **arguments) as child:
        while (answer := child.poll()) is None:
            child.wait()
    return answer


def how_it_ended(code: int | None) -> str:
    """Say in words what a process's exit status means; None is one that did not end in time."""
    if code is None:
        return "hung at its end"
    if code >= 0:
        return f"ended with status {code}"
    names = {known.value: known.name for known in signal.Signals}  # not all have one: real-time signals (signal(7))
    return f"was ended by {names.get(-code, f'signal {-code}')}"


def _without_systemd(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OF_SYSTEMD)}


# ---- the worker -----------------------------------------------------------------------------------------------------


class Worker:
    """A worker that runs one step; the `Work` port. Raises `OSError` as `Child` does."""

    def __init__(self, request: Request, *options: str) -> None:
        given = request.settings
        limit = given.key_limit if request.step is Kind.GENERATE else given.step_limit
        self._child = Child("iot_agent.worker", encode_request(request), limit, *options)
        self.fileno, self.wait, self.kill = self._child.fileno, self._child.wait, self._child.kill
        self.pid = self._child.pid

    @property
    def seconds_left(self) -> float:
        """Until the step's limit."""
        return self._child.seconds_left

    def poll(self) -> Outcome | None:
        """Give the outcome if the worker has ended, or was killed at its limit; None while it runs."""
        try:
            answer = self._child.poll()
            return None if answer is None else decode_outcome(answer)
        except TooSlow as error:
            return _failed(Code.WORKER_TIMEOUT, error)
        except (NoAnswer, Damaged) as error:
            return _failed(Code.WORKER_CRASHED, error)


def _failed(code: Code, error: Exception) -> Failed:
    told = Retryable(code, f"the step's process {error}")
    return Failed(code, str(told), told.remedy, fatal=False)


# ---- the configuration reader ---------------------------------------------------------------------------------------


class BadConfiguration(Exception):
    """The daemon cannot run with this configuration; the text is every problem, one a line, each with its remedy.

    `files` are those, beside agent.yaml itself, whose change is a reason to read again. `passing` means that nothing is
    known to be wrong with any of them: this machine could not read them now, and may in a moment.
    """

    def __init__(self, text: str, files: tuple[Path, ...] = (), *, passing: bool = False) -> None:
        super().__init__(text)
        self.files, self.passing = files, passing


def read_configuration(path: Path, *, starting: bool = False, **child: Any) -> Settings:  # noqa: ANN401 - of Popen
    """Read agent.yaml and check the files that it names, in a child process; raises `BadConfiguration`.

    When the daemon is `starting`, less is refused: see `config/bundle.py`. `child` may name the user of the process.
    """
    request = json.dumps({"path": str(path), "starting": starting}).encode() + b"\n"
    try:
        answer = json.loads(ask("iot_agent.config", request, CONFIGURATION_LIMIT, **child))
    except OSError as error:
        raise BadConfiguration(f"{path}: no process can be started to read it: {error}", passing=True) from error
    except NoAnswer as error:
        said = f"{path}: its reader {error}; what it wrote last is in the journal"
        raise BadConfiguration(said, passing=True) from error
    if "problems" in answer:
        raise BadConfiguration(answer["problems"], tuple(map(Path, answer["files"])))
    return load(answer["settings"])
