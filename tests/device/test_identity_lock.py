"""The lock between a worker and the doctor, with the real daemon: a step waits for it, but not for ever."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iot_agent.storage import identity_lock
from tests.device.faulty_device import closed_port
from tests.device.lonely_agent import LonelyAgent
from tests.harness import PATIENCE, impatient, wait_for


@contextmanager
def lock_held(state: Path) -> Iterator[None]:
    """Use the identity as `agentctl doctor` does."""
    with identity_lock.exclusive_use(state, PATIENCE) as ours:
        assert ours
        yield


@pytest.mark.needs_root
def test_a_step_waits_for_the_doctor(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        agent = LonelyAgent(tmp_path, broker.getsockname()[1])
        (tmp_path / "state").mkdir()
        try:
            with lock_held(tmp_path / "state"):
                agent.start()
                waiting = Path(f"/proc/{agent.worker()}/fd")
                wait_for(lambda: any(fd.resolve() == tmp_path / "state" for fd in waiting.iterdir()))
                broker.settimeout(1)
                with pytest.raises(TimeoutError):
                    broker.accept()
            broker.settimeout(PATIENCE)
            broker.accept()
        finally:
            agent.kill()


def test_a_doctor_that_never_ends_stops_no_step(agent: LonelyAgent) -> None:
    agent.configure("limits: {step: 4s}")
    (agent.directory / "agent.yaml").write_text(
        (agent.directory / "agent.yaml").read_text().replace(f"port: {agent.port}", f"port: {closed_port()}")
    )
    (agent.directory / "state").mkdir()
    with lock_held(agent.directory / "state"):
        agent.start(**impatient(agent.directory))
        assert wait_for(lambda: agent.status()["last_error"])["code"] == "unreachable"
