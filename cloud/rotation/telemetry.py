"""One JSON line per event on standard output, which Lambda sends to CloudWatch Logs.

A counted line is in CloudWatch's embedded metric format (CloudWatch User Guide: "Embedded metric format"), so a metric
needs no API call and no permission. No line holds a key, a CSR or a certificate.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final

NAMESPACE: Final = "IotAgent"


def say(event: str, **fields: str | None) -> None:
    """Write one line."""
    _write({"event": event, **fields})


def count(metric: str, stack: str, times: int = 1, **fields: str | None) -> None:
    """Write one line that also adds `times` to `metric` of `stack`."""
    directive = {"Namespace": NAMESPACE, "Dimensions": [["Stack"]], "Metrics": [{"Name": metric, "Unit": "Count"}]}
    header = {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": [directive]}
    _write({"_aws": header, "Stack": stack, metric: times, **fields})


def _write(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
