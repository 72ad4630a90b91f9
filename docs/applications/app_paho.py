"""An application that uses the device's identity with paho-mqtt, and changes over to each new one.

It publishes each line of standard input as devices/THING/telemetry, and prints what comes as devices/THING/commands.
"""

import json
import select
import ssl
import sys
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

IDENTITY = Path(sys.argv[1] if len(sys.argv) > 1 else "/run/iot-agent/identity.json")
LOOK_EVERY = 1.0  # seconds


def main() -> None:
    """Serve one identity after another until standard input ends."""
    while True:
        identity = json.loads(IDENTITY.read_text())
        client = connect(identity)
        print(f"connected with {identity['certificate_id']}", flush=True)
        lasted = serve(client, identity)
        client.disconnect()
        client.loop_stop()
        if not lasted:
            return


def connect(identity: dict[str, Any]) -> mqtt.Client:
    """Open a session; the thing name is the application's client id, the agent has one of its own."""
    context = ssl.create_default_context(cafile=identity["endpoint_ca"])
    context.load_cert_chain(identity["certificate"], identity["key"])
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=identity["thing"], protocol=mqtt.MQTTv5)
    client.tls_set_context(context)
    client.on_connect = lambda *_: client.subscribe(f"devices/{identity['thing']}/commands", qos=1)
    client.on_message = lambda _client, _data, message: print(message.payload.decode(), flush=True)
    client.connect(identity["endpoint"], identity["port"], keepalive=60)
    client.loop_start()
    return client


def serve(client: mqtt.Client, identity: dict[str, Any]) -> bool:
    """Publish lines until there is another identity (True) or no more lines (False)."""
    while json.loads(IDENTITY.read_text())["certificate_id"] == identity["certificate_id"]:
        if not select.select([sys.stdin], [], [], LOOK_EVERY)[0]:
            continue
        line = sys.stdin.readline()
        if not line:
            return False
        client.publish(f"devices/{identity['thing']}/telemetry", line.strip(), qos=1).wait_for_publish()
    return True


if __name__ == "__main__":
    main()
