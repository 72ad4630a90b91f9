"""A worker's TLS session in a process of its own: `{"state", "token", "label", "port", "ca"}` on stdin.

Prints what came of it, and which libraries this process had.
"""

import json
import sys
from pathlib import Path

from iot_agent import process
from iot_agent.errors import AgentError
from iot_agent.identities import IdentityDirectories
from iot_agent.keys.pin import PinSources
from iot_agent.mqtt import Endpoint, MqttCloud
from iot_agent.settings import Token
from tests.keys.bench import ring


def main() -> None:
    process.keep_private()
    process.limit_memory()
    asked = json.loads(sys.stdin.readline())
    state = Path(asked["state"])
    token = None if asked["token"] is None else Token(**asked["token"])
    endpoint = Endpoint("localhost", asked["port"], Path(asked["ca"]), "SN-0001")
    certificate = IdentityDirectories(state).certificate(asked["label"])
    credentials = ring(state, token).credentials(asked["label"], certificate)
    told = {"error": "", "message": ""}
    try:
        with MqttCloud(endpoint, PinSources(state)).session(credentials):
            pass
    except AgentError as error:
        told = {"error": error.code, "message": str(error)}
    told["libraries"] = " ".join(sorted({"awscrt", "pkcs11"} & sys.modules.keys()))
    print(json.dumps(told))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
