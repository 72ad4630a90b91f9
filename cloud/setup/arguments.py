"""The command line: what can be asked for, and each value understood once, here."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cloud.common.arguments import add_where, lifetime_s, matching, serial
from cloud.setup.ca_key import CHOICES

# What template.yaml allows, told before anything is made.
TOPIC_PREFIX = re.compile(r"(?=.{1,32}$)/?[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){0,3}")

SETUP_OVERVIEW = """\
Sets up the cloud side of iot-agent, in AWS or on this machine.

  cloud/setup.sh deploy            create or update the stack and its two CAs
  cloud/setup.sh device SN-0001    prepare one device: allow its serial, make the files it is delivered with
  cloud/setup.sh destroy           remove everything again

Every command can be interrupted and run again; `COMMAND --help` says more."""

DEPLOY = """\
Creates what is missing and updates the rest:
  - the vendor CA, which signs the certificate a device is delivered with. Its key stays on this machine (--state).
  - the manufacturer CA, which signs the certificates a device uses. Its key is kept in SSM only, a
    SecureString; with --ca-key kms it is made in KMS and never leaves it.
  - the stack, with `sam build` and `sam deploy`: the Lambda, its rules, the table of devices, policies, alarms.
Run it again at any time, for instance with another --lifetime; options left out keep their deployed value."""

DEVICE = """\
Allows SERIAL in the stack's table and writes its bundle, what the device is delivered with:
  agent.yaml               the agent's configuration
  bootstrap/               the vendor certificate (with its CA) and its private key, mode 0600
  endpoint-ca.pem          whom the device trusts as its MQTT endpoint
  manufacturer-ca.pem      whose certificates it accepts as its own
A bundle that is complete and still valid is kept as it is; --force makes a new key and certificate.

With --from FILE, all serials of a list: one a line, or a CSV with a column `serial`. The whole list is judged first,
and nothing is done while a line of it is wrong. It may be interrupted, and goes on when it is run again."""

DESTROY = """\
Removes, in this order: the certificates of devices and their things, the stack with its table, the CAs, their
parameters in SSM and the key in KMS, which KMS deletes 7 days later. No device can connect any more; a new deploy makes
a new manufacturer CA, so that every device then needs a new bundle. The vendor CA's key on this machine is asked about
separately."""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the command and its options; prints help or what is wrong and exits as argparse does."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="cloud/setup.sh", description=SETUP_OVERVIEW, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    deploy = commands.add_parser("deploy", help="create or update the stack", description=DEPLOY, formatter_class=plain)
    deploy.add_argument(
        "--lifetime",
        type=lifetime_s,
        metavar="TIME",
        help="of a device certificate, as 90d or 12h; 2h or more, in a local cloud also 30m or 20s (at first: 90d)",
    )
    deploy.add_argument(
        "--ca-key",
        choices=CHOICES,
        metavar="WHERE",
        help="where the manufacturer CA's key is kept: ssm, or kms (the same as kms:ECC_NIST_P256), kms:RSA_2048, "
        "kms:RSA_3072; cannot be changed later (at first: ssm)",
    )
    deploy.add_argument("--alarm-email", metavar="ADDRESS", help="who is told of alarms (at first: nobody)")
    deploy.add_argument("--dry-run", action="store_true", help="only look whether all that is needed is there")
    deploy.add_argument(
        "--topic-prefix", type=topic_prefix, metavar="PREFIX", help="of all MQTT topics (at first: cert-rotation)"
    )
    deploy.add_argument(
        "--application-policy",
        metavar="NAME",
        help="an AWS IoT policy of yours, attached to every device certificate: what the application may do",
    )

    device = commands.add_parser("device", help="prepare one device", description=DEVICE, formatter_class=plain)
    which = device.add_mutually_exclusive_group(required=True)
    which.add_argument("serial", type=serial, nargs="?", metavar="SERIAL", help="up to 64 letters, digits, : _ -")
    which.add_argument("--from", dest="serials", metavar="FILE", help="a list of serials (- is standard input)")
    device.add_argument(
        "--out", type=Path, metavar="DIR", help="where the bundle goes (default: ./SERIAL; of a list: ./devices/SERIAL)"
    )
    device.add_argument(
        "--vendor-lifetime",
        type=lifetime_s,
        default=lifetime_s("30d"),
        metavar="TIME",
        help="of the vendor certificate: how long the device may wait before its first connection (default: 30d)",
    )
    device.add_argument("--force", action="store_true", help="replace the bundle's key and certificate")

    destroy = commands.add_parser("destroy", help="remove it all", description=DESTROY, formatter_class=plain)
    destroy.add_argument("--yes", action="store_true", help="do not ask; keeps the vendor CA's key")
    destroy.add_argument("--delete-vendor-key", action="store_true", help="delete the vendor CA's key without asking")

    for command in (deploy, device, destroy):
        where = add_where(command)
        where.add_argument(
            "--state",
            type=Path,
            metavar="DIR",
            help="where the vendor CA's key is kept (default: ~/.local/state/iot-agent-cloud/NAME; local: in DIR)",
        )
        where.add_argument(
            "--skip-permission-check", action="store_true", help="do not ask IAM beforehand whether you may do all this"
        )
    return parser.parse_args(words)


def topic_prefix(text: str) -> str:
    """Return a topic prefix; it may begin with a slash."""
    return matching(TOPIC_PREFIX, text, "at most four levels of letters, digits, '_' or '-', 32 in all")
