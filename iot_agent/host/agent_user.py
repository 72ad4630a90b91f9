"""The agent's user, found by who owns its state directory: root gives itself up to see only what the agent can see."""

import os
import pwd
from pathlib import Path
from typing import Any


def become(state: Path) -> dict[str, Any]:
    """Give the arguments of `subprocess.Popen` that start a child as the agent's user; none if this is not root."""
    if os.getuid() != 0 or not state.exists() or state.stat().st_uid == 0:
        return {}
    owner = state.stat()
    try:
        user = pwd.getpwuid(owner.st_uid)
    except KeyError:  # no user of this machine: a disk from another one, or a container's
        return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid)}
