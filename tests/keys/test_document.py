"""docs/tokens.md, followed to the letter on a software TPM."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from cloud.local.tokens import TPM_MODULE, SoftTpm
from iot_agent.config import agent_yaml
from iot_agent.core.errors import REMEDIES
from tests.keys.bench import FIRST, ROOT, ring

DOCUMENT = (ROOT / "docs" / "tokens.md").read_text()
HOMES = ("/var/lib/iot-agent", "/etc/iot-agent")
BASICS = "serial: SN-0001\nendpoint: {host: example.com, ca_file: ca.pem}\n"
BOOTSTRAP = "bootstrap: {certificate: certificate.pem, key: key.pem}\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def test_a_token_made_as_the_document_says_serves_the_agent(
    tpm: SoftTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same commands; only the agent's directories and the way to the TPM are this test's."""
    script, keys = "\n".join(blocks("sh")), blocks("yaml")[0]
    for home in HOMES:
        script, keys = script.replace(home, str(tmp_path)), keys.replace(home, str(tmp_path))
    keys = re.sub(r"/usr/lib/\S+\.so", str(TPM_MODULE), keys)
    (tmp_path / "tpm2").mkdir()
    tpm.unlock()
    monkeypatch.setenv("TPM2_PKCS11_TCTI", "tabrmd:bus_type=session")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tpm.bus}")
    monkeypatch.delenv("TPM2_PKCS11_STORE", raising=False)
    done = subprocess.run(
        ("bash", "-euo", "pipefail", "-c", script), capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "token label        : iot-agent" in done.stdout
    (tmp_path / "agent.yaml").write_text(BASICS + BOOTSTRAP + keys)
    settings = agent_yaml.read(tmp_path / "agent.yaml")
    monkeypatch.setenv("TPM2_PKCS11_STORE", str(tmp_path / "tpm2"))
    keystore = ring(tmp_path, settings.keys_token)
    keystore.generate(FIRST, settings.keys_algorithm)
    assert keystore.labels() == {FIRST}
    assert keystore.csr(FIRST, settings.serial).startswith("-----BEGIN CERTIFICATE REQUEST")


def test_the_bootstrap_section_of_the_document_is_read(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(BASICS + "\n".join(blocks("yaml")))
    assert "'vendor'" in str(agent_yaml.read(tmp_path / "agent.yaml").bootstrap_key)


def test_systemd_takes_the_unit_with_what_the_document_adds(tmp_path: Path) -> None:
    (addition,) = blocks("ini")
    unit = (ROOT / "packaging" / "iot-agent.service").read_text().replace("/usr/bin/iot-agent", "/bin/true")
    (tmp_path / "iot-agent.service").write_text(unit)
    (tmp_path / "iot-agent.service.d").mkdir()
    (tmp_path / "iot-agent.service.d" / "tpm.conf").write_text(addition)
    command = ("systemd-analyze", "verify", "--man=no", str(tmp_path / "iot-agent.service"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_packages_drop_in_is_the_documents() -> None:
    (addition,) = blocks("ini")
    shipped = (ROOT / "packaging/iot-agent.service.d/tpm.conf").read_text().splitlines()
    assert [line for line in shipped if not line.startswith("#")] == addition.splitlines()


def test_every_code_that_a_token_may_end_in_is_explained() -> None:
    table = set(re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT, re.MULTILINE))
    assert table == {code for code in REMEDIES if code.startswith(("token", "pin", "key-store"))}
