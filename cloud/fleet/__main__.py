"""The operator's commands: the one place that turns an error into a message and an exit status."""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from cloud.fleet import arguments, changes, views
from cloud.setup.errors import SetupError

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
INTERRUPTED: Final = 130


def main(words: list[str] | None = None) -> int:
    """Run the command line; 0 when all is done, 1 with a reason."""
    options = arguments.parse(words)
    try:
        return COMMANDS[options.command](options)
    except SetupError as error:
        print(f"iot-fleet: {error.problem}", file=sys.stderr)
        if error.remedy:
            print(f"  what to do: {error.remedy}", file=sys.stderr)
        return 1
    except (ClientError, BotoCoreError) as error:
        print(f"iot-fleet: AWS says: {error}\n  what to do: once that is solved, run it again", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `iot-fleet list | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"iot-fleet: a file cannot be used: {error}", file=sys.stderr)
        print("  what to do: choose another place, or put that one right, and run it again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\niot-fleet: interrupted; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
