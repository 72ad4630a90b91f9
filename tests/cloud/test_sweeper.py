"""The scheduled run: what no message comes for, at the Lambda's own entry."""

import json
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from cloud.common import operations
from cloud.rotation import agenda, steps
from cloud.rotation.agenda import DAY_MS
from cloud.rotation.lifecycle import SETTLE_MS
from cloud.rotation.record import Renewal, State
from tests.cloud.lambda_bench import Bench, a_bench, before_each_call, request
from tests.cloud.scenarios import Killed

HOUR_MS = 3600 * 1000
Patch = pytest.MonkeyPatch


def counted(captured: str, metric: str) -> int:
    return sum(json.loads(line).get(metric, 0) for line in captured.splitlines())


def onboarded(bench: Bench) -> str:
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    first = bench.create(vendor)["cert_id"]
    bench.ack(first)
    return str(first)


def test_with_nothing_to_do_it_does_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    before = bench.device()
    bench.sweep()
    assert bench.device() == before
    assert counted(capsys.readouterr().out, "Swept") == 0


def test_a_retirement_that_was_cut_short_is_finished(bench: Bench, monkeypatch: Patch) -> None:
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    first = bench.create(vendor)["cert_id"]

    def stop(_number: int, operation: str) -> None:
        if operation == "UpdateCertificate":
            raise Killed

    with before_each_call(monkeypatch, stop), pytest.raises(Killed):
        bench.ack(first)
    assert bench.status(vendor) == "ACTIVE"
    bench.sweep()
    assert bench.status(vendor) == "ACTIVE", "not yet: the run that was cut short might still be at it"
    bench.now += SETTLE_MS
    bench.sweep()
    bench.check_settled()
    assert bench.device().retiring == ()


def overtaken_and_killed(bench: Bench, monkeypatch: Patch) -> None:
    """Run a create that another overtakes before it registers, and that is killed right after it has."""
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    done = False

    def overtake(_number: int, operation: str) -> None:
        nonlocal done
        if operation == "RegisterCertificate" and not done:
            done = True
            bench.deliver(bench.event("create", "SN-1", vendor, request(2)))
        elif operation == "GetItem" and done and len(bench.issued()) > 1:
            raise Killed

    with before_each_call(monkeypatch, overtake), pytest.raises(Killed):
        bench.deliver(bench.event("create", "SN-1", vendor, request(1)))


def test_no_orphan_is_left_by_a_run_that_was_overtaken_and_killed(bench: Bench, monkeypatch: Patch) -> None:
    overtaken_and_killed(bench, monkeypatch)
    assert len(bench.issued()) == 2, "one too many, and nobody will send a message about it"
    bench.now += SETTLE_MS
    bench.sweep()
    bench.check_settled()


def test_bug_planted_a_list_of_the_retired_that_is_emptied_at_once_leaves_the_orphan(
    bench: Bench, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("cloud.rotation.lifecycle.SETTLE_MS", 0)
    overtaken_and_killed(bench, monkeypatch)
    bench.now += SETTLE_MS
    bench.sweep()
    with pytest.raises(AssertionError, match="orphans"):
        bench.check_settled()


def test_a_certificate_that_nobody_proves_is_abandoned_and_only_that(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    first = onboarded(bench)
    pending = bench.create(first, 1)["cert_id"]
    bench.now += DAY_MS - 1
    bench.sweep()
    assert bench.status(pending) == "ACTIVE"
    bench.now += 1
    bench.sweep()
    assert (bench.status(first), bench.status(pending)) == ("ACTIVE", "gone")
    device = bench.device()
    assert (device.state, device.pending) == (State.ROTATION_COMPLETE, None)
    assert counted(capsys.readouterr().out, "Abandoned") == 1
    again = bench.create(first, 2)["cert_id"]
    bench.ack(again)
    bench.check_settled()


def test_a_first_certificate_that_nobody_proves_is_abandoned_too(bench: Bench) -> None:
    vendor = bench.vendor("SN-1")
    bench.deliver(bench.registered_event(vendor))
    bench.create(vendor)
    bench.now += DAY_MS
    bench.sweep()
    assert bench.device().state is State.THING_CREATED
    assert bench.status(vendor) == "ACTIVE"
    assert bench.issued() == {}
    bench.ack(bench.create(vendor, 1)["cert_id"])
    bench.check_settled()


def test_a_pending_certificate_that_may_be_the_only_one_to_work_is_kept(bench: Bench) -> None:
    first = onboarded(bench)
    bench.now += 89 * DAY_MS + HOUR_MS
    pending = bench.create(first, 1)["cert_id"]
    for _ in range(20):
        bench.now += DAY_MS
        bench.sweep()
    assert bench.status(pending) == "ACTIVE", "the other one has expired"
    bench.ack(pending)
    bench.check_settled()


def test_bug_planted_a_sweeper_that_takes_the_only_one(bench: Bench, monkeypatch: Patch) -> None:
    monkeypatch.setattr(agenda, "_dispensable", lambda _device, _pending, _now: True)
    with pytest.raises(AssertionError, match="the other one has expired"):
        test_a_pending_certificate_that_may_be_the_only_one_to_work_is_kept(bench)


def readmitted_and_issued(bench: Bench) -> tuple[str, str]:
    """Have a device, readmitted, ask over its vendor certificate; give the ids of its active and pending ones."""
    first = onboarded(bench)
    vendor = str(bench.device().vendor_certificate_id)
    operations.readmit(bench.office(), "SN-1", DAY_MS)
    bench.vendor_again(vendor)
    return first, str(bench.create(vendor, 2)["cert_id"])


def test_a_certificate_of_a_readmitted_device_is_abandoned_once_it_is_heard_over_its_present_one(bench: Bench) -> None:
    first, pending = readmitted_and_issued(bench)
    bench.now += 3 * DAY_MS
    bench.sweep()
    assert bench.status(pending) == "ACTIVE", "it may be all that the device has"
    bench.ask("check-in", "SN-1", first, {"request_id": "r-1", "report": {}})
    bench.now += 2 * SETTLE_MS
    bench.sweep()
    assert bench.device().pending is None
    assert bench.issued() == {first: "ACTIVE"}


def test_a_message_that_may_have_been_sent_before_says_nothing_of_what_the_device_has(bench: Bench) -> None:
    first, pending = readmitted_and_issued(bench)
    bench.now += agenda.LATE_MS
    bench.ask("check-in", "SN-1", first, {"request_id": "r-1", "report": {}})
    bench.now += 3 * DAY_MS
    bench.sweep()
    assert bench.status(pending) == "ACTIVE"


def test_a_device_that_does_not_renew_is_counted_once_a_day_and_once_when_expired(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    onboarded(bench)
    expiring, expired = [], []
    capsys.readouterr()
    for _ in range(100 * 4):
        bench.now += 6 * HOUR_MS
        bench.sweep()
        out = capsys.readouterr().out
        expiring.append(counted(out, "Expiring"))
        expired.append(counted(out, "Expired"))
    assert sum(expiring) == 15, "the last sixth of ninety days"
    assert sum(expired) == 1
    assert max(expiring) == max(expired) == 1


def test_a_device_that_only_checks_in_is_counted_all_the_same(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    active = onboarded(bench)
    bench.now += 76 * DAY_MS
    bench.sweep()
    capsys.readouterr()
    for _ in range(5):
        bench.now += 20 * HOUR_MS
        bench.ask("check-in", "SN-1", active, {"request_id": "r", "report": {}})
        bench.now += 4 * HOUR_MS
        bench.sweep()
    assert counted(capsys.readouterr().out, "Expiring") == 5


def test_a_readmission_that_was_not_used_ends(bench: Bench) -> None:
    active = onboarded(bench)
    vendor = str(bench.device().vendor_certificate_id)
    operations.readmit(bench.office(), "SN-1", HOUR_MS)
    again = bench.vendor_again(vendor)
    assert bench.status(again) == "ACTIVE"
    bench.now += HOUR_MS
    bench.sweep()
    assert bench.status(again) == "INACTIVE"
    assert bench.device().readmit_until is None
    assert bench.status(active) == "ACTIVE"
    bench.check_settled()


def test_it_stops_in_time_and_the_next_run_goes_on(bench: Bench) -> None:
    onboarded(bench)
    bench.now += SETTLE_MS
    bench.sweep(remaining_ms=10_000)
    assert bench.device().retiring != ()
    bench.sweep()
    assert bench.device().retiring == ()


def test_one_record_that_fails_does_not_hold_up_the_others(
    bench: Bench, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    serials = [f"SN-{number}" for number in range(2, 6)]
    for serial in serials:
        bench.allow(serial)
        vendor = bench.vendor(serial)
        bench.deliver(bench.registered_event(vendor))
        bench.ack(bench.create(vendor, 0, serial)["cert_id"], serial)
    bench.now += SETTLE_MS
    honest = steps.finish

    def finish(world: steps.World, serial: str) -> None:
        if serial == "SN-3":
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, "DescribeCertificate")
        honest(world, serial)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "finish", finish)
        bench.sweep()
    out = capsys.readouterr().out
    assert (counted(out, "Failed"), counted(out, "Swept")) == (1, 4)
    assert [bench.device(serial).retiring == () for serial in serials] == [True, False, True, True]
    bench.now += SETTLE_MS
    bench.sweep()
    assert bench.device("SN-3").retiring == ()


def sweeps_cut_short(monkeypatch: Patch, check: Callable[[Bench], None]) -> int:
    """Cut a sweep short before each of its calls in turn, sweep again; return how many calls there were."""
    at, met = 0, True
    while met:
        at += 1
        met = False

        def stop(number: int, _operation: str, at: int = at) -> None:
            nonlocal met
            if number == at:
                met = True
                raise Killed

        with a_bench(monkeypatch) as bench:
            first = onboarded(bench)
            bench.create(first, 1)
            bench.now += DAY_MS
            with before_each_call(monkeypatch, stop):
                try:
                    bench.sweep()
                except Killed:
                    bench.check_never_bricked()
            for _ in range(2):
                bench.now += SETTLE_MS
                bench.sweep()
            check(bench)
    return at


def test_cut_short_at_any_call_the_next_sweep_ends_in_the_same_place(aws: Patch) -> None:
    def check(bench: Bench) -> None:
        bench.check_settled()
        device = bench.device()
        assert (device.state, device.pending, device.retiring) == (State.ROTATION_COMPLETE, None, ())

    assert sweeps_cut_short(aws, check) > 10


def test_the_history_tells_it_all(bench: Bench) -> None:
    first = onboarded(bench)
    bench.create(first, 1)
    bench.now += DAY_MS
    bench.sweep()
    told = [line.entry.event for line in bench.devices.history("SN-1")]
    assert told == ["allowed", "registered", "issued", "proven", "issued", "abandoned", "retired"]
    versions = [line.version for line in bench.devices.history("SN-1")]
    assert versions == sorted(set(versions))


def test_an_expired_device_with_an_unproven_certificate_is_counted_as_seldom_as_any(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    first = onboarded(bench)
    bench.now = bench.device().active.not_after - DAY_MS  # type: ignore[union-attr]  # it has one
    bench.create(first, 2)
    bench.now += DAY_MS  # nobody waits for it any more, and there is nothing else
    capsys.readouterr()
    for _ in range(100):
        bench.now += HOUR_MS // 12
        bench.sweep()
    assert 1 <= counted(capsys.readouterr().out, "Expired") <= 2


def test_records_that_cannot_be_read_do_not_keep_the_sweeper_from_the_others(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    onboarded(bench)
    bench.now += SETTLE_MS
    item = bench.table.get_item(Key={"serial": "SN-1"})["Item"]
    with bench.table.batch_writer() as batch:
        for number in range(150):
            batch.put_item(Item={**item, "serial": f"BAD-{number}", "state": "BENT", "look_at": 1})
    bench.sweep()
    assert counted(capsys.readouterr().out, "Failed") == 150
    assert bench.device().retiring == ()


def test_a_write_that_meets_a_transaction_is_tried_again(bench: Bench, monkeypatch: Patch) -> None:
    first = onboarded(bench)
    left = [1]

    def busy(_number: int, operation: str) -> None:
        if operation == "UpdateItem" and left[0]:
            left[0] -= 1
            raise ClientError({"Error": {"Code": "TransactionConflictException", "Message": "busy"}}, operation)

    with before_each_call(monkeypatch, busy):
        assert "error" not in bench.ask("check-in", "SN-1", first, {"request_id": "r", "report": {}})
    assert left == [0]


WRITES: dict[str, Callable[[Bench, str, str], object]] = {
    "check-in": lambda bench, active, _: bench.ask("check-in", "SN-1", active, {"request_id": "r", "report": {}}),
    "request": lambda bench, active, _: bench.create(active, 3),
    "acknowledgement": lambda bench, _, pending: bench.ack(pending),
    "advice": lambda bench, *_: operations.advise(bench.office(), "SN-1", Renewal(1, 2, "new CA")),
    "readmission": lambda bench, *_: operations.readmit(bench.office(), "SN-1", 30 * DAY_MS),
    "revocation": lambda bench, *_: operations.revoke(bench.office(), "SN-1"),
    "vendor": lambda bench, *_: bench.deliver(bench.registered_event(bench.vendor("SN-1"))),
}


def due_then_written(bench: Bench, write: str, late: int = 1) -> None:
    """Let a look become due, write to the record in one way, and see that the look is as due as before."""
    active = onboarded(bench)
    bench.now += SETTLE_MS
    bench.sweep()
    pending = bench.create(active, 1)["cert_id"]
    due = bench.device().look_at
    assert due is not None
    bench.now = due + late
    WRITES[write](bench, active, pending)
    assert bench.device().look_at == due, "put off by a write"
    bench.sweep()
    planned = bench.device().look_at
    assert planned is None or planned > bench.now, "looked at, and still due"


@pytest.mark.parametrize("write", WRITES)
def test_a_look_that_is_due_stays_due_whatever_is_written(bench: Bench, write: str) -> None:
    due_then_written(bench, write)


def test_a_certificate_that_nobody_proves_is_abandoned_although_the_device_checks_in_just_before_the_sweeper(
    bench: Bench,
) -> None:
    active = onboarded(bench)
    pending = bench.create(active, 1)["cert_id"]
    bench.now += DAY_MS
    WRITES["check-in"](bench, active, pending)
    bench.sweep()
    assert bench.status(pending) == "gone"
    assert bench.device().state is State.ROTATION_COMPLETE


def test_bug_planted_any_write_plans_the_look_afresh(bench: Bench, monkeypatch: Patch) -> None:
    honest = agenda.next_look
    monkeypatch.setattr("cloud.rotation.devices.next_look", lambda device, now: honest(agenda.looked_at(device), now))
    with pytest.raises(AssertionError, match="put off"):
        due_then_written(bench, "check-in")
