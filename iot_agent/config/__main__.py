"""The configuration reader, a child process of the daemon: reads agent.yaml, then checks the files that it names.

It gets one line of JSON and answers with one (`host/subprocesses.py`):

    {"path": FILE, "starting": bool}
    {"settings": …}  or  {"problems": TEXT, "files": [FILE, …]}

TEXT is every problem, one a line, with its remedy. Each FILE is one, beside agent.yaml, whose change is a reason to
read again. When the daemon is starting, a device that has an identity of its own starts whatever is wrong with those.
"""

import json
import sys
from pathlib import Path

from iot_agent.config import agent_yaml, bundle
from iot_agent.config.agent_yaml import AgentYamlError
from iot_agent.core.settings import dump

LONGEST_PROBLEMS = 64 * 1024  # characters: a file full of mistakes has more than anybody reads


def main() -> int:
    """Read one file."""
    request = json.loads(sys.stdin.readline())
    sys.stdout.write(json.dumps(_answer(Path(request["path"]), starting=request["starting"])) + "\n")
    return 0


def _answer(path: Path, *, starting: bool) -> dict[str, object]:
    try:
        settings = agent_yaml.read(path)
    except AgentYamlError as error:
        return {"problems": str(error)[:LONGEST_PROBLEMS], "files": []}
    found = bundle.problems(settings, starting=starting)
    if found:
        return {"problems": "\n".join(map(str, found)), "files": [str(problem.path) for problem in found]}
    return {"settings": dump(settings)}


if __name__ == "__main__":
    sys.exit(main())
