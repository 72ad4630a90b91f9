"""Status reports for the tests of `iot_agent/status`."""

from dataclasses import replace
from typing import Any

from iot_agent.core.record import Certificate, Failure, Identity, Kind, Record, State, Step
from iot_agent.status.report import compose

IDENTITY = Identity("iot-agent-1", Certificate("ab" * 32, 1000, 2000, 1700))
RECORD = Record("SN-0001", State.ACKED, active=IDENTITY, rotations=3, last_contact=1200)
ABOUT: dict[str, Any] = {
    "daemon": "running",
    "version": "0.1.0",
    "key": None,
    "configuration": {"error": None, "remedy": None},
    "trouble": None,
    "clock_trusted": True,
}


def report(record: Record = RECORD, now: float = 1500, **about: object) -> dict[str, Any]:
    return compose(record, Step(Kind.WAIT, now, "waiting"), now, {**ABOUT, **about})


def failing(times: int) -> Record:
    failure = Failure(Kind.REQUEST, "unreachable", "no route", "Check the network.", 1400)
    return replace(RECORD, attempt=times, failure=failure)
