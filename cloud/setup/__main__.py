"""The commands behind cloud/setup.sh, and the one place that talks to the human."""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from cloud.fleet.acts import Office, allow
from cloud.rotation.devices import Devices
from cloud.rotation.lifecycle import Save
from cloud.rotation.registry import Registry
from cloud.setup import arguments, bundle, custody, files, keeper, session, stack
from cloud.setup.errors import SetupError
from cloud.setup.teardown import Teardown

if TYPE_CHECKING:
    import argparse

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C has ended


def main() -> int:
    """Run the command line; the exit status is 0 when all is done, 1 with a reason, 2 for a wrong command line."""
    options = arguments.parse()
    try:
        {"deploy": deploy, "device": device, "destroy": destroy}[options.command](options)
    except SetupError as error:
        print(f"setup: {error.problem}", file=sys.stderr)
        if error.remedy:
            print(f"  what to do: {error.remedy}", file=sys.stderr)
        return 1
    except (ClientError, BotoCoreError) as error:
        print(
            f"setup: AWS says: {error}\n  what to do: once that is solved, run the same command again", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED
    return 0


def deploy(options: argparse.Namespace) -> None:
    """Make the CAs, build, deploy, and say what comes next."""
    if missing := stack.tools_missing():
        raise SetupError(
            f"not there: {', '.join(missing)}", "run cloud/setup.sh, which makes them (make: apt-get install make)"
        )
    here = session.connect(options.region, options.local)
    state = _state(options)
    say(f"deploying {options.stack} to {here.place}")

    parameters = keeper.Parameters(here.session.client("ssm", config=here.config))
    names = keeper.Names(options.stack)
    in_kms = custody.in_kms(here, names, custody.spec_of(options.ca_key))
    kept = custody.choose(options.ca_key, custody.InSsm(parameters, names), in_kms)
    _, new = keeper.manufacturer_ca(parameters, options.stack, kept)
    say(f"manufacturer CA: {'made' if new else 'there already'}; its key is {kept.place} and nowhere else")
    keys = keeper.VendorKeys(state)
    _, new = keeper.vendor_ca(parameters, options.stack, keys)
    where = str(keys.key) if keys.key.exists() else "on another machine"
    say(f"vendor CA: {'made' if new else 'there already'}; its key is {where}")

    files.private_directory(state)
    log = state / "deploy.log"
    log.write_bytes(b"")
    target = stack.lambda_target(here)
    say(f"building the Lambda for Python {target['LAMBDA_PYTHON_VERSION']} on {target['LAMBDA_PLATFORM']} …")
    build = stack.build(target, log)
    deployed = stack.Stack(here, options.stack)
    say(f"deploying the stack{'' if here.local else ' (two to three minutes the first time)'}; details in {log} …")
    deployed.deploy(build, _parameters(options, target) | kept.parameters(), log)
    say("deployed:")
    for name, value in sorted(deployed.outputs().items()):
        print(f"  {name:26} {value}")
    print(f"Next: cloud/setup.sh device SERIAL{_same(options)}")


def device(options: argparse.Namespace) -> None:
    """Allow the serial and write its bundle."""
    here = session.connect(options.region, options.local)
    parameters = keeper.Parameters(here.session.client("ssm", config=here.config))
    vendor = keeper.vendor_signer(parameters, options.stack, keeper.VendorKeys(_state(options)))
    manufacturer_ca = parameters.get(keeper.Names(options.stack).manufacturer_certificate)
    outputs = stack.Stack(here, options.stack).outputs()
    if not outputs or manufacturer_ca is None:
        raise SetupError(
            f"stack {options.stack} is not deployed in {here.place}", f"run: cloud/setup.sh deploy{_same(options)}"
        )

    directory = (options.out or Path(options.serial)).absolute()
    new = bundle.write(
        directory,
        bundle.Delivery(options.serial, here.endpoint(), outputs["TopicPrefix"], manufacturer_ca),
        vendor,
        timedelta(seconds=options.vendor_lifetime),
        force=options.force,
    )
    # Last, so that a serial is allowed only once there is a device to use it.
    allowed = allow(_office(here, outputs), options.serial)
    say(f"{options.serial} {'is now' if isinstance(allowed, Save) else 'was already'} allowed")
    say(f"its bundle is {'written to' if new else 'kept as it was in'} {directory}")
    print("Next: put the bundle on the device as /etc/iot-agent (bootstrap/key.pem is its secret), or try it here:")
    print(f"  build/env/agent/bin/iot-agent --config {directory}/agent.yaml")


def destroy(options: argparse.Namespace) -> None:
    """Ask, remove everything, say what is left."""
    here = session.connect(options.region, options.local)
    what = f"stack {options.stack} with its table of devices, their certificates and its CAs"
    question = f"Remove {what} from {here.place}?"
    if not options.yes and not _confirmed(question):
        raise SetupError("nothing was removed")
    work = Teardown(here, stack.Stack(here, options.stack), say)
    work.run()
    if work.problems:
        left = "\n".join(f"  {problem}" for problem in work.problems)
        raise SetupError(
            f"some things are left:\n{left}", "remove what stands in the way, then run the same command again"
        )
    say(f"{options.stack} is gone from {here.place}")

    keys = keeper.VendorKeys(_state(options))
    if not keys.key.exists():
        return
    question = f"Delete the vendor CA's key {keys.key} too? What it has signed can then never be renewed."
    if options.delete_vendor_key or (not options.yes and _confirmed(question)):
        keys.certificate.unlink(missing_ok=True)
        keys.key.unlink()
        say("the vendor CA's key is deleted")
    else:
        say(f"the vendor CA's key is kept for the next deploy: {keys.key}")


def say(line: str) -> None:
    """Report progress."""
    print(f"setup: {line}", flush=True)


def _office(here: session.Cloud, outputs: dict[str, str]) -> Office:
    resource = here.session.resource("dynamodb", config=here.config)
    records = Devices(resource.Table(outputs["TableName"]), resource.Table(outputs["HistoryTableName"]))
    iot = here.session.client("iot", config=here.config)
    data = here.session.client("iot-data", config=here.config)
    by = here.session.client("sts", config=here.config).get_caller_identity()["Arn"]
    return Office(records, Registry(iot, data), lambda: time.time_ns() // 1_000_000, by)


def _parameters(options: argparse.Namespace, target: dict[str, str]) -> dict[str, str]:
    """Return the stack's parameters; one left out keeps its deployed value, or at first the template's default."""
    names = keeper.Names(options.stack)
    given = {
        "VendorCaCertificate": names.vendor_certificate,
        "ManufacturerCaCertificate": names.manufacturer_certificate,
        "LambdaRuntime": f"python{target['LAMBDA_PYTHON_VERSION']}",
        "LambdaArchitecture": "arm64" if target["LAMBDA_PLATFORM"].startswith("aarch64") else "x86_64",
        "CertificateLifetimeSeconds": options.lifetime,
        "TopicPrefix": options.topic_prefix,
        "ApplicationPolicyName": options.application_policy,
        "AlarmEmail": options.alarm_email,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _state(options: argparse.Namespace) -> Path:
    """Return where the vendor CA's key is kept; a local cloud's goes with the local cloud's directory."""
    if options.state:
        chosen = Path(options.state)
    elif options.local:
        chosen = Path(options.local) / "setup" / options.stack
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
        chosen = base / "iot-agent-cloud" / options.stack
    return chosen.absolute()


def _same(options: argparse.Namespace) -> str:
    """Return the options that the next command needs too, to mean the same stack."""
    given = {"--stack": options.stack if options.stack != "iot-agent" else None}
    given |= {"--region": options.region, "--local": options.local, "--state": options.state}
    return "".join(f" {name} {value}" for name, value in given.items() if value)


def _confirmed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


if __name__ == "__main__":
    sys.exit(main())
