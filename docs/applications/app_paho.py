"""An application that uses the device's identity with paho-mqtt, and connects again with each new one.

It publishes each line of standard input as devices/THING/telemetry, and prints each message on devices/THING/commands.
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
    """Use one identity after another until standard input ends."""
    while True:
        identity = json.loads(IDENTITY.read_text())
        client = connect(identity)
        print(f"connected with {identity['certificate_id']}", flush=True)
        goes_on = serve(client, identity)
        client.disconnect()
        client.loop_stop()
        if not goes_on:
            return


def connect(identity: dict[str, Any]) -> mqtt.Client:
    """Open a session; the application's client id is the thing name, the agent uses another."""
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
    """Publish lines; give True when the identity has changed, False when there are no more lines."""
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
