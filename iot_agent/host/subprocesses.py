"""Child processes of the daemon, bounded in time and size: a worker for one step, the reader of the configuration."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from iot_agent.core.codec import Damaged, Request, decode_outcome, encode_request
from iot_agent.core.errors import AgentError, Code, Retryable
from iot_agent.core.record import Failed, Kind, Outcome
from iot_agent.core.settings import Settings, load

MAX_OUTCOME = 64 * 1024
CONFIG_LIMIT = 20
GRACE = 2
STARTING = "--starting"  # tells the reader of the configuration that the daemon starts, and is not asked by a person
LAST_WORDS = 1000  # characters of what a child said before it died


class Worker:
    """One running step. `fileno()` becomes readable when there is something to `poll` for.

    Raises `OSError` when the machine has no process, memory or descriptor for it; then nothing is left behind.
    """

    def __init__(self, request: Request, *options: str) -> None:
        given = request.settings
        self._limit = given.key_limit if request.step is Kind.GENERATE else given.step_limit
        self._deadline = time.monotonic() + self._limit
        self._output = bytearray()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, module and options, no shell
            [sys.executable, "-P", "-m", "iot_agent.worker", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what could not be written must not wait in a buffer, to fail once more when that is closed
            start_new_session=True,  # its own process group: one kill reaches whatever it started
            env=_environment(),
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - for mypy
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdout.fileno(), False)
        rest = encode_request(request)
        try:
            while rest:
                rest = rest[os.write(self._stdin.fileno(), rest) :]
        except BrokenPipeError:
            pass  # it died at once; `poll` will say so
        # The pipe stays open: its end is the worker's end.

    def fileno(self) -> int:
        """For the selector."""
        return self._stdout.fileno()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def seconds_left(self) -> float:
        """Until the step's limit."""
        return self._deadline - time.monotonic()

    def poll(self) -> Outcome | None:
        """Give the outcome if the worker has ended, or has outlived its limit and was killed; None while it runs."""
        if self.seconds_left <= 0:
            self.kill()
            return _failed(Retryable(Code.WORKER_TIMEOUT, f"the step was stopped after {self._limit:.0f} s"))
        while len(self._output) <= MAX_OUTCOME:
            try:
                piece = os.read(self._stdout.fileno(), MAX_OUTCOME)
            except BlockingIOError:
                return None
            if not piece:
                return self._ended()
            self._output += piece
        self.kill()
        return _failed(Retryable(Code.WORKER_CRASHED, "the step's process said far too much and was stopped"))

    def _ended(self) -> Outcome:
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        try:
            return decode_outcome(bytes(self._output))
        except Damaged:
            return _failed(
                Retryable(Code.WORKER_CRASHED, f"the step's process {how_it_ended(code)} without an outcome")
            )

    def kill(self) -> None:
        """End it now, with everything it started, and reap it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdin.close()
        self._stdout.close()


class BadConfiguration(Exception):
    """The configuration was refused, or could not be read; the text is every problem, one a line.

    `files` are those, beside agent.yaml itself, whose change is worth another look. `passing` says that nothing is
    known to be wrong with any: this machine could not read them now, and may in a moment.
    """

    def __init__(self, text: str, files: tuple[Path, ...] = (), *, passing: bool = False) -> None:
        super().__init__(text)
        self.files, self.passing = files, passing


def read_configuration(path: Path, *, starting: bool = False) -> Settings:
    """Read agent.yaml and look at the files that it names, in a child process; raises `BadConfiguration`.

    When the daemon is `starting`, less is refused: see `bundle`.
    """
    command = [sys.executable, "-P", "-m", "iot_agent.config", str(path), *([STARTING] if starting else [])]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module, no shell
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CONFIG_LIMIT,
            check=False,
            env=_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise BadConfiguration(f"{path}: took longer than {CONFIG_LIMIT} s to read", passing=True) from error
    except OSError as error:
        raise BadConfiguration(f"{path}: no process can be started to read it: {error}", passing=True) from error
    if done.returncode == os.EX_CONFIG:
        raise BadConfiguration(done.stderr.strip(), tuple(map(Path, json.loads(done.stdout))))
    if done.returncode != 0:
        last = done.stderr.strip()[-LAST_WORDS:]
        raise BadConfiguration(f"{path}: its reader {how_it_ended(done.returncode)}: {last or 'no word'}", passing=True)
    return load(done.stdout)


def _environment() -> dict[str, str]:
    """Pass on what a child needs; what the service manager told the daemon alone is not among it."""
    private = ("NOTIFY_", "WATCHDOG_", "LISTEN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(private)}


def how_it_ended(code: int | None) -> str:
    """Say in words what a process's exit status means; None is one that did not end in time."""
    if code is None:
        return "hung at its end"
    if code >= 0:
        return f"ended with status {code}"
    names = {known.value: known.name for known in signal.Signals}  # not all have one: real-time signals (signal(7))
    return f"was ended by {names.get(-code, f'signal {-code}')}"


def _failed(error: AgentError) -> Failed:
    return Failed(error.code, str(error), error.remedy, fatal=False)
