"""Run a step as the daemon does, in a real worker, and measure that: a request on stdin, what came of it on stdout.

A process of its own, so that the worker is the only child whose memory is counted.
"""

import json
import resource
import sys

from iot_agent.core.codec import decode_request, encode_outcome
from iot_agent.host.subprocesses import Worker


def main() -> None:
    worker = Worker(decode_request(sys.stdin.buffer.readline()))
    while (outcome := worker.poll()) is None:
        worker.wait()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(json.dumps({"outcome": json.loads(encode_outcome(outcome)), "peak_mib": peak}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
