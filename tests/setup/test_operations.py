"""What docs/operations.md does by hand: the CA that its command makes is one that setup takes and that issues."""

from __future__ import annotations

import re
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.rotation import csr
from cloud.rotation.issuer import Issuer, SsmKey
from cloud.setup import authorities
from cloud.setup.ca_key import InSsm
from cloud.setup.ssm_parameters import Names, Parameters
from tests.cloud import pki

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
NAMES = Names("stack")


def test_the_other_ca_that_the_document_makes_is_taken_and_issues(ssm: SSMClient, tmp_path: Path) -> None:
    command = re.search(r"^ +(openssl req(?:.*\\\n)+.*)$", DOCUMENT.read_text(), re.MULTILINE)
    assert command
    subprocess.run(shlex.split(command[1].replace("\\\n", " ")), cwd=tmp_path, check=True, capture_output=True)
    parameters = Parameters(ssm)
    old, _ = authorities.manufacturer_ca(parameters, "stack", InSsm(parameters, NAMES))
    key, ca = (tmp_path / "new-ca-key.pem").read_text(), (tmp_path / "new-ca.pem").read_text()
    ssm.put_parameter(Name=NAMES.manufacturer_key, Value=key, Type="SecureString", Overwrite=True)
    ssm.put_parameter(Name=NAMES.manufacturer_certificate, Value=ca, Type="String", Overwrite=True)

    assert authorities.manufacturer_ca(parameters, "stack", InSsm(parameters, NAMES)) == (ca, False)
    assert pki.load(ca).subject != pki.load(old).subject

    issuer = Issuer(ca, SsmKey(ssm, NAMES.manufacturer_key), timedelta(days=90))
    now = int(datetime.now(UTC).timestamp() * 1000)
    (tmp_path / "it.pem").write_text(issuer.issue(csr.check(pki.csr(["SN-1"]), "SN-1"), "SN-1", now).pem)
    judge = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "new-ca.pem", "it.pem"]
    judged = subprocess.run(judge, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert judged.stdout == "it.pem: OK\n", judged.stderr
