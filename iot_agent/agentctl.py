"""`agentctl`: show the state of the agent, ask it for a rotation or withdraw one, and start the doctor.

Exit statuses: `EXIT_STATUS`, from sysexits.h; 1 and 2 are those of monitoring plugins.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from iot_agent import __version__
from iot_agent.host import control_socket
from iot_agent.host.argument_parser import Parser
from iot_agent.status import text
from iot_agent.storage import layout

# Two modules are imported only by the command that needs them: with both, agentctl takes 84 ms of processor time to
# load, without them 41 ms (Python 3.11), and monitoring calls `agentctl status` often.

RUN_DIRECTORY, STATE_DIRECTORY = "/run/iot-agent", "/var/lib/iot-agent"
CLEAR_SCREEN = "\x1b[H\x1b[2J"
REFUSALS = {
    "not-permitted": os.EX_NOPERM,
    "busy": os.EX_TEMPFAIL,
    "nothing-to-cancel": os.EX_TEMPFAIL,
    "not-configured": os.EX_CONFIG,
}
HEALTH = {"good": os.EX_OK, "attention": 1, "critical": 2}
EXIT_STATUS = {
    os.EX_OK: "nothing is wrong",
    1: "status: a step keeps failing, a reload was refused, or the clock is wrong; doctor: a warning",
    2: "status: the certificate has expired or soon will, or the record cannot be written; doctor: an error",
    os.EX_USAGE: "wrong arguments",
    os.EX_UNAVAILABLE: "the daemon is not running; status then shows the record on the disk",
    os.EX_IOERR: "the answer of the daemon cannot be used",
    os.EX_TEMPFAIL: "rotate: not possible now, or not finished within --wait; cancel: no rotation is under way",
    os.EX_NOPERM: "no permission",
    os.EX_CONFIG: "the daemon waits for its configuration",
}


def main() -> int:
    """Run one command."""
    arguments = arguments_parser().parse_args()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return os.EX_OK
    except BrokenPipeError:
        return os.EX_OK  # the reader of the output, like head(1), has ended
    except PermissionError:
        return _complain(os.EX_NOPERM, f"no permission to use {_socket(arguments)}; try with sudo")
    except (FileNotFoundError, ConnectionRefusedError):
        return _complain(os.EX_UNAVAILABLE, "the daemon is not running; start it with: systemctl start iot-agent")
    except (OSError, *control_socket.SENSELESS) as error:
        return _complain(os.EX_IOERR, f"the answer of the daemon at {_socket(arguments)} cannot be used: {error}")


def arguments_parser() -> argparse.ArgumentParser:
    """Give the parser of the command line."""
    parser = Parser(
        prog="agentctl",
        description="Show the state of the IoT agent of this device, and ask it for a rotation or withdraw one.",
        epilog="exit status:\n" + "".join(f"  {code:<3} {meaning}\n" for code, meaning in sorted(EXIT_STATUS.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"agentctl {__version__}")
    parser.add_argument(
        "--run", dest="run_directory", type=Path, default=os.environ.get("IOT_AGENT_RUN", RUN_DIRECTORY), metavar="DIR",
        help="the agent's paths.run (default: $IOT_AGENT_RUN or %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--state", type=Path, default=os.environ.get("IOT_AGENT_STATE", STATE_DIRECTORY), metavar="DIR",
        help="the agent's paths.state, read if the daemon is not running (default: $IOT_AGENT_STATE or %(default)s)",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    shown = commands.add_parser("status", help="show state, identity, next step, and the last error with its remedy")
    shown.add_argument("--json", action="store_true", help="print JSON for programs (docs/status.md)")
    shown.add_argument("--watch", action="store_true", help="show it again every second, until Ctrl-C")
    shown.set_defaults(run=_status)

    rotate = commands.add_parser(
        "rotate", help="rotate the certificate now; if a rotation is in progress, try its next step now"
    )
    rotate.add_argument(
        "--wait", type=float, metavar="SECONDS",
        help="wait until the rotation is finished; exit status 75 if that takes longer",
    )  # fmt: skip
    rotate.set_defaults(run=_rotate)

    cancel = commands.add_parser(
        "cancel", help="withdraw a rotation, for example one that nobody answers; the active identity stays"
    )
    cancel.set_defaults(run=_cancel)

    history = commands.add_parser("history", help="show what has happened to the certificates of this device")
    history.add_argument("--json", action="store_true", help="print JSON for programs: a list of {at, event, detail}")
    history.set_defaults(run=_history)

    doctor = commands.add_parser("doctor", help="check everything that a renewal needs, and say what to repair")
    doctor.add_argument(
        "--config", type=Path, metavar="FILE",
        help="configuration file (default: the running daemon's, else /etc/iot-agent/agent.yaml)",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="print JSON for programs (docs/doctor.md)")
    doctor.set_defaults(run=_doctor)
    return parser


def _status(arguments: argparse.Namespace) -> int:
    while True:
        shown, code = _report(arguments)
        if shown is None:
            return code
        said = json.dumps(shown) if arguments.json else text.status(shown)
        if arguments.watch and not arguments.json and sys.stdout.isatty():
            said = CLEAR_SCREEN + said
        sys.stdout.write(said + "\n")
        sys.stdout.flush()
        if not arguments.watch:
            return code
        time.sleep(1)


def _report(arguments: argparse.Namespace) -> tuple[dict[str, Any] | None, int]:
    """Ask the daemon; if it is not running, read the record on the disk. Give the report and the exit status."""
    try:
        shown: dict[str, Any] = _ask(arguments, "status")["status"]
    except (FileNotFoundError, ConnectionRefusedError):
        from iot_agent.status import from_disk  # noqa: PLC0415 - above

        found: dict[str, Any] | None = text.safe(from_disk.report(arguments.state))
        if found is None:
            return None, _complain(
                os.EX_UNAVAILABLE,
                f"the daemon is not running, and there is no record in {arguments.state}: it has not run yet, or has "
                "other paths (--run, --state). Start it with: systemctl start iot-agent",
            )
        return found, os.EX_UNAVAILABLE
    return shown, HEALTH[shown["health"]["level"]] if shown["daemon"] == "running" else os.EX_CONFIG


def _rotate(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, "rotate")
    if not answer["ok"]:
        return _refused(answer)
    sys.stdout.write(f"{answer['message']}\n")
    if arguments.wait is None:
        sys.stdout.write("follow it with: agentctl status --watch\n")
        return os.EX_OK
    deadline = time.monotonic() + arguments.wait
    while time.monotonic() < deadline:
        shown = _ask(arguments, "status")["status"]
        if shown["rotations"] > answer["rotations"]:
            sys.stdout.write(f"rotated: {shown['identity']['certificate_id']}\n")
            return os.EX_OK
        time.sleep(0.2)
    error = shown["last_error"]
    why = f"; last error: {error['message']}. {error['remedy']}" if error else ""
    return _complain(os.EX_TEMPFAIL, f"not rotated within {arguments.wait:.0f} s: {shown['reason']}{why}")


def _cancel(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, "cancel")
    if not answer["ok"]:
        return _refused(answer)
    sys.stdout.write(f"{answer['message']}\n")
    return os.EX_OK


def _refused(answer: dict[str, Any]) -> int:
    return _complain(REFUSALS.get(answer["error"], os.EX_IOERR), answer["message"])


def _history(arguments: argparse.Namespace) -> int:
    events = _ask(arguments, "history")["history"]
    sys.stdout.write(json.dumps(events) if arguments.json else text.history(events) or "no events yet")
    sys.stdout.write("\n")
    return os.EX_OK


def _doctor(arguments: argparse.Namespace) -> int:
    from iot_agent.doctor import command  # noqa: PLC0415 - above

    return command.run(arguments.config, Path(arguments.run_directory), as_json=arguments.json)


def _ask(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    answer: dict[str, Any] = text.safe(control_socket.ask(_socket(arguments), command))
    return answer


def _socket(arguments: argparse.Namespace) -> Path:
    return Path(arguments.run_directory) / layout.CONTROL_SOCKET


def _complain(code: int, message: str) -> int:
    sys.stderr.write(f"agentctl: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
