"""What the cloud's tests share: a bench, a whole cloud on moto with the Lambda's own entry in front."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cloud.lambda_bench import Bench, a_bench

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request of a test may reach an account, a profile or an endpoint of whoever runs it."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a local time that is not UTC: there it is the next day already."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "XXX-13")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def bench(aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:  # noqa: ARG001 - needed, not used
    """Return a cloud with the allow-listed serial SN-1."""
    with a_bench(monkeypatch) as made:
        yield made


@pytest.fixture
def aws(aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:  # noqa: ARG001 - needed, not used
    """Give the means to set up cloud after cloud, in an environment that reaches no real account."""
    return monkeypatch
