"""docs/costs.md is counted, not guessed: the calls, the units and the messages of each flow are counted here again."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloud import costs
from cloud.costs import COUNTED, Fleet, Work
from cloud.rotation import steps
from cloud.rotation.lifecycle import SETTLE_MS
from tests.cloud.counting import item_size, log_bytes, metric, tallied
from tests.cloud.lambda_bench import a_bench
from tests.cloud.template import STACK, of_type
from tests.simulator.device import SimulatedDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cloud.lambda_bench import Bench

DOCUMENT = Path(__file__).parents[2] / "docs" / "costs.md"
README = Path(__file__).parents[2] / "README.md"
SERIAL = "SN-2026-0000001"
REPORT = {
    "agent_version": "0.1.0",
    "key_backend": "file",
    "key_algorithm": "ec-p256",
    "clock_trusted": True,
    "state": "acked",
    "certificate_id": "a" * 64,
    "not_before": 1790000000,
    "not_after": 1797776000,
    "clock": 1790000000,
    "last_error": None,
}


class Meter:
    """Counts one thing after another that happens to a device."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._bench, self._patch, self._capsys = bench, monkeypatch, capsys
        capsys.readouterr()

    def count(self, *events: Callable[[], object], rules: int) -> Work:
        """Count what the events make the Lambda do, and what the sweeper then finds to do."""
        with tallied(self._patch, self._bench) as tally:
            for event in events:
                event()
        told = self._capsys.readouterr().out
        record = self._bench.table.get_item(Key={"serial": SERIAL}).get("Item")
        return Work(
            runs=len(events),
            rules=rules,
            calls=dict(tally.calls),
            read_units=tally.read_units,
            write_units=tally.write_units,
            history_bytes=tally.history_bytes,
            record_bytes=item_size(record),
            log_bytes=log_bytes(told),
            signatures=metric(told, "Issued"),
        )


def less(work: Work, other: Work) -> Work:
    """Return the work without an idle sweep's, which is counted by itself."""
    return replace(
        work,
        runs=work.runs - other.runs,
        calls=dict(Counter(work.calls) - Counter(other.calls)),
        read_units=work.read_units - other.read_units,
        log_bytes=work.log_bytes - other.log_bytes,
    )


def in_the_cloud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Work]:
    """Live a life on the bench, with a warm Lambda, and count."""
    with a_bench(monkeypatch) as bench:
        bench.create(bench.vendor("SN-1"))  # warm: the CA's key has been read
        bench.allow(SERIAL)
        vendor, meter = bench.vendor(SERIAL), Meter(bench, monkeypatch, capsys)
        held: list[str] = [vendor]

        def create() -> None:
            held.append(bench.create(held[-1], len(held), SERIAL)["cert_id"])

        def settle_and_sweep() -> None:
            bench.now += SETTLE_MS + 1
            bench.sweep()

        def check_in() -> None:
            bench.ask("check-in", SERIAL, held[-1], {"request_id": "check-in-1790000000", "report": REPORT})

        registered = bench.registered_event(vendor)
        onboarding = meter.count(
            lambda: bench.deliver(registered), create, lambda: bench.ack(held[-1], SERIAL), settle_and_sweep, rules=3
        )
        assert bench.device(SERIAL).retiring == ()
        idle = meter.count(settle_and_sweep, rules=0)
        check_in()  # from here on there is a report in the record
        meter = Meter(bench, monkeypatch, capsys)
        reported = meter.count(check_in, rules=1)
        renewal = meter.count(create, lambda: bench.ack(held[-1], SERIAL), settle_and_sweep, rules=2)
        assert bench.device(SERIAL).retiring == ()
    return {
        "onboarding": less(onboarding, idle),
        "renewal": less(renewal, idle),
        "check-in": reported,
        "idle sweep": idle,
    }


def on_the_wire(disk: Path) -> dict[str, tuple[int, int, int]]:
    """Live a device's life in the simulator; return connections, subscriptions and exchanges of each flow."""
    device = SimulatedDevice(disk)
    device.life(1)
    onboarding, device.fuse.names = device.fuse.names, []
    device.life(2)
    sessions = "\n".join(name.split("/")[1] if "publish" in name else name.split()[0] for name in device.fuse.names)
    parts = [part.split() for part in sessions.split("connect")[1:]]
    check_ins = [part for part in parts if "check-in" in part]
    renewal = [part for part in parts if "check-in" not in part]
    assert check_ins
    return {
        "onboarding": (
            onboarding.count("connect"),
            sum(name.startswith("subscribe") for name in onboarding),
            sum(name.startswith("publish") for name in onboarding),
        ),
        "renewal": (len(renewal), sum("subscribe" in part for part in renewal), _publishes(renewal)),
        "check-in": (1, sum("subscribe" in part for part in check_ins[:1]), _publishes(check_ins[:1])),
    }


def _publishes(sessions: list[list[str]]) -> int:
    return sum(verb in part for part in sessions for verb in ("create-man-cert", "ack-man-cert", "check-in"))


def test_the_work_is_what_was_counted(aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], disk: Path) -> None:
    found = in_the_cloud(aws, capsys)
    for name, (connects, subscribes, exchanges) in on_the_wire(disk).items():
        found[name] = replace(found[name], connects=connects, subscribes=subscribes, exchanges=exchanges)
    assert {name: exact(work) for name, work in found.items()} == {name: exact(work) for name, work in COUNTED.items()}
    for name, work in found.items():
        for what in ("history_bytes", "record_bytes", "log_bytes"):  # signatures and times differ by a few bytes
            assert getattr(work, what) == pytest.approx(getattr(COUNTED[name], what), rel=0.02, abs=8), (name, what)


def test_bug_planted_one_call_more_is_noticed(aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    finish = steps.finish

    def twice(world: steps.RetirementContext, serial: str) -> None:
        finish(world, serial)
        finish(world, serial)

    aws.setattr(steps, "finish", twice)
    found = in_the_cloud(aws, capsys)
    for name in ("onboarding", "renewal", "check-in"):
        assert found[name].calls != COUNTED[name].calls
        assert found[name].read_units > COUNTED[name].read_units


def exact(work: Work) -> Work:
    return replace(work, history_bytes=0, record_bytes=0, log_bytes=0)


def test_what_is_fixed_is_what_the_template_makes() -> None:
    shown = re.findall(r'"IotAgent", "(\w+)"', str(STACK["Resources"]["Dashboard"]))
    assert len(set(shown)) == costs.METRICS
    assert len(of_type("AWS::CloudWatch::Alarm")) == costs.ALARMS
    schedule = of_type("AWS::Scheduler::Schedule")["SweepSchedule"]["ScheduleExpression"]
    assert schedule == "rate(5 minutes)"
    assert pytest.approx(365 / 12 * 24 * 60 / 5) == costs.SWEEPS_A_MONTH
    assert of_type("AWS::Serverless::Function")["RotationFunction"]["MemorySize"] / 1024 == Fleet.memory_gb
    assert STACK["Parameters"]["LogRetentionDays"]["Default"] / 30 == Fleet.log_months


def test_the_document_shows_these_tables() -> None:
    assert costs.tables(Fleet()) in DOCUMENT.read_text(), "print them again: python3 -m cloud.costs"


def test_what_is_said_in_words_is_in_the_tables() -> None:
    fleet, million = Fleet(), 1_000_000
    renewal = costs.dollars(costs.amounts(COUNTED["renewal"], fleet)) * million
    assert f"A renewal of a million devices costs about {renewal:.0f} dollars" in README.read_text()
    assert f"a renewal of a million devices is {renewal:.0f} dollars" in DOCUMENT.read_text()
    check_ins = costs.dollars(costs.amounts(COUNTED["check-in"], fleet)) * million
    share = check_ins * fleet.check_ins_a_day * costs.MONTH_DAYS / costs.dollars(costs.a_month(fleet))
    assert (round(share, 1), "nine tenths" in DOCUMENT.read_text()) == (0.9, True)


def test_the_bill_is_the_sum_of_its_lines() -> None:
    fleet = Fleet(devices=1)
    sweep = costs.dollars(costs.amounts(COUNTED["idle sweep"], fleet))
    assert costs.dollars(costs.a_month(replace(fleet, devices=0))) == pytest.approx(
        # the stack by itself: 12 metrics, 18 alarms, a dashboard, 2 keys, and a sweep every five minutes
        12 * 0.30 + 18 * 0.10 + 3 + 2 + costs.SWEEPS_A_MONTH * (1e-6 + sweep),
        rel=1e-3,
    )
    writes = costs.a_month(replace(fleet, devices=2))["writes"] / costs.a_month(fleet)["writes"]
    assert writes == pytest.approx(2)
