"""Devices of the aws-samples on-boarding sample against this stack: what they send is taken, what they get suffices."""

import itertools
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from awscrt.exceptions import AwsCrtError
from cryptography import x509

from cloud.local.handle import LocalCloud
from cloud.setup.ssm_parameters import Names
from tests.end_to_end.conftest import Stack
from tests.end_to_end.sample_device import SampleCa, SampleDevice, VendorIdentity, openssl
from tests.harness import wait_for

CREATE, ACK = "create-man-cert", "ack-man-cert"
NAMES = Names("iot-agent")


class SampleStack(Stack):
    """The stack in the sample's place: its topics, its vendor CA, certificates for as long as the sample's."""

    def __init__(self, cloud: LocalCloud, directory: Path) -> None:
        here = cloud.description
        session = boto3.Session("test", "test", region_name=here.region)
        parameters: Any = session.client("ssm", endpoint_url=here.endpoint_url)
        self.vendor_ca = SampleCa.make(directory, "Vendor")
        vendor_pem = self.vendor_ca.certificate.read_text()
        parameters.put_parameter(Name=NAMES.vendor_certificate, Value=vendor_pem, Type="String")
        super().__init__(cloud, directory)
        self.manufacturer_ca = directory / "Manufacturer_rootCA.pem"
        issuer = parameters.get_parameter(Name=NAMES.manufacturer_certificate)["Parameter"]["Value"]
        self.manufacturer_ca.write_text(issuer)
        self._serials = itertools.count(1)

    def setup(self, *arguments: str) -> None:
        """Deploy: the one command that it is used for."""
        super().setup(*arguments, "--topic-prefix", "/cert-rotation", "--lifetime", "3650d", "--sample-devices", "yes")

    def new_sample_device(self) -> SampleDevice:
        """Make a device at the sample's vendor, and allow it as the stack's output says: by an item in the table."""
        serial = f"IUQWXALODJESC{next(self._serials)}"
        now = time.time_ns() // 1_000_000
        self.table.put_item(Item={"serial": serial, "state": "ALLOWED", "version": 0, "allowed_at": now})
        identity = VendorIdentity(self.directory / serial, serial)
        identity.directory.mkdir()
        identity.make(self.vendor_ca)
        here = self.cloud.description
        return SampleDevice(identity, (here.mqtt_host, here.mqtt_port), Path(here.mqtt_ca), self.manufacturer_ca)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    directory = tmp_path_factory.mktemp("sample-device")
    with LocalCloud(directory / "cloud") as cloud:
        yield SampleStack(cloud, directory)


@pytest.fixture
def device(stack: SampleStack) -> SampleDevice:
    """Give a device that has never been connected."""
    return stack.new_sample_device()


@pytest.fixture(scope="module")
def aboard(stack: SampleStack) -> SampleDevice:
    """Give a device that has its certificate."""
    device = stack.new_sample_device()
    come_aboard(device)
    return device


def accepted(device: SampleDevice, identity: Path) -> bool:
    try:
        with device.session(identity):
            return True
    except AwsCrtError:
        return False


def come_aboard(device: SampleDevice) -> str:
    """Go through the sample's three connections; gives the id of the certificate the device has then."""
    wait_for(lambda: accepted(device, device.vendor))
    with device.session(device.vendor) as session:
        certificate_id = device.keep(session.ask(CREATE, {"csr": device.csr()}))
    with device.session(device.own) as session:
        assert session.ask(ACK, {"cert_id": certificate_id})["cert_id"] == certificate_id
    return certificate_id


def test_a_sample_device_comes_aboard(stack: SampleStack, device: SampleDevice) -> None:
    assert not accepted(device, device.vendor), "just-in-time provisioning drops the first connection"
    wait_for(lambda: accepted(device, device.vendor))
    with device.session(device.vendor) as session:
        given = session.ask(CREATE, {"csr": device.csr()})
    certificate_id = device.keep(given)
    assert set(given) == {"pem", "cert_id", "chain", "time"}, "its two fields, and optional ones that it passes over"
    leaf = x509.load_pem_x509_certificate(given["pem"].encode())
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc > timedelta(days=3640), "it never renews by itself"
    vendor = stack.item(device.serial)["vendor_certificate_id"]
    assert stack.status_of(vendor) == "ACTIVE", "nothing is given up before the device has used the new one"
    with device.session(device.own) as session:
        first = session.ask(ACK, {"cert_id": certificate_id})
        again = session.ask(ACK, {"cert_id": certificate_id})
    assert set(first) == {"cert_id", "time"}
    assert first["cert_id"] == again["cert_id"] == certificate_id, "it acknowledges until it hears something"
    wait_for(lambda: stack.status_of(vendor) == "INACTIVE")
    assert not accepted(device, device.vendor)
    assert stack.status_of(vendor) == "INACTIVE", "it must not come back to life by connecting"
    assert stack.active(device.serial) == {certificate_id}


def test_it_may_rotate_again_over_its_certificate(stack: SampleStack, device: SampleDevice, tmp_path: Path) -> None:
    first = come_aboard(device)
    with device.session(device.own) as session:
        assert session.ask(CREATE, {"csr": device.csr()})["cert_id"] == first, "the same key, the same certificate"
    another = tmp_path / "another.key"
    openssl("genrsa", "-out", another, "2048")
    with device.session(device.own) as session:
        second = device.keep(session.ask(CREATE, {"csr": device.csr(another)}))
    assert second != first
    with device.session(device.own, another) as session:
        assert session.ask(ACK, {"cert_id": second})["cert_id"] == second
    wait_for(lambda: stack.status_of(first) is None)
    assert stack.active(device.serial) == {second}


def test_a_refusal_says_nothing_to_it_and_does_it_no_harm(device: SampleDevice) -> None:
    wait_for(lambda: accepted(device, device.vendor))
    with device.session(device.vendor) as session:
        refused = session.ask(CREATE, {"csr": device.csr(name="SOMEBODY-ELSE")})
        assert refused["error"]["code"] == "bad-csr"
        assert not {"pem", "cert_id"} & set(refused), "it looks for these alone, so it waits and asks again"
        assert session.ask(CREATE, {"csr": device.csr()})["pem"].startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize("topic", ["#", "/cert-rotation/+/+/rspn", "/cert-rotation/create-man-cert/SN-1/rspn"])
def test_it_may_subscribe_to_its_own_topics_only(aboard: SampleDevice, topic: str) -> None:
    with aboard.session(aboard.own) as session:
        with pytest.raises(AwsCrtError):
            session.subscribe(topic)
        assert session.lost.get(timeout=5), "in MQTT 3.1.1 the connection is ended"


@pytest.mark.parametrize("topic", ["/cert-rotation/create-man-cert/SN-1/rqst", "/cert-rotation/ack-man-cert/SN-1/rqst"])
def test_it_may_publish_to_its_own_topics_only(aboard: SampleDevice, topic: str) -> None:
    with aboard.session(aboard.own) as session:
        session.publish(topic, {"csr": aboard.csr()})
        assert session.lost.get(timeout=5), "in MQTT 3.1.1 the connection is ended"


def test_it_may_use_no_other_name(device: SampleDevice) -> None:
    wait_for(lambda: accepted(device, device.vendor))
    device.client_id = "SN-1"
    assert not accepted(device, device.vendor)
    device.client_id = device.serial
    assert accepted(device, device.vendor)
