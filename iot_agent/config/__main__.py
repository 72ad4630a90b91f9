"""The configuration reader, a child process of the daemon: reads agent.yaml, then checks the files that it names.

`python -m iot_agent.config FILE` prints the settings as JSON. If the daemon cannot use them, it writes every problem to
stderr, one a line, with its remedy, and exits with 78 (EX_CONFIG); stdout then lists, as JSON, the files beside
agent.yaml whose change is a reason to read again. With `STARTING`, a device that has an identity of its own starts
whatever is wrong with those files.
"""

import json
import os
import sys
from pathlib import Path

from iot_agent.config import agent_yaml, bundle
from iot_agent.config.agent_yaml import AgentYamlError
from iot_agent.core.settings import dump
from iot_agent.host.subprocesses import STARTING


def main(arguments: list[str]) -> int:
    """Read one file."""
    if not arguments:
        sys.stderr.write(f"usage: python -m iot_agent.config FILE [{STARTING}]\n")
        return os.EX_USAGE
    try:
        settings = agent_yaml.read(Path(arguments[0]))
    except AgentYamlError as error:
        sys.stderr.write(f"{error}\n")
        sys.stdout.write("[]")
        return os.EX_CONFIG
    found = bundle.problems(settings, starting=STARTING in arguments)
    if found:
        sys.stderr.writelines(f"{problem}\n" for problem in found)
        sys.stdout.write(json.dumps([str(problem.path) for problem in found]))
        return os.EX_CONFIG
    sys.stdout.write(dump(settings))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
