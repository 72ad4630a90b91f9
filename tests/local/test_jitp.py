"""Just-in-time provisioning in the local cloud, as in AWS; on CAs and templates made for it, without a stack."""

from __future__ import annotations

import json
import socket
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from cloud.common import certificates
from tests.local.local_stack import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_iot import IoTClient

    from tests.local.local_stack import Stage

pytestmark = pytest.mark.local_cloud

PREFIX = "AWS::IoT::Certificate::"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}],
}


@pytest.fixture(scope="module")
def iot(stage: Stage) -> IoTClient:
    """Return the control plane, with a policy named jitp and a role for templates."""
    where = stage.here.endpoint_url
    iot = stage.session.client("iot", endpoint_url=where)
    iot.create_policy(policyName="jitp", policyDocument=json.dumps(POLICY))
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"},
        ],
    }
    may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
    iam = stage.session.client("iam", endpoint_url=where)
    iam.create_role(RoleName="jitp", AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName="jitp", PolicyName="jitp", PolicyDocument=json.dumps(may))
    iam.create_role(RoleName="powerless", AssumeRolePolicyDocument=json.dumps(trust))
    return iot


def a_device(stage: Stage, iot: IoTClient, directory: Path, parameters: list[str], role: str = "jitp") -> str:
    """Register a CA whose template declares the parameters, write a device's files; return the certificate's id."""
    name = directory.name[-20:]
    body = {
        "Parameters": {PREFIX + parameter: {"Type": "String"} for parameter in parameters},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": PREFIX + "CommonName"}}},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": PREFIX + "Id"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "jitp"}},
        },
    }
    iot.create_provisioning_template(
        templateName=name,
        type="JITP",
        enabled=True,
        templateBody=json.dumps(body),
        provisioningRoleArn=f"arn:aws:iam::{stage.here.account}:role/{role}",
    )
    key = certificates.load(certificates.new_key(), "the CA")
    ca = certificates.Signer(certificates.ca_certificate(key, name, certificates.now()), key)
    iot.register_ca_certificate(
        caCertificate=ca.certificate,
        certificateMode="SNI_ONLY",
        setAsActive=True,
        allowAutoRegistration=True,
        registrationConfig={"templateName": name},
    )
    device = certificates.new_key()
    leaf = certificates.device_certificate(device, name, ca, timedelta(days=1), certificates.now())
    (directory / "key.pem").write_text(device)
    (directory / "certificate.pem").write_text(leaf + ca.certificate)
    return certificates.certificate_id(leaf)


def connect(stage: Stage, directory: Path) -> int | None:
    """Connect once as the device."""
    return stage.connect(directory / "certificate.pem", directory / "key.pem", directory.name[-20:])


def status(iot: IoTClient, certificate_id: str) -> str:
    """Return what the registry says of the certificate."""
    return iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]["status"]


def test_the_first_connection_is_dropped_and_a_later_one_accepted(stage: Stage, iot: IoTClient, tmp_path: Path) -> None:
    certificate_id = a_device(stage, iot, tmp_path, ["CommonName", "Id"])
    assert connect(stage, tmp_path) is None
    assert status(iot, certificate_id) == "PENDING_ACTIVATION"  # the template takes a moment
    assert eventually(lambda: status(iot, certificate_id) == "ACTIVE")
    assert connect(stage, tmp_path) == 0
    name = tmp_path.name[-20:]
    principals = iot.list_thing_principals(thingName=name)["principals"]
    assert [arn.rpartition("/")[2] for arn in principals] == [certificate_id]
    assert [one["policyName"] for one in iot.list_attached_policies(target=principals[0])["policies"]] == ["jitp"]


@pytest.mark.parametrize(
    ("parameters", "role"), [(["CommonName", "Id", "Country"], "jitp"), (["CommonName", "Id"], "powerless")]
)
def test_a_missing_subject_field_or_permission_leaves_the_certificate_pending(
    stage: Stage, iot: IoTClient, tmp_path: Path, parameters: list[str], role: str
) -> None:
    certificate_id = a_device(stage, iot, tmp_path, parameters, role)
    assert connect(stage, tmp_path) is None
    assert not eventually(lambda: status(iot, certificate_id) != "PENDING_ACTIVATION", limit_s=1)
    assert connect(stage, tmp_path) is None


def test_a_handshake_alone_registers_nothing(stage: Stage, iot: IoTClient, tmp_path: Path) -> None:
    certificate_id = a_device(stage, iot, tmp_path, ["CommonName", "Id"])
    context = ssl.create_default_context(cafile=stage.here.mqtt_ca)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with socket.create_connection((stage.here.mqtt_host, stage.here.mqtt_port)) as plain:
        context.wrap_socket(plain, server_hostname="localhost").close()
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        status(iot, certificate_id)
