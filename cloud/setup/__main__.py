"""The commands of cloud/setup.sh, and all that they print."""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import json
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from cloud.common import aws_session
from cloud.common.errors import SetupError, reported
from cloud.common.operator_input import confirmed, listed_serials
from cloud.common.progress import shown
from cloud.setup import arguments, authorities, ca_key, kept_tables, permissions, preflight, stack, state_directory
from cloud.setup.factory import Factory, Made, open_for
from cloud.setup.ssm_parameters import Names, Parameters
from cloud.setup.teardown import Teardown

if TYPE_CHECKING:
    import argparse

    from cloud.common.serial_list import Row


def main(words: list[str] | None = None) -> int:
    """Run the command line. The exit status is 0 for success, 1 for a problem, 2 for a wrong command line."""
    options = arguments.parse(words)

    def run() -> int:
        commands = {"deploy": deploy, "device": device, "destroy": destroy, "permissions": show_permissions}
        commands[options.command](options)
        return 0

    return reported("setup", run)


def deploy(options: argparse.Namespace) -> None:
    """Create the CAs, build, deploy, and print the next command."""
    preflight.check_lifetime(options.lifetime, local=options.local is not None)
    here = aws_session.connect(options.region, options.local, options.profile)
    _preflight(here, options)
    deployed = stack.Stack(here, options.stack)
    preflight.check_topic_prefix(here, deployed, options.topic_prefix)
    remark = preflight.check_topic_is_free(here, deployed, options.topic_prefix)
    if remark:
        say(remark)
    tables = kept_tables.find(here, deployed)
    state = state_directory.path_for(here, options.stack, options.state, options.local)
    state_directory.check(state, here, options.stack)
    if options.dry_run:
        say(f"nothing is missing; would deploy {options.stack} to {here.place}, with the vendor CA's key in {state}")
        if tables:
            say(f"would adopt the tables {', '.join(tables.values())}, which an earlier stack has left")
        _show_changes(here, deployed, options)
        return
    say(f"deploying {options.stack} to {here.place}")

    parameters = Parameters(here.session.client("ssm", config=here.config))
    names = Names(options.stack)
    in_kms = ca_key.in_kms(here, names, ca_key.spec_of(options.ca_key))
    kept = ca_key.choose(options.ca_key, ca_key.InSsm(parameters, names), in_kms)
    _, new = authorities.manufacturer_ca(parameters, options.stack, kept)
    say(f"manufacturer CA: {'created' if new else 'exists'}; its key is only in {kept.place}")
    keys = _vendor_keys(here, options, parameters)
    _, new = authorities.vendor_ca(parameters, options.stack, keys)
    state_directory.claim(state, here, options.stack)
    where = f"in {keys.key}" if keys.key.exists() else "on another machine"
    say(f"vendor CA: {'created' if new else 'exists'}; its key is {where}")

    log = state / "deploy.log"
    log.write_bytes(b"")
    target = stack.lambda_target(here)
    say(f"building the Lambda for Python {target['LAMBDA_PYTHON_VERSION']} on {target['LAMBDA_PLATFORM']} …")
    build = stack.build(target, log)
    deployed.make_ready()
    tables = kept_tables.find(here, deployed)
    if tables:
        say(f"adopting the tables that an earlier stack has left: {', '.join(tables.values())}")
        kept_tables.adopt(here, deployed, tables)
    say(f"deploying the stack{'' if here.local else ' (two to three minutes the first time)'}; details in {log} …")
    deployed.deploy(build, _parameters(options, target) | kept.parameters(), dict(options.tag), log)
    say("deployed:")
    for name, value in sorted(deployed.outputs().items()):
        print(f"  {name:26} {value}")
    print(f"Next: cloud/setup.sh device SERIAL{_same(options)}")


def _show_changes(here: aws_session.Cloud, deployed: stack.Stack, options: argparse.Namespace) -> None:
    """Print the change set of a deploy; for a stack that is not there, what its first deploy makes."""
    if not deployed.is_made():
        say("the stack is not there; its first deploy makes, some of these only with their option:")
        changes = stack.all_resources()
    else:
        target = stack.lambda_target(here)
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory) / "sam.log"
            log.touch()
            build = stack.build(target, log)
            changes = deployed.preview(build, _parameters(options, target), dict(options.tag), log)
        say(f"the change set has {len(changes)} changes" if changes else "nothing in the stack would change")
    for change in changes:
        replaced = {"True": "  is REPLACED", "Conditional": "  may be REPLACED"}.get(change.replaced, "")
        print(f"  {change.action:8} {change.kind:34} {change.name}{replaced}")


def device(options: argparse.Namespace) -> None:
    """Prepare one device, or every device of a list."""
    listed = listed_serials(options.serials) if options.serials else None
    here = aws_session.connect(options.region, options.local, options.profile)
    _preflight(here, options)
    redo = f"cloud/setup.sh deploy{_same(options)}"
    keys = _vendor_keys(here, options, Parameters(here.session.client("ssm", config=here.config)))
    factory = open_for(here, options.stack, keys, redo)
    lifetime = timedelta(seconds=options.vendor_lifetime or arguments.VENDOR_LIFETIME_S)
    if listed is not None:
        kept = _many(factory, listed, options.out or Path("devices"), lifetime, force=options.force)
        if options.vendor_lifetime and kept:
            say("--vendor-lifetime has no effect on bundles that are kept; --force writes new certificates")
        return
    directory = (options.out or Path(options.serial)).absolute()
    made = factory.make(options.serial, directory, lifetime, force=options.force)
    say(f"{options.serial} {'is now' if made.allowed else 'was already'} on the allow-list")
    say(f"its bundle {'was written to' if made.bundle else 'already exists and is kept:'} {directory}")
    if options.vendor_lifetime and not made.bundle:
        say("--vendor-lifetime has no effect on a bundle that is kept; --force writes a new certificate")
    print("Next: copy the bundle to the device as /etc/iot-agent; bootstrap/key.pem is secret")


def _many(factory: Factory, listed: list[Row], parent: Path, lifetime: timedelta, *, force: bool) -> int:
    """Prepare every device, go on after a failure, and return how many bundles were kept."""
    parent = parent.absolute()
    say(f"preparing {len(listed)} devices in {parent}; if interrupted, run the same command again to continue")
    done: list[Made] = []
    failed: list[str] = []
    for row in shown(listed, "devices"):
        try:
            done.append(factory.make(row.serial, parent / row.serial, lifetime, force=force))
        except (SetupError, ClientError, BotoCoreError, OSError) as error:
            failed.append(f"  line {row.line}: {row.serial}: {error}")
    bundles, allowed = sum(made.bundle for made in done), sum(made.allowed for made in done)
    say(f"bundles: {bundles} written, {len(done) - bundles} already existed and are kept")
    say(f"allow-list: {allowed} added, {len(done) - allowed} already on it")
    if failed:
        raise SetupError(
            f"{len(failed)} devices are not ready:\n" + "\n".join(failed),
            "solve each problem and run the same command again",
        )
    return len(done) - bundles


def destroy(options: argparse.Namespace) -> None:
    """Ask, remove everything, and report what could not be removed."""
    here = aws_session.connect(options.region, options.local, options.profile)
    _preflight(here, options)
    parameters = Parameters(here.session.client("ssm", config=here.config))
    keys = _vendor_keys(here, options, parameters)
    authorities.check_vendor_key(parameters, options.stack, keys)
    work = Teardown(here, stack.Stack(here, options.stack), say)
    if work.finds_something():
        what = f"stack {options.stack} with its table of devices, their certificates and its CAs"
        if not options.yes and not confirmed(f"Remove {what} from {here.place}?"):
            raise SetupError("nothing was removed")
        work.run()
        if work.problems:
            left = "\n".join(f"  {problem}" for problem in work.problems)
            raise SetupError(
                f"some things could not be removed:\n{left}", "solve each problem and run the same command again"
            )
        say(f"{options.stack} is removed from {here.place}")
    else:
        say(f"{options.stack} was not there: nothing of it is in {here.place}")

    if not keys.key.exists():
        return
    question = f"Delete the vendor CA's key {keys.key} too? No vendor certificate can be signed with it any more."
    if options.delete_vendor_key or (not options.yes and confirmed(question)):
        keys.certificate.unlink(missing_ok=True)
        keys.key.unlink()
        say("the vendor CA's key is deleted")
    else:
        say(f"the vendor CA's key is kept for the next deploy: {keys.key}")


def show_permissions(options: argparse.Namespace) -> None:
    """Print the IAM policy of a role."""
    print(json.dumps(permissions.policy(options.role, options.stack), indent=2))


def say(line: str) -> None:
    """Print a line of progress."""
    print(f"setup: {line}", flush=True)


def _preflight(here: aws_session.Cloud, options: argparse.Namespace) -> None:
    remark = preflight.check(here, options.command, permissions=not options.skip_permission_check)
    if remark:
        say(remark)


def _parameters(options: argparse.Namespace, target: dict[str, str]) -> dict[str, str]:
    """Return the stack's parameters. One left out keeps its deployed value; on first deploy it has its default."""
    names = Names(options.stack)
    given = {
        "VendorCaCertificate": names.vendor_certificate,
        "ManufacturerCaCertificate": names.manufacturer_certificate,
        "LambdaRuntime": f"python{target['LAMBDA_PYTHON_VERSION']}",
        "LambdaArchitecture": "arm64" if target["LAMBDA_PLATFORM"].startswith("aarch64") else "x86_64",
        "CertificateLifetimeSeconds": options.lifetime,
        "TopicPrefix": options.topic_prefix,
        "ApplicationPolicyName": options.application_policy,
        "AlarmEmail": options.alarm_email,
        "SampleDevices": options.sample_devices,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _vendor_keys(
    here: aws_session.Cloud, options: argparse.Namespace, parameters: Parameters
) -> authorities.VendorKeys:
    """Return the vendor CA on this machine; first moved here, if an earlier version has kept it elsewhere."""
    directory = state_directory.path_for(here, options.stack, options.state, options.local)
    pem = parameters.get(Names(options.stack).vendor_certificate)
    remark = state_directory.take_over(directory, here, options.stack, pem)
    if remark:
        say(remark)
    state_directory.check(directory, here, options.stack)
    return authorities.VendorKeys(directory)


def _same(options: argparse.Namespace) -> str:
    """Return the options with which another command works on the same stack."""
    given = {"--stack": options.stack if options.stack != "iot-agent" else None}
    given |= {"--profile": options.profile, "--region": options.region}
    given |= {"--local": options.local, "--state": options.state}
    return "".join(f" {name} {value}" for name, value in given.items() if value)


if __name__ == "__main__":
    sys.exit(main())
