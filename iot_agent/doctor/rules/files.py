"""Modes and owners: who may read a key, who may change what the agent believes. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from iot_agent.doctor.findings import Finding, error, fine

OTHERS, GROUP = 0o007, 0o070


class Kind(Enum):
    """What a file is."""

    STATE = "a directory or file of the agent's own, not meant for anybody else"
    KEY = "a private key in the state directory"
    DELIVERED_KEY = "the bootstrap key: root's or the agent's, readable by the agent's group at most"
    INPUT = "what the agent believes: its configuration, and the CAs that it trusts"


FORBIDDEN = {Kind.STATE: 0o077, Kind.KEY: 0o177, Kind.DELIVERED_KEY: 0o137, Kind.INPUT: 0o022}  # mode bits, never set
OURS = frozenset({Kind.STATE, Kind.KEY})  # must belong to the agent's user; the others may be root's


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
    """The agent's user, and the groups that may read what is shared: its own, and `identity.group` if that is set."""

    uid: int
    groups: frozenset[int]


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
            f"{file.path} has mode {file.mode:04o}: {_who(excess)} more than they may",
            f"chmod {file.mode & ~excess:04o} {file.path}"
            + ("; the key may have been read: rotate it (agentctl rotate)" if "KEY" in file.kind.name else ""),
        )


def _forbidden(file: File, agent: Agent) -> int:
    """Give the bits that may not be set: a group's only for a group that is meant."""
    return FORBIDDEN[file.kind] | (0 if file.gid in agent.groups or file.kind is Kind.INPUT else GROUP)


def _who(excess: int) -> str:
    if excess & OTHERS:
        return "everybody may do"
    return "its group may do" if excess & GROUP else "its owner may do"
