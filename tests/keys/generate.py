"""Makes a key in a process of its own: `{"state", "token", "label", "algorithm"}` on stdin."""

import json
import sys
from pathlib import Path

from iot_agent.core.settings import Token
from tests.keys.bench import ring

if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    token = None if asked["token"] is None else Token(**asked["token"])
    ring(Path(asked["state"]), token).generate(asked["label"], asked["algorithm"])
