"""The command line of cloud/setup.sh: commands, options, and how each value is read."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from cloud.common.arguments import add_where, lifetime_s, matching, serial, stack
from cloud.common.version import version
from cloud.setup.ca_key import CHOICES
from cloud.setup.permissions import ROLES

# The pattern of TopicPrefix in template.yaml, so that a wrong value is refused before anything is created.
TOPIC_PREFIX = re.compile(r"(?=.{1,32}$)/?[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){0,3}")

TAG = re.compile(r"(?!aws:)[A-Za-z0-9_.:/+@-]{1,128}=[A-Za-z0-9_.:/+@=-]{0,256}", re.IGNORECASE)

VENDOR_LIFETIME_S = lifetime_s("30d")

SETUP_OVERVIEW = """\
Sets up the cloud side of iot-agent, in AWS or in a local cloud on this machine.

  cloud/setup.sh deploy                create or update the stack and its two CAs
  cloud/setup.sh device SN-0001        prepare one device: put it on the allow-list, write its bundle
  cloud/setup.sh device --from FILE    prepare every device of a list
  cloud/setup.sh destroy               remove everything that these commands created
  cloud/setup.sh permissions ROLE      print an IAM policy for who deploys, prepares devices, operates or only reads

Every command can be interrupted and run again; `cloud/setup.sh COMMAND --help` describes it."""

DEPLOY = """\
Creates what is missing and updates the rest:
  - the vendor CA, which signs the certificate a device is delivered with. Its key stays on this machine (--state).
  - the manufacturer CA, which signs the certificates that devices use. Its key is kept only in SSM, as a SecureString;
    with --ca-key kms it is created in KMS and never leaves KMS.
  - the stack, with `sam build` and `sam deploy`: the Lambda, its topic rules, the table of devices, policies, alarms.
Run it again at any time, for instance with another --lifetime. An option left out keeps its deployed value."""

DEVICE = """\
Puts SERIAL on the stack's allow-list and writes its bundle, the files that the device is delivered with:
  agent.yaml               the agent's configuration
  bootstrap/               the vendor certificate (with its CA) and its private key, mode 0600
  endpoint-ca.pem          the CA by which the device verifies its MQTT endpoint
  manufacturer-ca.pem      the CA whose certificates the device accepts as its own
A bundle that is complete and still valid is kept; --force writes a new key and a new certificate.

With --from FILE, prepares every serial of a list: one a line, or a CSV with a column serial. The whole list is checked
first, and nothing is done if a line of it is wrong. If interrupted, run the same command again to continue."""

DESTROY = """\
First makes the CAs INACTIVE, so that no device registers any more. Then removes the devices' certificates and things,
the stack, the CAs, the tables, the build artifacts, the key in KMS, which KMS deletes 7 days later, and the parameters
in SSM. It can be interrupted anywhere: the same command removes the rest.

After that no device can connect. A new deploy creates a new manufacturer CA, so every device then needs a new bundle.
Whether to delete the vendor CA's key on this machine is asked separately."""


PERMISSIONS = """\
Prints an IAM policy document: for deploy and destroy (deploy), for `device` (factory), for cloud/iot-fleet (operator),
for those of its commands that change nothing (reader). It asks nothing of AWS."""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the command and its options; like argparse, print help or an error and exit."""
    plain = argparse.RawDescriptionHelpFormatter
    name = Path(sys.argv[0]).name
    prog = name if name == "iot-agent-cloud" else "cloud/setup.sh"
    parser = argparse.ArgumentParser(prog=prog, description=SETUP_OVERVIEW, formatter_class=plain)
    parser.add_argument("--version", action="version", version=f"{prog} {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    deploy = commands.add_parser("deploy", help="create or update the stack", description=DEPLOY, formatter_class=plain)
    deploy.add_argument(
        "--lifetime",
        type=lifetime_s,
        metavar="TIME",
        help="lifetime of device certificates, at least 2h, except in a local cloud (default on first deploy: 90d)",
    )
    deploy.add_argument(
        "--ca-key",
        choices=CHOICES,
        metavar="WHERE",
        help="where the manufacturer CA's key is kept: ssm, kms (the same as kms:ECC_NIST_P256), kms:RSA_2048 or "
        "kms:RSA_3072; cannot be changed later (default on first deploy: ssm)",
    )
    deploy.add_argument(
        "--alarm-email", metavar="ADDRESS", help="where alarms are sent (default on first deploy: nowhere)"
    )
    deploy.add_argument(
        "--dry-run",
        action="store_true",
        help="check that nothing is missing, show the change set, and change nothing; for a change set of an existing "
        "stack, the Lambda's code is uploaded to SAM's bucket",
    )
    deploy.add_argument(
        "--tag",
        type=tag,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a tag for the stack and its resources, besides those that it has; may be given several times",
    )
    deploy.add_argument(
        "--topic-prefix",
        type=topic_prefix,
        metavar="PREFIX",
        help="first levels of all MQTT topics (default on first deploy: cert-rotation)",
    )
    deploy.add_argument(
        "--application-policy",
        metavar="NAME",
        help="your AWS IoT policy for the application on the device; attached to every device certificate",
    )

    deploy.add_argument(
        "--sample-devices",
        choices=("yes", "no"),
        help="whether devices of the aws-samples on-boarding sample connect here: their client id with the vendor "
        "certificate is SERIAL, that of this agent is SERIAL-agent (default on first deploy: no)",
    )

    device = commands.add_parser(
        "device", help="prepare one device, or every device of a list", description=DEVICE, formatter_class=plain
    )
    which = device.add_mutually_exclusive_group(required=True)
    which.add_argument("serial", type=serial, nargs="?", metavar="SERIAL", help="up to 64 letters, digits, : _ -")
    which.add_argument(
        "--from",
        dest="serials",
        metavar="FILE",
        help="a file with one serial a line, or a CSV with a column serial (- is standard input)",
    )
    device.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="directory of the bundle (default: ./SERIAL); with --from, the parent of all (default: ./devices)",
    )
    device.add_argument(
        "--vendor-lifetime",
        type=lifetime_s,
        metavar="TIME",
        help="lifetime of a new vendor certificate; within it the device must connect first (default: 30d)",
    )
    device.add_argument(
        "--force", action="store_true", help="write a new key and certificate even if the bundle is valid"
    )

    permissions = commands.add_parser("permissions", help="print an IAM policy for a role", description=PERMISSIONS)
    permissions.add_argument("role", choices=sorted(ROLES), help="who the policy is for")
    permissions.add_argument("--stack", type=stack, default="iot-agent", metavar="NAME", help="for which stack")

    destroy = commands.add_parser("destroy", help="remove everything", description=DESTROY, formatter_class=plain)
    destroy.add_argument("--yes", action="store_true", help="do not ask for confirmation; the vendor CA's key is kept")
    destroy.add_argument("--delete-vendor-key", action="store_true", help="delete the vendor CA's key without asking")

    for command in (deploy, device, destroy):
        where = add_where(command)
        where.add_argument(
            "--state",
            type=Path,
            metavar="DIR",
            help="directory of the vendor CA's key (default: ~/.local/state/iot-agent-cloud/ACCOUNT/REGION/STACK; with "
            "--local: in its directory)",
        )
        where.add_argument(
            "--skip-permission-check",
            action="store_true",
            help="do not ask IAM first whether you have the permissions that the command needs",
        )
    return parser.parse_args(words)


def topic_prefix(text: str) -> str:
    """Return a topic prefix; it may begin with a slash."""
    return matching(
        TOPIC_PREFIX, text, "one to four levels of letters, digits, '_' or '-', at most 32 characters in all"
    )


def tag(text: str) -> tuple[str, str]:
    """Return the key and the value of a tag, in the characters that AWS allows for both, without spaces."""
    key, _, value = matching(
        TAG,
        text,
        "KEY=VALUE of letters, digits and _.:/+@-, a key of at most 128 characters that does not begin with aws:",
    ).partition("=")
    return key, value
