"""The demo: onboarding and renewals of a device against the local cloud, with the same programs that a user runs.

    demo.py          local cloud, cloud/setup.sh, the daemon; first rotation, two renewals, evidence; then stops all
    demo.py --keep   the same, but everything keeps running
    demo.py --stop   stop what --keep left running
    demo.py --keys softhsm | tpm    the device's keys stay on a token: SoftHSM, or a software TPM

Everything is under build/demo; build/demo/summary.json has the results. If something expected did not happen, the exit
status is 1, and the last line says what.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cloud.common import local_endpoint
from cloud.local.evidence import Evidence, gather
from cloud.local.handle import ROOT
from cloud.local.tokens import LABEL, PIN, LocalToken, SoftHsm, TpmToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud.common.local_endpoint import Description

HOME = ROOT / "build/demo"
CLOUD, DEVICE, PIDS = HOME / "cloud", HOME / "device", HOME / "pids"
T = TypeVar("T")
HEALTH = (0, 1, 2)  # exit statuses of agentctl: good, attention, critical
BIN = ROOT / "build/env/agent/bin"
SERIAL = "DEMO-0001"
LIFETIME = "5m"
RENEWALS = 2
TPM = HOME / "tpm"
TOKENS = {"softhsm": "SoftHSM", "tpm": "a software TPM (swtpm), used by the module for real ones (tpm2-pkcs11)"}
STEP_LIMIT_S = 300.0  # without anything new: a machine with other work may take ten times as long as an idle one
SETTLED_S = 60.0  # the next renewal is later than that: time enough to look at what is in force
ENTERED = {"introduced": "jitp", "issued": "rotated", "promoted": "acked"}
# A certificate is backdated by a tenth of its lifetime, so with SOON it is renewed after about eight seconds, and is
# then still valid for minutes: on a slow machine the demo is slow, but nothing expires. With LATE, which is set before
# the last renewal, nothing changes while the result is checked.
SOON, LATE = "{at: 12%, spread: 0.1%, minimum_interval: 3s}", "{at: 75%, spread: 0.1%, minimum_interval: 3s}"
SHORT_TIMES = f"""
# Short times, for the demo only.
renewal: {SOON}
retry: {{first: 1s, longest: 10s}}
paths: {{state: state, run: run}}
"""


class DemoError(Exception):
    """Something expected did not happen."""


class Narrator:
    """Prints what happens, with the seconds since the start; on a terminal, one line shows what is waited for."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._live = sys.stdout.isatty()
        self._waiting = ""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print something that has happened."""
        self._clear()
        print(f"[{self.seconds:5.1f} s] {text}", flush=True)

    def wait(self, text: str) -> None:
        """Show what is being waited for."""
        if text != self._waiting and self._live:
            self._clear()
            print(f"[{self.seconds:5.1f} s] … {text}", end="\r", flush=True)
            self._waiting = text

    def _clear(self) -> None:
        if self._waiting:
            print(" " * (len(self._waiting) + 14), end="\r")
            self._waiting = ""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="make demo", description="Shows onboarding and renewals of a device against a local cloud."
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument(
        "--keys",
        choices=("file", *TOKENS),
        default="file",
        help="where the device keeps its keys (default: %(default)s)",
    )
    parser.add_argument("--stop", action="store_true", help="stop what --keep left running")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets background jobs ignore SIGINT
    stop()
    if arguments.stop:
        print("the demo is stopped")
        return 0
    try:
        run(Narrator(), arguments.keys)
    except KeyboardInterrupt:
        print("\ninterrupted; stopping everything")
        stop()
        return 130
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        stop()
        return 1
    except BaseException:
        stop()
        raise
    if arguments.keep:
        print(invitation())
    else:
        stop()
    return 0


def run(narrator: Narrator, keys: str) -> None:
    """Run the demo. Raises `DemoError` if something expected does not happen."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    narrator.say("starting the local cloud (MiniStack, loopback only, IAM and IoT policies enforced)")
    start("cloud", [ROOT / "build/env/local/bin/python", "-m", "cloud.local", "up", "--dir", CLOUD])
    here = wait_for(lambda: local_endpoint.read(CLOUD), narrator, "the local cloud", watching="cloud")
    narrator.say(f"AWS API at {here.endpoint_url}, MQTT over mutual TLS at {here.mqtt_host}:{here.mqtt_port}")
    setup(narrator, "deploy", "--lifetime", LIFETIME)
    setup(narrator, "device", SERIAL, "--out", str(DEVICE))
    with (DEVICE / "agent.yaml").open("a") as configuration:
        configuration.write(SHORT_TIMES)
    token = make_token(narrator, keys)
    states, seconds_to_acked = live(narrator, token)
    evidence = gather(here, DEVICE, SERIAL, history(), None if token is None else acceptance_check(token))
    for line in evidence.lines:
        narrator.say(line)
    if token is not None:
        check_token(narrator, token)
    summary = {
        "keys": keys,
        "states": states,
        "rotations": status()["rotations"],
        "active_certificates": len(evidence.active),
        "vendor_certificate_refused": evidence.vendor_refused,
        "seconds_to_acked": round(seconds_to_acked, 2),
    }
    (HOME / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    check(evidence)
    narrator.say(f"everything is as expected; {HOME.relative_to(ROOT)}/summary.json: {json.dumps(summary)}")


def make_token(narrator: Narrator, kind: str) -> LocalToken | None:
    """Create the token for the device's keys, and configure it in agent.yaml."""
    if kind == "file":
        return None
    narrator.say(f"a token for the device's keys: {TOKENS[kind]}")
    token: LocalToken
    if kind == "tpm":
        start("tpm", [sys.executable, "-m", "cloud.local.tokens", TPM])
        wait_for((TPM / "ready").read_text, narrator, "the software TPM", watching="tpm")
        token = TpmToken(HOME / "token", TPM / "bus")
    else:
        token = SoftHsm(HOME / "token")
    with (DEVICE / "agent.yaml").open("a") as configuration:
        configuration.write(token.yaml())
    narrator.say(f"added to agent.yaml: {token.yaml().strip()}")
    return token


def check_token(narrator: Narrator, token: LocalToken) -> None:
    """Check with another program that the token holds the active key and no other, and that no key is in a file."""
    shown = token.tool("--list-objects", "--type", "privkey")
    for line in shown.splitlines():
        if "label:" in line or "Access:" in line:
            narrator.say(f"token: {' '.join(line.split())}")
    label = (DEVICE / "state/current").readlink().name
    if [line.split()[1] for line in shown.splitlines() if "label:" in line] != [label]:
        raise DemoError(f"the token should hold the key {label} and no other: {shown}")
    files = list((DEVICE / "state").rglob("key.pem"))
    if files:
        raise DemoError(f"there are key files: {files}")
    narrator.say(f"disk: no key file; {(DEVICE / 'state/current/key.uri').read_text().strip()}")


def acceptance_check(token: LocalToken) -> Callable[[Description, str], bool]:
    """Return a function that asks the broker whether it accepts the active identity, whose key is on the token."""

    def accepts(here: Description, client_id: str) -> bool:
        current = DEVICE / "state/current"
        broker: list[Path | str] = [
            here.mqtt_host,
            str(here.mqtt_port),
            here.mqtt_ca,
            current / "certificate.pem",
            client_id,
        ]
        key: list[Path | str] = [token.module, LABEL, current.readlink().name]
        command: list[Path | str] = [BIN / "python", Path(__file__).with_name("token_session.py"), *broker, *key]
        environment = {**os.environ, **token.environment, "PIN": PIN}
        return subprocess.run(command, env=environment, check=False, timeout=180).returncode == 0  # noqa: S603 - our own

    return accepts


def live(narrator: Narrator, token: LocalToken | None) -> tuple[list[str], float]:
    """Start the daemon and wait until it has renewed RENEWALS times; its states in order, seconds until acked."""
    narrator.say(f"the device starts: iot-agent --config {(DEVICE / 'agent.yaml').relative_to(ROOT)}")
    environment = {} if token is None else token.environment
    start("agent", [BIN / "iot-agent", "--config", DEVICE / "agent.yaml"], environment)
    started = progress = time.monotonic()
    states: list[str] = []
    told = 0
    soon = True
    narrator.say("unprovisioned connects with the vendor certificate, which AWS IoT registers just in time")
    seconds_to_acked = 0.0
    while True:
        shown = wait_for(status, narrator, "the daemon", watching="agent")
        events = history()
        for event in events[told:]:
            narrator.say(f"{ENTERED.get(event['event'], 'acked'):<13} {event['event']}: {event['detail'][:72]}")
        if len(events) > told:
            told, progress = len(events), time.monotonic()
        for state in observed(events):
            if state not in states:
                states.append(state)
        if "acked" in states and not seconds_to_acked:
            seconds_to_acked = time.monotonic() - started
            narrator.say(
                f"onboarded in {seconds_to_acked:.1f} s; from now on the device renews its certificate by itself"
            )
        remaining = max(0, shown["next_step"]["due"] - shown["time"])
        if shown["rotations"] >= RENEWALS and soon:
            renew_late(narrator)
            soon = False
        if shown["rotations"] > RENEWALS and settled(shown, remaining):
            return states, seconds_to_acked
        if time.monotonic() - progress > STEP_LIMIT_S:
            raise DemoError(f"no event for {STEP_LIMIT_S:.0f} s: {json.dumps(shown)}; see {DEVICE.parent}/agent.log")
        narrator.wait(f"{shown['state']}: {shown['reason']}" + (f" (in {remaining} s)" if remaining else ""))
        time.sleep(0.2)


def settled(shown: dict[str, Any], remaining: float) -> bool:
    """Say whether no rotation is in progress, and none will be soon."""
    return shown["state"] == "acked" and shown["next_step"]["kind"] == "wait" and remaining > SETTLED_S


def renew_late(narrator: Narrator) -> None:
    """Have the device renew its next certificate late, as an operator does: edit agent.yaml, then reload."""
    configuration = DEVICE / "agent.yaml"
    configuration.write_text(configuration.read_text().replace(SOON, LATE))
    os.kill(int((PIDS / "agent").read_text()), signal.SIGHUP)
    narrator.say(
        "agent.yaml changed and reloaded (SIGHUP): after the next renewal, the device renews every few minutes"
    )


def observed(events: list[dict[str, Any]]) -> list[str]:
    """Return the states that the device has been in, from its history."""
    return ["unprovisioned", *(ENTERED[event["event"]] for event in events if event["event"] in ENTERED)]


def check(evidence: Evidence) -> None:
    """Raise `DemoError` unless the evidence is as expected."""
    faults = evidence.faults()
    if faults:
        raise DemoError("; ".join(faults))


def setup(narrator: Narrator, *arguments: str) -> None:
    """Run cloud/setup.sh as a user does, and print its output indented."""
    narrator.say(f"cloud/setup.sh {' '.join(arguments)} --local {CLOUD.relative_to(ROOT)}")
    command = [str(ROOT / "cloud/setup.sh"), *arguments, "--local", str(CLOUD)]
    with subprocess.Popen(  # noqa: S603 - our own script
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            print(f"          | {line}", end="", flush=True)
    if process.returncode:
        raise DemoError(f"cloud/setup.sh {arguments[0]} exited with status {process.returncode}; its output is above")


def agentctl(*arguments: str) -> str:
    """Run agentctl against the demo's device. Raises `OSError` if the daemon does not answer.

    The exit status also tells the device's health, and a device that is not well answers too.
    """
    command = [str(BIN / "agentctl"), "--run", str(DEVICE / "run"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)  # noqa: S603 - our own
    if done.returncode not in HEALTH:
        raise OSError(done.stderr.strip() or f"agentctl {arguments[0]} exited with status {done.returncode}")
    return done.stdout


def status() -> dict[str, Any]:
    """Return the daemon's status."""
    shown: dict[str, Any] = json.loads(agentctl("status", "--json"))
    return shown


def history() -> list[dict[str, Any]]:
    """Return the daemon's history."""
    events: list[dict[str, Any]] = json.loads(agentctl("history", "--json"))
    return events


def wait_for(look: Callable[[], T], narrator: Narrator, what: str, watching: str) -> T:
    """Call `look` until it succeeds, as long as the process `watching` runs."""
    limit = time.monotonic() + STEP_LIMIT_S
    while True:
        try:
            return look()
        except OSError as error:
            if not alive(watching):
                log = (HOME / f"{watching}.log").read_text(errors="replace")[-2000:]
                raise DemoError(f"{what} ended: {log}") from error
            if time.monotonic() > limit:
                raise DemoError(f"{what} did not start within {STEP_LIMIT_S:.0f} s: {error}") from error
            narrator.wait(f"waiting for {what}")
            time.sleep(0.1)


# ---- background processes --------------------------------------------------------------------------------------------


def start(name: str, command: list[Path | str], environment: dict[str, str] | None = None) -> None:
    """Start a process in a session of its own; `stop` finds its pid in a file, also in a later run."""
    with (HOME / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    PIDS.mkdir(exist_ok=True)
    (PIDS / name).write_text(str(process.pid))


def alive(name: str) -> bool:
    """Say whether the process started under this name still runs, and is that process."""
    try:
        pid = int((PIDS / name).read_text())
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        return not command_line or str(HOME).encode() in command_line  # during its exec a process has no command line
    except (OSError, ValueError):
        return False


def stop() -> None:
    """Stop every process of this or an earlier demo: the device first, then its TPM, then the cloud."""
    for name in ("agent", "tpm", "cloud"):
        if not alive(name):
            continue
        pid = int((PIDS / name).read_text())
        os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + 15
        while alive(name) and time.monotonic() < limit:
            time.sleep(0.05)
        if alive(name):
            os.killpg(pid, signal.SIGKILL)


def invitation() -> str:
    """Return what to try now, and how to stop the demo."""
    run = f"build/env/agent/bin/agentctl --run {(DEVICE / 'run').relative_to(ROOT)}"
    return f"""
Everything keeps running. Try:
  {run} status --watch
  {run} rotate --wait 30
  {run} history
  {run} doctor
  cloud/iot-fleet show {SERIAL} --local {CLOUD.relative_to(ROOT)}
  cloud/iot-fleet list --local {CLOUD.relative_to(ROOT)}
  tail -f {HOME.relative_to(ROOT)}/agent.log
Stop everything with:
  make demo-stop"""


if __name__ == "__main__":
    sys.exit(main())
