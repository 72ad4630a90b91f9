"""A real daemon whose broker never answers."""

import time
from pathlib import Path

from tests.harness import Agent
from tests.simulator.authority import Authority


class LonelyAgent(Agent):
    """An agent in `directory`; the broker at `port` never answers it."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(directory)
        self.port = port
        ca = Authority("Vendor CA", time.time())
        certificate, key = ca.issue("SN-0001", time.time())
        (directory / "ca.pem").write_text(ca.pem)
        (directory / "bootstrap.pem").write_text(certificate)
        (directory / "bootstrap.key").write_text(key)
        self.configure()

    def configure(self, extra: str = "limits: {step: 2m}") -> None:
        (self.directory / "agent.yaml").write_text(
            f"serial: SN-0001\nendpoint: {{host: localhost, port: {self.port}, ca_file: ca.pem}}\n"
            "bootstrap: {certificate: bootstrap.pem, key: bootstrap.key}\n"
            f"paths: {{state: state, run: run}}\nretry: {{first: 1s}}\n{extra}\n"
        )
