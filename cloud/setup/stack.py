"""The CloudFormation stack: built and deployed with SAM, described and deleted with boto3."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError, WaiterError

from cloud.common.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

    from cloud.common.aws_session import Cloud

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "cloud/template.yaml"
SOURCES = ROOT / "cloud/rotation"
CHECKOUT = (ROOT / "packaging/locks").is_dir()


def _program(name: str) -> Path:
    """Return the program of this checkout; of an installation, the one beside its Python, or the one on PATH."""
    if CHECKOUT:
        return ROOT / f"build/env/{name}/bin/{name}"
    beside = Path(sys.executable).with_name(name)
    return beside if beside.exists() else Path(shutil.which(name) or name)


SAM, UV = _program("sam"), _program("uv")
# As in the Makefile: uv downloads no interpreter, and trusts the CAs that this machine trusts.
UV_SETTINGS = {"UV": str(UV), "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "true"}
BUILDS = ROOT / "build/sam" if CHECKOUT else Path.home() / ".cache/iot-agent-cloud/builds"
SAM_STACK = "aws-sam-cli-managed-default"
WAIT_LIMIT_S = 1800
SAM_LOG_TAIL_LINES = 40
NEVER_MADE = (
    "REVIEW_IN_PROGRESS", "CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "IMPORT_ROLLBACK_COMPLETE",
    "IMPORT_ROLLBACK_FAILED",
)  # fmt: skip
"""Statuses of a stack that can only be deleted, with nothing of value in it (CloudFormation: "Stack status codes")."""


@dataclass(frozen=True)
class Change:
    """A change of one resource, as CloudFormation's change sets call it: Add, Modify, Remove, Import.

    `replaced` is True, False or Conditional: whether the resource is made again, with another identity.
    """

    action: str
    kind: str
    name: str
    replaced: str = "False"


def all_resources() -> list[Change]:
    """Return what the first deploy makes, at most: some resources depend on options."""
    resources = TEMPLATE.read_text().partition("\nResources:\n")[2]
    found = re.findall(r"^  (\w+):\n    Type: (AWS::\S+)$", resources, re.MULTILINE)
    return [Change("Add", kind, name) for name, kind in found]


class Stack:
    """One stack by name, in one cloud."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.name = name
        self._cloud = cloud
        self._client: CloudFormationClient = cloud.session.client("cloudformation", config=cloud.config)
        self._poll_s = 0.2 if cloud.local else 3.0

    def outputs(self) -> dict[str, str]:
        """Return the outputs of the deployed stack; none when there is no stack or it was never complete."""
        described = self._describe()
        return {one["OutputKey"]: one["OutputValue"] for one in described.get("Outputs", [])} if described else {}

    def exists(self) -> bool:
        """Whether there is a stack of that name, in any state."""
        return self._describe() is not None

    def is_made(self) -> bool:
        """Whether the stack has resources, or had them: not if it is only planned, or its first deploy has failed."""
        described = self._describe()
        return described is not None and described["StackStatus"] not in NEVER_MADE

    def resources(self, kind: str) -> set[str]:
        """Return the physical names of the stack's resources of a type; none when there is no stack."""
        try:
            found = self._client.describe_stack_resources(StackName=self.name)["StackResources"]
        except ClientError as error:
            if _says_it_does_not_exist(error):
                return set()
            raise
        return {
            one["PhysicalResourceId"] for one in found if one["ResourceType"] == kind and "PhysicalResourceId" in one
        }

    def owner(self, physical_name: str) -> str | None:
        """Return the name of the stack that a resource belongs to, None if CloudFormation knows of none."""
        try:
            found = self._client.describe_stack_resources(PhysicalResourceId=physical_name)["StackResources"]
        except ClientError as error:
            if _says_it_does_not_exist(error):
                return None
            raise
        return found[0]["StackName"] if found else None

    def deploy(self, build: Path, parameters: Mapping[str, str], tags: Mapping[str, str], log: Path) -> None:
        """Create or update the stack from a build; SAM's output goes to `log`. Raises SetupError.

        Tags are added to those that the stack has; CloudFormation gives them to its resources.
        """
        self.make_ready()
        self._sam_deploy(build, parameters, tags, log)

    def preview(self, build: Path, parameters: Mapping[str, str], tags: Mapping[str, str], log: Path) -> list[Change]:
        """Return what a deploy would change, by a change set that is then deleted. Raises SetupError.

        SAM uploads the build to its bucket for that.
        """
        before = self._change_sets()
        try:
            self._sam_deploy(build, parameters, tags, log, "--no-execute-changeset")
            return [change for name in self._change_sets() - before for change in self._changes(name)]
        finally:
            for name in self._change_sets() - before:
                self._client.delete_change_set(StackName=self.name, ChangeSetName=name)

    def _sam_deploy(
        self, build: Path, parameters: Mapping[str, str], tags: Mapping[str, str], log: Path, *options: str
    ) -> None:
        described = self._describe()
        present = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])} if described else {}
        every = {"iot-agent-stack": self.name, **present, **tags}
        words: list[str | Path] = [SAM, "deploy", "--template-file", build / "template.yaml", *options]
        words += ["--stack-name", self.name, "--region", self._cloud.region]
        words += ["--tags", *(f'{key}="{value}"' if " " in value else f"{key}={value}" for key, value in every.items())]
        words += ["--resolve-s3", "--s3-prefix", self.name, "--no-progressbar", "--capabilities", "CAPABILITY_IAM"]
        words += ["--no-confirm-changeset", "--no-fail-on-empty-changeset", "--parameter-overrides"]
        words += [f"{name}={value}" for name, value in parameters.items()]
        _run("sam deploy", words, log, {"SAM_CLI_POLL_DELAY": str(self._poll_s)})

    def _change_sets(self) -> set[str]:
        pages = self._client.get_paginator("list_change_sets").paginate(StackName=self.name)
        return {one["ChangeSetName"] for page in pages for one in page["Summaries"]}

    def _changes(self, change_set: str) -> list[Change]:
        pages = self._client.get_paginator("describe_change_set").paginate(
            StackName=self.name, ChangeSetName=change_set
        )
        found = [change["ResourceChange"] for page in pages for change in page["Changes"] if "ResourceChange" in change]
        return [
            Change(one["Action"], one["ResourceType"], one["LogicalResourceId"], one.get("Replacement", "False"))
            for one in found
        ]

    def delete(self) -> None:
        """Delete the stack, if there is one, and wait until it is deleted. Raises SetupError."""
        self._settle()
        if not self.exists():
            return
        self._client.delete_stack(StackName=self.name)
        waiter = self._client.get_waiter("stack_delete_complete")
        try:
            waiter.wait(
                StackName=self.name,
                WaiterConfig={"Delay": math.ceil(self._poll_s), "MaxAttempts": WAIT_LIMIT_S // math.ceil(self._poll_s)},
            )
        except WaiterError as error:
            failed = [
                f"{one['LogicalResourceId']}: {one.get('ResourceStatusReason', 'no reason given')}"
                for one in self._client.describe_stack_resources(StackName=self.name)["StackResources"]
                if one["ResourceStatus"] == "DELETE_FAILED"
            ]
            raise SetupError(
                f"stack {self.name} could not be deleted: {'; '.join(failed) or error}",
                "delete these by hand, then run the same command again",
            ) from error

    def artifact_bucket(self) -> str | None:
        """Return the bucket that SAM keeps for all its stacks (`--resolve-s3`), or None when there is none yet."""
        managed = Stack(self._cloud, SAM_STACK).outputs()
        return managed.get("SourceBucket")

    def make_ready(self) -> None:
        """Wait until the operation of an interrupted run ends; delete a stack that failed and cannot be updated."""
        if self._settle() in (*NEVER_MADE, "DELETE_FAILED"):
            self.delete()

    def _settle(self) -> str | None:
        """Wait until no operation on the stack is in progress; return its status, or None when there is no stack."""
        limit = time.monotonic() + WAIT_LIMIT_S
        while described := self._describe():
            status = str(described["StackStatus"])
            if not status.endswith("_IN_PROGRESS") or status == "REVIEW_IN_PROGRESS":
                return status
            if time.monotonic() > limit:
                raise SetupError(
                    f"stack {self.name} has been {status} for too long", "look at the stack in the AWS console"
                )
            time.sleep(self._poll_s)
        return None

    def _describe(self) -> StackTypeDef | None:
        try:
            described = self._client.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if _says_it_does_not_exist(error):
                return None
            raise
        return None if described["StackStatus"] == "DELETE_COMPLETE" else described


def lambda_target(cloud: Cloud) -> dict[str, str]:
    """Return what the Lambda's packages are built for: arm64 in AWS, this interpreter and machine in the local cloud.

    `cloud/rotation/Makefile` reads these; so do the stack's LambdaRuntime and LambdaArchitecture.
    """
    if not cloud.local:
        return {"LAMBDA_PYTHON_VERSION": "3.13", "LAMBDA_PLATFORM": "aarch64-manylinux_2_28"}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"LAMBDA_PYTHON_VERSION": version, "LAMBDA_PLATFORM": f"{platform.machine()}-manylinux_2_28"}


def build(target: Mapping[str, str], log: Path) -> Path:
    """Return the directory with the built template; built only if sources or target changed. Raises SetupError."""
    directory = BUILDS / _digest(target)
    if directory.exists():
        return directory
    BUILDS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILDS, prefix=".") as scratch:
        made = Path(scratch) / "build"
        _run("sam build", [SAM, "build", "--template", TEMPLATE, "--build-dir", made], log, {**target, **UV_SETTINGS})
        try:
            made.rename(directory)  # in one step: the build is complete or absent
        except OSError:
            if not directory.exists():  # else a concurrent run was first, with the same result
                raise
    return directory


def _digest(target: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(target.items())).encode())
    for path in _sources():
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    yield TEMPLATE
    yield from (
        path
        for path in sorted(SOURCES.rglob("*"))
        if path.is_file() and "__pycache__" not in path.relative_to(ROOT).parts
    )


def _run(what: str, words: list[str | Path], log: Path, environment: Mapping[str, str]) -> None:
    """Run a program with its output in `log`; on failure raise SetupError with the end of the log."""
    # SAM leaves temporary directories behind, so it gets a TMPDIR of its own, which is deleted. It is not in /tmp: when
    # Python looks for a system directory, it writes a file there, which stays if Ctrl-C interrupts it.
    with log.open("ab") as output, tempfile.TemporaryDirectory(dir=BUILDS, prefix=".") as temporary:
        done = subprocess.run(  # noqa: S603 - our own tools, no shell
            words,
            cwd=ROOT,
            env={**os.environ, "SAM_CLI_TELEMETRY": "0", "TMPDIR": temporary, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-SAM_LOG_TAIL_LINES:])
        raise SetupError(f"{what} failed; the end of {log}:\n{tail}", "remove the cause and run the same command again")


def tools_missing() -> list[str]:
    """Return which of the programs that `deploy` needs are missing."""
    own = [str(path.relative_to(ROOT) if CHECKOUT else path) for path in (SAM, UV) if not path.exists()]
    return own + [name for name in ("make",) if shutil.which(name) is None]


def _says_it_does_not_exist(error: ClientError) -> bool:
    return error.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(error)
