"""An application that uses the device's identity with the AWS IoT Device SDK, and connects again with each new one.

It publishes each line of standard input as devices/THING/telemetry, and prints each message on devices/THING/commands.
"""

import json
import select
import sys
import threading
from pathlib import Path
from typing import Any

from awscrt import mqtt5
from awsiot import mqtt5_client_builder

IDENTITY = Path(sys.argv[1] if len(sys.argv) > 1 else "/run/iot-agent/identity.json")
LOOK_EVERY = 1.0  # seconds
PATIENCE = 30.0  # seconds


def main() -> None:
    """Use one identity after another until standard input ends."""
    while True:
        identity = json.loads(IDENTITY.read_text())
        client = connect(identity)
        print(f"connected with {identity['certificate_id']}", flush=True)
        goes_on = serve(client, identity)
        client.stop()
        if not goes_on:
            return


def connect(identity: dict[str, Any]) -> mqtt5.Client:
    """Open a session; the application's client id is the thing name, the agent uses another.

    A client reads its certificate and key once, so each identity needs a new client.
    """
    connected = threading.Event()
    client = mqtt5_client_builder.mtls_from_path(
        endpoint=identity["endpoint"],
        port=identity["port"],
        cert_filepath=identity["certificate"],
        pri_key_filepath=identity["key"],
        ca_filepath=identity["endpoint_ca"],
        client_id=identity["thing"],
        on_lifecycle_connection_success=lambda _: connected.set(),
        on_publish_received=lambda data: print(data.publish_packet.payload.decode(), flush=True),
    )
    client.start()
    if not connected.wait(PATIENCE):
        raise TimeoutError(f"no session with {identity['endpoint']} within {PATIENCE:.0f} s")
    commands = mqtt5.Subscription(f"devices/{identity['thing']}/commands", qos=mqtt5.QoS.AT_LEAST_ONCE)
    client.subscribe(mqtt5.SubscribePacket([commands])).result(PATIENCE)
    return client


def serve(client: mqtt5.Client, identity: dict[str, Any]) -> bool:
    """Publish lines; give True when the identity has changed, False when there are no more lines."""
    while json.loads(IDENTITY.read_text())["certificate_id"] == identity["certificate_id"]:
        if not select.select([sys.stdin], [], [], LOOK_EVERY)[0]:
            continue
        line = sys.stdin.readline()
        if not line:
            return False
        topic = f"devices/{identity['thing']}/telemetry"
        packet = mqtt5.PublishPacket(topic=topic, payload=line.strip(), qos=mqtt5.QoS.AT_LEAST_ONCE)
        client.publish(packet).result(PATIENCE)
    return True


if __name__ == "__main__":
    main()
