"""Modes and owners: who can read a key, who can change what the agent relies on. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from iot_agent.doctor.findings import Finding, error, fine, warning

OTHERS, GROUP = 0o007, 0o070


class FileKind(Enum):
    """What a file is for; it decides which modes and owners are right."""

    STATE = "a file or directory that only the agent uses"
    KEY = "a private key in the state directory"
    PASSAGE = "a directory above the active identity, if identity.group is set: the group can pass through"
    SHARED = "the directory of the active identity, if identity.group is set"
    SHARED_KEY = "the private key in it"
    DELIVERED_KEY = "the bootstrap key: of root or the agent, readable by the agent's group at most"
    INPUT = "what the agent relies on: its configuration, and the CAs that it trusts"


FORBIDDEN = {  # mode bits that must not be set
    FileKind.STATE: 0o077,
    FileKind.KEY: 0o177,
    FileKind.PASSAGE: 0o067,
    FileKind.SHARED: 0o027,
    FileKind.SHARED_KEY: 0o137,
    FileKind.DELIVERED_KEY: 0o137,
    FileKind.INPUT: 0o022,
}
NEEDED = {FileKind.PASSAGE: 0o010, FileKind.SHARED: 0o050, FileKind.SHARED_KEY: 0o040}  # what identity.group needs
ALSO_OF_ROOT = (FileKind.DELIVERED_KEY, FileKind.INPUT)  # may belong to root; the others only to the agent's user


@dataclass(frozen=True)
class File:
    """What lstat(2) says; if it fails, `problem` says why."""

    path: str
    kind: FileKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Agent:
    """The agent's user and group, and the id of `identity.group`; None if it is not set or there is no such group."""

    uid: int
    gid: int
    shared: int | None = None


def judge(seen: list[File], agent: Agent) -> Iterator[Finding]:
    """Judge each file; if all are right, that is one finding."""
    wrong = [finding for file in seen for finding in _judge_one(file, agent)]
    yield from wrong or [fine("files", f"modes and owners of {len(seen)} files and directories are right")]


def _judge_one(file: File, agent: Agent) -> Iterator[Finding]:
    if file.problem is not None:
        yield error(
            "files.access",
            f"{file.path}: {file.problem}",
            "Put it back, or let the agent's user read it. If you are not root, run: sudo agentctl doctor",
        )
        return
    owners = {agent.uid, 0} if file.kind in ALSO_OF_ROOT else {agent.uid}
    if file.uid not in owners:
        yield error(
            "files.owner",
            f"{file.path} belongs to uid {file.uid}, the agent is uid {agent.uid}",
            f"Run: chown {agent.uid} {file.path}",
        )
    excess = file.mode & _forbidden(file, agent)
    if excess:
        yield error(
            "files.mode",
            f"{file.path} has mode {file.mode:04o}, which gives too many rights to {_whom(excess)}",
            f"Run: chmod {file.mode & ~excess:04o} {file.path}"
            + (". The key may have been read: replace it with agentctl rotate" if "KEY" in file.kind.name else ""),
        )


def judge_group(name: str, seen: list[File], agent: Agent) -> Finding:
    """Judge whether `identity.group` can read the active identity."""
    if agent.shared is None:
        return warning("files.group", f"identity.group: there is no group {name}", f"Run: groupadd --system {name}")
    wanting = [
        file.path
        for file in seen
        if file.kind in NEEDED and (file.gid != agent.shared or file.mode & NEEDED[file.kind] != NEEDED[file.kind])
    ]
    if not wanting:
        return fine("files.group", f"group {name} can read the active identity")
    return warning(
        "files.group",
        f"group {name} cannot use {', '.join(wanting)}",
        f"Restart the agent. If that does not help, put its user into group {name} (docs/applications.md).",
    )


def _forbidden(file: File, agent: Agent) -> int:
    """Give the bits that must not be set; those of a group also, unless it is the group that may have them."""
    allowed = agent.shared if file.kind in NEEDED else agent.gid
    return FORBIDDEN[file.kind] | (0 if file.gid == allowed or file.kind is FileKind.INPUT else GROUP)


def _whom(excess: int) -> str:
    if excess & OTHERS:
        return "everybody"
    return "its group" if excess & GROUP else "its owner"
