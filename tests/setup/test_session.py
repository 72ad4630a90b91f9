"""Which account a command talks to: a profile that is named wins over keys in the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cloud.common import aws_session
from cloud.common.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one profile, and the keys of another account in the environment; nothing can be reached."""
    (tmp_path / "config").write_text("[profile staging]\nregion = eu-central-1\n")
    (tmp_path / "credentials").write_text("[staging]\naws_access_key_id = STAGING\naws_secret_access_key = x\n")
    monkeypatch.setattr(os, "environ", dict(os.environ))  # connect changes it
    os.environ.update(AWS_CONFIG_FILE=str(tmp_path / "config"))
    os.environ.update(AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials"))
    os.environ.update(dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "PRODUCTION"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        os.environ.pop(name, None)


@pytest.mark.usefixtures("profiles")
def test_a_named_profile_wins_also_for_sam_which_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sts:
        """Says who is asking."""

        def get_caller_identity(self) -> dict[str, str]:
            return {"Account": "111111111111"}

    monkeypatch.setattr("boto3.Session.client", lambda *_, **__: Sts())
    here = aws_session.connect(None, None, "staging")
    credentials = here.session.get_credentials()
    assert credentials is not None
    assert (credentials.access_key, here.region) == ("STAGING", "eu-central-1")
    assert os.environ["AWS_PROFILE"] == "staging"
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} & set(os.environ)


@pytest.mark.usefixtures("profiles")
def test_a_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(SetupError, match="no-such-profile"):
        aws_session.connect("eu-west-1", None, "no-such-profile")


def test_a_local_cloud_has_no_profiles(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="--profile is of AWS"):
        aws_session.connect(None, tmp_path, "staging")
