"""The session with AWS or with a local cloud, and the check that it works."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound

from cloud.common import certificates
from cloud.common.errors import SetupError
from cloud.common.local_endpoint import Description, read

# Amazon asks clients to have all of these, whichever of them has signed the endpoint's certificate today, so that a
# device needs no update when Amazon changes it (DG: "Server authentication", CA certificates).
STARFIELD = "Starfield Services Root Certificate Authority - G2"
AMAZON_ROOTS = (*(f"Amazon Root CA {number}" for number in range(1, 5)), STARFIELD)
MQTT_PORT = 8883
LOG_IN = (
    "log in (`aws configure`, `aws sso login`) or give --profile; without AWS, run `make local-up` in another terminal "
    "and give --local build/local"
)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where devices connect, and the CA certificates (PEM) that they verify it with."""

    host: str
    port: int
    trust: str


@dataclasses.dataclass(frozen=True)
class Cloud:
    """An AWS session; `local` describes the local cloud if the session is with one."""

    session: boto3.Session
    account: str
    local: Description | None
    # Control-plane limits are low (10 a second for certificates): retry rather than fail half-way.
    config: Config = dataclasses.field(default_factory=lambda: Config(retries={"mode": "adaptive", "max_attempts": 10}))

    @property
    def region(self) -> str:
        """The AWS region."""
        return self.session.region_name

    @property
    def place(self) -> str:
        """The cloud's name, for messages."""
        return f"the local cloud at {self.local.endpoint_url}" if self.local else f"AWS {self.account} {self.region}"

    def endpoint(self) -> Endpoint:
        """Return where devices connect. Raises SetupError if botocore's trust store lacks Amazon's roots."""
        if self.local:
            trust = Path(self.local.mqtt_ca).read_text(encoding="ascii")
            return Endpoint(self.local.mqtt_host, self.local.mqtt_port, trust)
        iot = self.session.client("iot", config=self.config)
        host = iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        store = Path(botocore.__file__).with_name("cacert.pem")
        try:
            return Endpoint(host, MQTT_PORT, certificates.select(store.read_text(encoding="utf-8"), AMAZON_ROOTS))
        except (OSError, LookupError) as error:
            raise SetupError(
                f"cannot read Amazon's root certificates in {store}: {error}",
                "run `make env-cloud`, which installs botocore with its trust store again",
            ) from error


def connect(region: str | None, local_directory: Path | None, profile: str | None = None) -> Cloud:
    """Return the session, after a call that shows that it works. Raises SetupError without region or credentials."""
    if local_directory and profile:
        raise SetupError("--profile is of AWS and --local of a local cloud", "give one of the two")
    local = _local(local_directory) if local_directory else None
    if profile:
        # For boto3 here and for sam, which is started from here: keys in the environment would come first.
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            os.environ.pop(name, None)
        os.environ["AWS_PROFILE"] = profile
    if local:
        environment = local.environment(os.environ)
        os.environ.clear()  # for boto3 here and for sam, which is started from here
        os.environ.update(environment)
    elif region:
        os.environ.update(AWS_REGION=region, AWS_DEFAULT_REGION=region)
    try:
        session = boto3.Session(region_name=None if local else region)
        if not session.region_name:
            raise _no_region(credentials=session.get_credentials() is not None)
        account = session.client("sts").get_caller_identity()["Account"]
    except (NoCredentialsError, ProfileNotFound) as error:
        raise SetupError(f"no usable AWS credentials: {error}", LOG_IN) from error
    except ClientError as error:
        raise SetupError(
            f"AWS refuses the credentials: {error}", "log in again, or choose another --profile"
        ) from error
    except BotoCoreError as error:
        raise SetupError(f"cannot reach AWS: {error}", "check the network, the proxy settings and --region") from error
    return Cloud(session, account, local)


def _no_region(*, credentials: bool) -> SetupError:
    """Return the error for a missing region, which also reports missing credentials."""
    remedy = "give --region, or set AWS_DEFAULT_REGION"
    if credentials:
        return SetupError("no AWS region is configured", remedy)
    return SetupError("neither an AWS region nor AWS credentials are configured", f"{remedy}; {LOG_IN}")


def _local(directory: Path) -> Description:
    try:
        return read(directory)
    except FileNotFoundError as error:
        raise SetupError(
            f"no local cloud is running in {directory}",
            f"in another terminal: make env-local, then build/env/local/bin/python -m cloud.local up --dir {directory}",
        ) from error
