"""`python -m cloud.local up --dir DIR`: run the local cloud until Ctrl-C or SIGTERM."""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from cloud.local.handle import LocalCloud, LocalCloudError


def main() -> int:
    """Run the command line. The exit status is 1 if the cloud does not start or ends by itself."""
    parser = argparse.ArgumentParser(prog="python -m cloud.local", description="Runs a local cloud: an AWS emulator.")
    up = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "up", help="start the local cloud and run until Ctrl-C or SIGTERM"
    )
    up.add_argument("--dir", type=Path, required=True, help="directory for cloud.json, the log and all temporary files")
    up.add_argument("--port", type=int, default=0, help="port of the AWS API (default: any free port)")
    up.add_argument("--mqtt-port", type=int, default=0, help="port of the MQTT broker (default: any free port)")
    up.add_argument("--region", default="eu-west-1", help="AWS region of the local cloud (default: %(default)s)")
    up.add_argument(
        "--jitp-delay",
        type=float,
        default=0.2,
        metavar="S",
        help="seconds that just-in-time provisioning takes (default: %(default)s)",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets background jobs ignore SIGINT
    try:
        with LocalCloud(
            arguments.dir,
            port=arguments.port,
            mqtt_port=arguments.mqtt_port,
            region=arguments.region,
            jitp_delay_s=arguments.jitp_delay,
        ) as cloud:
            here = cloud.description
            print(f"the local cloud is ready: AWS API {here.endpoint_url}, MQTT {here.mqtt_host}:{here.mqtt_port}")
            print(f"Next: cloud/setup.sh deploy --local {arguments.dir}", flush=True)
            status = cloud.wait()
            print(f"the local cloud ended by itself with status {status}; see {cloud.log}", file=sys.stderr)
            return 1
    except LocalCloudError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
