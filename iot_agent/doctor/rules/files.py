"""Modes and owners: who may read a key, who may change what the agent believes. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from iot_agent.doctor.findings import Finding, error, fine, warning

OTHERS, GROUP = 0o007, 0o070


class Kind(Enum):
    """What a file is."""

    STATE = "a directory or file of the agent's own, not meant for anybody else"
    KEY = "a private key in the state directory"
    WAY = "a directory on the way to the identity in force, where identity.group is set: to pass through"
    SHARED = "the directory of the identity in force, where identity.group is set"
    SHARED_KEY = "the private key in it"
    DELIVERED_KEY = "the bootstrap key: root's or the agent's, readable by the agent's group at most"
    INPUT = "what the agent believes: its configuration, and the CAs that it trusts"


FORBIDDEN = {  # mode bits that may never be set
    Kind.STATE: 0o077,
    Kind.KEY: 0o177,
    Kind.WAY: 0o067,
    Kind.SHARED: 0o027,
    Kind.SHARED_KEY: 0o137,
    Kind.DELIVERED_KEY: 0o137,
    Kind.INPUT: 0o022,
}
NEEDED = {Kind.WAY: 0o010, Kind.SHARED: 0o050, Kind.SHARED_KEY: 0o040}  # what identity.group needs
OURS = frozenset(Kind) - {Kind.DELIVERED_KEY, Kind.INPUT}  # must belong to the agent's user; the others may be root's


@dataclass(frozen=True)
class File:
    """What lstat(2) says; `problem` instead, where it says nothing."""

    path: str
    kind: Kind
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
    """Name every file that is not as it should be; one finding if all are."""
    wrong = [finding for file in seen for finding in _judge_one(file, agent)]
    yield from wrong or [fine("files", f"modes and owners of {len(seen)} files and directories are right")]


def _judge_one(file: File, agent: Agent) -> Iterator[Finding]:
    if file.problem is not None:
        yield error(
            "files.access",
            f"{file.path}: {file.problem}",
            "Put it back or allow the agent's user to reach it; without root, run: sudo agentctl doctor",
        )
        return
    owners = {agent.uid} if file.kind in OURS else {agent.uid, 0}
    if file.uid not in owners:
        yield error(
            "files.owner",
            f"{file.path} belongs to uid {file.uid}, the agent is uid {agent.uid}",
            f"chown {agent.uid} {file.path}",
        )
    excess = file.mode & _forbidden(file, agent)
    if excess:
        yield error(
            "files.mode",
            f"{file.path} has mode {file.mode:04o}: too open, to {_whom(excess)}",
            f"chmod {file.mode & ~excess:04o} {file.path}"
            + ("; the key may have been read: rotate it (agentctl rotate)" if "KEY" in file.kind.name else ""),
        )


def judge_group(name: str, seen: list[File], agent: Agent) -> Finding:
    """Judge whether `identity.group` can read the identity in force, which is for it."""
    if agent.shared is None:
        return warning("files.group", f"identity.group: there is no group {name}", f"groupadd --system {name}")
    wanting = [
        file.path
        for file in seen
        if file.kind in NEEDED and (file.gid != agent.shared or file.mode & NEEDED[file.kind] != NEEDED[file.kind])
    ]
    if not wanting:
        return fine("files.group", f"group {name} may read the identity in force")
    return warning(
        "files.group",
        f"group {name} cannot use {', '.join(wanting)}",
        f"Restart the agent. If that does not help, put its user into group {name} (docs/applications.md).",
    )


def _forbidden(file: File, agent: Agent) -> int:
    """Give the bits that may not be set: a group's only for a group that is meant."""
    meant = agent.shared if file.kind in NEEDED else agent.gid
    return FORBIDDEN[file.kind] | (0 if file.gid == meant or file.kind is Kind.INPUT else GROUP)


def _whom(excess: int) -> str:
    if excess & OTHERS:
        return "everybody"
    return "its group" if excess & GROUP else "its owner"
