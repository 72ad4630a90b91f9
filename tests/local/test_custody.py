"""The keeper in KMS: interrupted, beside another run, with a key that cannot sign, removed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.common.aws_session import connect
from cloud.common.errors import SetupError
from cloud.setup import ca_key
from cloud.setup.ssm_parameters import Names, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud.common.aws_session import Cloud
    from cloud.setup.ca_key_in_kms import InKms
    from tests.local.local_stack import Stage


@pytest.fixture(scope="module")
def here(stage: Stage) -> Cloud:
    return connect(None, stage.cloud.directory)


@pytest.fixture
def names() -> Names:
    return Names(f"custody-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def keeper(here: Cloud, names: Names) -> Iterator[InKms]:
    made = ca_key.in_kms(here, names, "ECC_NIST_P256")
    yield made
    made.remove()


def keys_of(here: Cloud, names: Names) -> list[str]:
    """Return the keys tagged as the stack's that are not on their way out."""
    client = here.session.client("kms", config=here.config)
    found = []
    for key in client.list_keys(Limit=1000)["Keys"]:
        state = client.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"]
        tags = client.list_resource_tags(KeyId=key["KeyId"])["Tags"]
        if state == "Enabled" and {"TagKey": "iot-agent:manufacturer-ca", "TagValue": names.stack} in tags:
            found.append(key["KeyArn"])
    return found


class Interrupted(Exception):
    """Ctrl-C between making the key and naming it."""


def test_a_run_that_ended_before_the_key_had_its_name_is_continued(
    keeper: InKms, here: Cloud, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(**_request: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(keeper._kms, "create_alias", stop)
        with pytest.raises(Interrupted):
            keeper.make()
    assert keeper.find() is not None
    assert keys_of(here, names) == [keeper.parameters()["ManufacturerKeyArn"]]


def test_of_two_runs_at_once_both_end_with_the_same_key(keeper: InKms, here: Cloud, names: Names) -> None:
    other = ca_key.in_kms(here, names, "ECC_NIST_P256")
    keeper.make()
    other.make()  # has looked before the first had made it
    assert other.parameters() == keeper.parameters()
    assert keys_of(here, names) == [keeper.parameters()["ManufacturerKeyArn"]]


def test_a_disabled_key_is_said_to_be_there_and_how_to_enable_it(keeper: InKms, here: Cloud) -> None:
    keeper.make()
    client = here.session.client("kms", config=here.config)
    client.disable_key(KeyId=keeper.parameters()["ManufacturerKeyArn"])
    with pytest.raises(SetupError, match="is Disabled") as raised:
        keeper.find()
    assert "enable-key" in raised.value.remedy
    assert keeper.spec() == "ECC_NIST_P256"


def test_what_was_removed_is_gone_and_signs_no_more(keeper: InKms) -> None:
    key: Any = keeper.make()
    assert keeper.remove()
    assert keeper.find() is None
    assert not keeper.remove()
    with pytest.raises(ClientError):
        key.sign(b"data", ec.ECDSA(hashes.SHA256()))


def test_a_change_of_mind_is_refused(keeper: InKms, here: Cloud, names: Names) -> None:
    ssm = ca_key.InSsm(Parameters(here.session.client("ssm", config=here.config)), names)
    assert ca_key.choose(None, ssm, keeper) is ssm
    assert ca_key.choose("kms", ssm, keeper) is keeper
    keeper.make()
    for same in (None, "kms", "kms:ECC_NIST_P256"):
        assert ca_key.choose(same, ssm, keeper) is keeper
    for other in ("ssm", "kms:RSA_3072"):
        with pytest.raises(SetupError, match="cannot change"):
            ca_key.choose(other, ssm, keeper)
