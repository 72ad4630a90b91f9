"""A worker's TLS session in a process of its own: `{"state", "token", "label", "port", "ca"}` on stdin.

Prints what came of it, which libraries this process had, and the share of its limit of memory that was taken (percent).
"""

import json
import resource
import sys
from pathlib import Path

from iot_agent.core.errors import AgentError
from iot_agent.core.settings import Token
from iot_agent.host import hardening
from iot_agent.keys.pin import PinSources
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.worker.mqtt import Endpoint, MqttCloud
from tests.keys.bench import ring


def main() -> None:
    hardening.keep_private()
    hardening.limit_memory()
    asked = json.loads(sys.stdin.readline())
    state = Path(asked["state"])
    token = None if asked["token"] is None else Token(**asked["token"])
    endpoint = Endpoint("localhost", asked["port"], Path(asked["ca"]), "SN-0001")
    certificate = IdentityDirectories(state).certificate(asked["label"])
    credentials = ring(state, token).credentials(asked["label"], certificate)
    told = {"error": "", "message": "", "memory": ""}
    try:
        with MqttCloud(endpoint, PinSources(state)).session(credentials):
            told["memory"] = f"{100 * _memory() // resource.getrlimit(resource.RLIMIT_DATA)[0]}"
    except AgentError as error:
        told = {"error": error.code, "message": str(error)}
    told["libraries"] = " ".join(sorted({"awscrt", "pkcs11"} & sys.modules.keys()))
    print(json.dumps(told))  # noqa: T201 - its answer


def _memory() -> int:
    """Give what counts towards RLIMIT_DATA, in bytes (proc(5))."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
