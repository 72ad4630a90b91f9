"""`agentctl`: look at the agent and ask it for a rotation. Imports nothing heavy: it must answer at once.

Exit status (sysexits.h): 0 fine, 64 wrong arguments, 69 the daemon is not running, 74 its answer makes no sense, 75 it
cannot do that now (or a rotation waited for has not come about), 77 not allowed. `doctor` has its own: 0 fine, 1 a
warning, 2 an error.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from iot_agent import __version__, control, render
from iot_agent.cli import Parser

RUN_DIRECTORY, STATE_DIRECTORY = "/run/iot-agent", "/var/lib/iot-agent"
CONFIG = "/etc/iot-agent/agent.yaml"
CLEAR_SCREEN = "\x1b[H\x1b[2J"
EXIT_CODES = {"not-permitted": os.EX_NOPERM, "busy": os.EX_TEMPFAIL}


def main() -> int:
    """Run one command."""
    arguments = _arguments()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return os.EX_OK
    except BrokenPipeError:
        return os.EX_OK  # the reader of our output has had enough
    except PermissionError:
        return _complain(os.EX_NOPERM, f"no permission to talk to the agent at {_socket(arguments)}; try with sudo")
    except (FileNotFoundError, ConnectionRefusedError):
        return _complain(os.EX_UNAVAILABLE, "the daemon is not running; start it with: systemctl start iot-agent")
    except (OSError, ValueError) as error:
        return _complain(os.EX_IOERR, f"the daemon at {_socket(arguments)} did not answer sensibly: {error}")


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="agentctl", description="Look at the IoT agent of this device, and ask it for a rotation.")
    parser.add_argument("--version", action="version", version=f"agentctl {__version__}")
    parser.add_argument(
        "--run", dest="run_directory", type=Path, default=os.environ.get("IOT_AGENT_RUN", RUN_DIRECTORY), metavar="DIR",
        help="the agent's paths.run (default: $IOT_AGENT_RUN or %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--state", type=Path, default=os.environ.get("IOT_AGENT_STATE", STATE_DIRECTORY), metavar="DIR",
        help="the agent's paths.state, read when the daemon is down (default: $IOT_AGENT_STATE or %(default)s)",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    shown = commands.add_parser("status", help="state, identity, what comes next and when, last error and its remedy")
    shown.add_argument("--json", action="store_true", help="for programs; the schema is in docs/status.md")
    shown.add_argument("--watch", action="store_true", help="keep showing it, until Ctrl-C")
    shown.set_defaults(run=_status)

    rotate = commands.add_parser("rotate", help="rotate the certificate now, or join the rotation under way")
    rotate.add_argument("--wait", type=float, metavar="SECONDS", help="wait until it is done; 75 if it is not by then")
    rotate.set_defaults(run=_rotate)

    history = commands.add_parser("history", help="what has happened to this device's certificates")
    history.add_argument("--json", action="store_true", help="for programs: a list of {at, event, detail}")
    history.set_defaults(run=_history)

    doctor = commands.add_parser("doctor", help="what is wrong with this device, and what to do; 1 warning, 2 error")
    doctor.add_argument("--config", type=Path, default=CONFIG, help="configuration file (default: %(default)s)")
    doctor.add_argument("--json", action="store_true", help="for programs; the schema is in docs/doctor.md")
    doctor.set_defaults(run=_doctor)
    return parser.parse_args()


def _status(arguments: argparse.Namespace) -> int:
    while True:
        shown, code = _report(arguments)
        if shown is None:
            return code
        text = json.dumps(shown) if arguments.json else render.status(shown)
        if arguments.watch and not arguments.json and sys.stdout.isatty():
            text = CLEAR_SCREEN + text
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        if not arguments.watch:
            return code
        time.sleep(1)


def _report(arguments: argparse.Namespace) -> tuple[dict[str, Any] | None, int]:
    """Ask the daemon; if it is down, say what the disk says."""
    try:
        return control.ask(_socket(arguments), "status")["status"], os.EX_OK
    except (FileNotFoundError, ConnectionRefusedError):
        from iot_agent import offline  # noqa: PLC0415 - the record's rules take longer to load than all the rest

        shown = offline.report(arguments.state)
        if shown is None:
            return None, _complain(
                os.EX_UNAVAILABLE,
                f"the daemon is not running, and {arguments.state} holds no record: it has not run yet, or its paths "
                "are elsewhere (--run, --state). Start it with: systemctl start iot-agent",
            )
        return shown, os.EX_UNAVAILABLE


def _rotate(arguments: argparse.Namespace) -> int:
    answer = control.ask(_socket(arguments), "rotate")
    if not answer["ok"]:
        return _complain(EXIT_CODES.get(answer["error"], os.EX_IOERR), answer["message"])
    sys.stdout.write(f"{answer['message']}\n")
    if arguments.wait is None:
        sys.stdout.write("follow it with: agentctl status --watch\n")
        return os.EX_OK
    deadline = time.monotonic() + arguments.wait
    while time.monotonic() < deadline:
        shown = control.ask(_socket(arguments), "status")["status"]
        if shown["rotations"] > answer["rotations"]:
            sys.stdout.write(f"rotated: {shown['identity']['certificate_id']}\n")
            return os.EX_OK
        time.sleep(0.2)
    error = shown["last_error"]
    why = f"; last error: {error['message']}. {error['remedy']}" if error else ""
    return _complain(os.EX_TEMPFAIL, f"not rotated within {arguments.wait:.0f} s: {shown['reason']}{why}")


def _history(arguments: argparse.Namespace) -> int:
    events = control.ask(_socket(arguments), "history")["history"]
    sys.stdout.write(json.dumps(events) if arguments.json else render.history(events) or "nothing yet")
    sys.stdout.write("\n")
    return os.EX_OK


def _doctor(arguments: argparse.Namespace) -> int:
    from iot_agent.doctor import command  # noqa: PLC0415 - an examination takes longer to load than all the rest

    return command.run(arguments.config, as_json=arguments.json)


def _socket(arguments: argparse.Namespace) -> Path:
    return Path(arguments.run_directory) / "control.sock"


def _complain(code: int, message: str) -> int:
    sys.stderr.write(f"agentctl: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
