"""The operator's commands, by their names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from cloud.common.errors import reported
from cloud.fleet import arguments, read_commands, write_commands

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "list": read_commands.list_devices,
    "show": read_commands.show,
    "forecast": read_commands.forecast,
    "allow": write_commands.allow,
    "rotate": write_commands.rotate,
    "readmit": write_commands.readmit,
    "revoke": write_commands.revoke,
    "remove": write_commands.remove,
}


def main(words: list[str] | None = None) -> int:
    """Run the command line; 0 when all is done, 1 with a reason."""
    options = arguments.parse(words)

    def run() -> int:
        try:
            return COMMANDS[options.command](options)
        except BrokenPipeError:  # `iot-fleet list | head`
            sys.stderr.close()
            return 0

    return reported("iot-fleet", run)


if __name__ == "__main__":
    sys.exit(main())
