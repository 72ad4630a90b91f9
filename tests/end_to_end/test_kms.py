"""A device's life under a CA whose key is in KMS, as the deployed Lambda's role lets it be used."""

import subprocess
from pathlib import Path

from cloud.local.handle import LocalCloud
from tests.end_to_end.conftest import Stack
from tests.harness import wait_for


def test_a_device_comes_aboard_and_all_is_removed_afterwards(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "cloud") as cloud:
        stack = Stack(cloud, tmp_path, "--ca-key", "kms:RSA_2048")
        agent = stack.new_device()
        agent.start()
        try:
            wait_for(lambda: agent.settled(1))
        finally:
            agent.kill()
        leaf, ca = agent.directory / "state/current/certificate.pem", agent.directory / "manufacturer-ca.pem"
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", str(ca), str(leaf)]
        assert subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == f"{leaf}: OK"

        stack.setup("destroy", "--yes")
        kms = stack.client("kms")
        assert kms.list_aliases()["Aliases"] == []
        states = {kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"] for key in kms.list_keys()["Keys"]}
        assert states == {"PendingDeletion"}
