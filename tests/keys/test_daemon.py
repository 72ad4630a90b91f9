"""The daemon beside a token whose module hangs, crashes, or refuses the PIN: it never misses a beat."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud.local.tokens import LABEL
from tests.device.lonely_agent import LonelyAgent
from tests.harness import impatient, wait_for
from tests.keys.bench import Bench
from tests.keys.conftest import Meddler

VENDOR = "iot-agent-vendor"
BEAT = 1.5  # seconds between two signs of life, as the service manager is promised


@pytest.fixture
def agent(on_token: Bench, meddler: Meddler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LonelyAgent]:
    """Give an agent whose bootstrap key is on the token, behind the meddler."""
    assert on_token.local is not None
    on_token.local.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", VENDOR, "--id", "01")
    for name, value in impatient(tmp_path).items():
        monkeypatch.setenv(name, value)
    directory = tmp_path / "agent"
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        agent = LonelyAgent(directory, nobody.getsockname()[1])
        keys = f"{{backend: pkcs11, module: {on_token.local.module}, token: {LABEL}, pin: {on_token.local.pin_file}}}"
        agent.configure(f"limits: {{step: 2s, key_generation: 2s}}\nkeys: {keys}")
        path = directory / "agent.yaml"
        path.write_text(path.read_text().replace("key: bootstrap.key", f"key: pkcs11:object={VENDOR}"))
        yield agent
        agent.kill()
    assert meddler.calls(Meddler.INITIALIZE) > 0, "the module was never reached"


class Manager:
    """Stands for systemd's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def signs_of_life(self, until: Callable[[], object]) -> int:
        """Count the daemon's signs of life until something is the case."""
        signs = 0
        while not until():
            with contextlib.suppress(BlockingIOError):
                while True:
                    signs += b"WATCHDOG=1" in self._socket.recv(4096, socket.MSG_DONTWAIT)
        return signs


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
@pytest.mark.parametrize(("what", "code"), [("h", "worker-timeout"), ("c", "worker-crashed")], ids=["hangs", "crashes"])
def test_a_module_that_fails_costs_the_daemon_nothing(
    agent: LonelyAgent, meddler: Meddler, tmp_path: Path, what: str, code: str
) -> None:
    meddler.spoil(Meddler.LOGIN, "b", what)
    manager = Manager(tmp_path / "notify")
    agent.start(NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC=str(int(BEAT * 1e6)))
    assert manager.signs_of_life(until=lambda: agent.status()["last_error"]) > 0, "systemd would have killed it"
    assert agent.status()["last_error"]["code"] == code
    assert agent.status()["daemon"] == "running"


@pytest.mark.parametrize("on_token", ["softhsm"], indirect=True)
def test_a_refused_pin_is_told_and_not_tried_again_by_retries_reloads_or_restarts(
    agent: LonelyAgent, on_token: Bench, meddler: Meddler
) -> None:
    assert on_token.local is not None
    right = on_token.local.pin_file.read_text()
    on_token.local.pin_file.write_text("not-the-pin\n")
    before = meddler.calls(Meddler.LOGIN)
    process = agent.start()
    wait_for(lambda: agent.status()["attempt"] > 1)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: agent.status()["attempt"] > 1)
    agent.stop()
    agent.start()
    wait_for(lambda: agent.status()["attempt"] > 2)
    error = agent.status()["last_error"]
    assert error["code"] == "pin-refused"
    assert "not tried again" in error["message"]
    assert meddler.calls(Meddler.LOGIN) == before + 1
    on_token.local.pin_file.write_text(right)
    assert agent.agentctl("rotate").returncode == 0
    wait_for(lambda: agent.status()["last_error"]["code"] not in ("pin-refused", "internal"))
    assert meddler.calls(Meddler.LOGIN) > before + 1


def test_the_manager_would_notice_a_silence(tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.connect(str(manager.path))
        daemon.send(b"STATUS=a module hangs, and the loop with it")
        looks = iter((False, True))
        assert manager.signs_of_life(until=lambda: next(looks)) == 0
