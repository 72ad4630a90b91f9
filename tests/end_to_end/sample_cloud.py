"""The cloud of the aws-samples "device on-boarding with JITP and certificate rotation", as far as the wire shows it.

What it answers is taken from that sample's Lambda (aws-samples/iot-device-on-boarding, aws_cloud). A thread of ours
stands in for it; broker, registry, policies and just-in-time provisioning are the local cloud's.

- A certificate is of X.509 version 1, with serial number 0, the request's subject and ten years; no chain is sent.
- While it is not acknowledged, it is sent again, whatever is asked for.
- An acknowledgement ends the vendor certificate: detached, INACTIVE, deleted. Then it is answered.
- There is no request_id, no time, no error reply and no check-in.
- As published it serves one rotation in a device's life, and does not answer what it does not serve. The devices in
  `renews` are served later ones too.

Its policies allow every client id and topic, as the sample's do.
"""

import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from awscrt import io, mqtt

from cloud.local.handle import LocalCloud
from tests.end_to_end.sample_device import PATIENCE, SampleCa

REQUESTS = "/cert-rotation/create-man-cert/+/rqst", "/cert-rotation/ack-man-cert/+/rqst"
THING = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"}}}
CERTIFICATE = {
    "Type": "AWS::IoT::Certificate",
    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
}
POLICY = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "sample"}}
TEMPLATE = {
    "Parameters": {f"AWS::IoT::Certificate::{name}": {"Type": "String"} for name in ("CommonName", "Id")},
    "Resources": {"thing": THING, "certificate": CERTIFICATE, "policy": POLICY},
}


def _statement(*actions: str, **more: Any) -> str:  # noqa: ANN401 - what a policy document may hold
    statement = {"Effect": "Allow", "Action": list(actions), **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class SampleCloud:
    """Serves from `start` to `stop`. `asked` tells what for and by whom.

    Who is in `loses` does not get its next answer; who is in `loses_acknowledgements` never gets one to that.
    """

    def __init__(self, cloud: LocalCloud, directory: Path) -> None:
        self._here, self._directory = cloud.description, directory
        session = boto3.Session("test", "test", region_name=self._here.region)
        self.iot: Any = session.client("iot", endpoint_url=self._here.endpoint_url)
        self.vendor_ca = SampleCa.make(directory, "Vendor")
        self.manufacturer_ca = SampleCa.make(directory, "Manufacturer")
        self.asked: list[str] = []
        self.renews: set[str] = set()
        self.loses: set[str] = set()
        self.loses_acknowledgements: set[str] = set()
        self._pending: dict[str, tuple[str, str]] = {}  # by serial: certificate id and PEM
        self._complete: set[str] = set()
        self._requests: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._prepare(session.client("iam", endpoint_url=self._here.endpoint_url))
        self._connection = self._connect()

    def start(self) -> None:
        self._thread.start()
        self._connection.connect().result(PATIENCE)
        for topic in REQUESTS:
            self._connection.subscribe(topic, mqtt.QoS.AT_LEAST_ONCE, self._hear)[0].result(PATIENCE)

    def stop(self) -> None:
        self._connection.disconnect().result(PATIENCE)
        self._requests.put(None)
        self._thread.join(PATIENCE)

    def certificates(self, serial: str) -> dict[str, str]:
        """Give the status of each certificate of a thing."""
        principals = self.iot.list_thing_principals(thingName=serial)["principals"]
        ids = [arn.rsplit("/", 1)[1] for arn in principals]
        return {
            name: self.iot.describe_certificate(certificateId=name)["certificateDescription"]["status"] for name in ids
        }

    # ---- what is there before the first device ----------------------------------------------------------------------

    def _prepare(self, iam: Any) -> None:  # noqa: ANN401 - a client without types
        trust = _statement("sts:AssumeRole", Principal={"Service": "iot.amazonaws.com"})
        iam.create_role(RoleName="jitp", AssumeRolePolicyDocument=trust)
        iam.put_role_policy(RoleName="jitp", PolicyName="jitp", PolicyDocument=_statement("iot:*", Resource="*"))
        everything = f"arn:aws:iot:{self._here.region}:{self._here.account}:*"
        may = _statement("iot:Connect", "iot:Publish", "iot:Subscribe", "iot:Receive", Resource=everything)
        self.iot.create_policy(policyName="sample", policyDocument=may)
        role = f"arn:aws:iam::{self._here.account}:role/jitp"
        self.iot.create_provisioning_template(
            templateName="sample",
            type="JITP",
            enabled=True,
            templateBody=json.dumps(TEMPLATE),
            provisioningRoleArn=role,
        )
        jitp = {"allowAutoRegistration": True, "registrationConfig": {"templateName": "sample"}}
        for ca, more in ((self.vendor_ca, jitp), (self.manufacturer_ca, {})):
            pem = ca.certificate.read_text()
            self.iot.register_ca_certificate(caCertificate=pem, certificateMode="SNI_ONLY", setAsActive=True, **more)

    def _connect(self) -> mqtt.Connection:
        own = self.iot.create_keys_and_certificate(setAsActive=True)
        self.iot.attach_policy(policyName="sample", target=own["certificateArn"])
        options = io.TlsContextOptions.create_client_with_mtls(
            own["certificatePem"].encode(), own["keyPair"]["PrivateKey"].encode()
        )
        options.override_default_trust_store_from_path(ca_filepath=self._here.mqtt_ca)
        client = mqtt.Client(tls_ctx=io.ClientTlsContext(options))
        where = self._here.mqtt_host, self._here.mqtt_port
        return mqtt.Connection(client, *where, client_id="sample-cloud", clean_session=True, keep_alive_secs=60)

    # ---- what it does -----------------------------------------------------------------------------------------------

    def _hear(self, topic: str, payload: bytes, **_: object) -> None:
        self._requests.put((topic, json.loads(payload)))  # the SDK's own thread must not wait for the answer

    def _serve(self) -> None:
        serve: dict[str, Callable[[str, dict[str, Any]], dict[str, str] | None]]
        serve = {"create-man-cert": self._create, "ack-man-cert": self._acknowledge}
        while (request := self._requests.get()) is not None:
            topic, message = request
            verb, serial = topic.split("/")[-3:-1]
            self.asked.append(f"{verb} {serial}")
            answer = serve[verb](serial, message)
            deaf = serial in self.loses or (verb == "ack-man-cert" and serial in self.loses_acknowledgements)
            if answer is not None and not deaf:
                where = f"/cert-rotation/{verb}/{serial}/rspn"
                self._connection.publish(where, json.dumps(answer), mqtt.QoS.AT_LEAST_ONCE)
            self.loses.discard(serial)

    def _create(self, serial: str, message: dict[str, Any]) -> dict[str, str] | None:
        if serial in self._complete - self.renews:
            return None
        if serial not in self._pending:
            pem = self._signed(message["csr"])
            issuer = self.manufacturer_ca.certificate.read_text()
            made = self.iot.register_certificate(certificatePem=pem, caCertificatePem=issuer, setAsActive=True)
            self.iot.attach_policy(policyName="sample", target=made["certificateArn"])
            self.iot.attach_thing_principal(thingName=serial, principal=made["certificateArn"])
            self._pending[serial] = made["certificateId"], pem
        certificate_id, pem = self._pending[serial]
        return {"pem": pem, "cert_id": certificate_id}

    def _acknowledge(self, serial: str, message: dict[str, Any]) -> dict[str, str] | None:
        certificate_id, _ = self._pending.get(serial, ("", ""))
        if message["cert_id"] != certificate_id:
            return None
        for arn in self.iot.list_thing_principals(thingName=serial)["principals"]:
            previous = arn.rsplit("/", 1)[1]
            if previous != certificate_id:
                self.iot.detach_thing_principal(thingName=serial, principal=arn)
                self.iot.update_certificate(certificateId=previous, newStatus="INACTIVE")
                self.iot.delete_certificate(certificateId=previous, forceDelete=True)
        del self._pending[serial]
        self._complete.add(serial)
        return {"cert_id": certificate_id}

    def _signed(self, csr: str) -> str:
        request, certificate = self._directory / "request.csr", self._directory / "certificate.pem"
        request.write_text(csr)
        self.manufacturer_ca.sign(request, certificate, "0")
        return certificate.read_text()
