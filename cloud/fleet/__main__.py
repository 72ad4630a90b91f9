"""The operator's commands, by their names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from cloud.fleet import arguments, changes, views
from cloud.setup.errors import reported

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "list": views.list_devices,
    "show": views.show,
    "forecast": views.forecast,
    "allow": changes.allow,
    "rotate": changes.rotate,
    "readmit": changes.readmit,
    "revoke": changes.revoke,
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
