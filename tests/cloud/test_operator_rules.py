"""What an operator's order makes of a record, as pure functions; `tests/fleet` shows the commands."""

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import ANY

import pytest

from cloud.rotation.lifecycle import Keep, Save
from cloud.rotation.operator_rules import OrderError, advise, allow, readmit, remove, revoke
from cloud.rotation.record import NEW, Certificate, Device, Entry, Renewal, Retiring, Returning, State

NOW = 1_790_000_000_000
HOUR = 3600 * 1000
VENDOR, FIRST, SECOND = "vendor--" * 8, "first---" * 8, "second--" * 8
ACTIVE = Certificate(FIRST, "key-1", "PEM", NOW - 90 * HOUR, NOW + 90 * HOUR)
PENDING = Certificate(SECOND, "key-2", "PEM", NOW - HOUR, NOW + 99 * HOUR)
ALLOWED = Device("SN-1", State.ALLOWED, 3)
ABOARD = replace(ALLOWED, state=State.THING_CREATED, vendor_certificate_id=VENDOR)
ROTATING = replace(ABOARD, state=State.CERT_ISSUED, active=ACTIVE, pending=PENDING)
QUARANTINED = Device("SN-1", State.QUARANTINED, 1, quarantined=("a", "b", "c"))
REVOKED = Device("SN-1", State.REVOKED, 9, vendor_certificate_id=VENDOR)


def test_an_unknown_serial_is_allowed_with_a_record_that_was_never_written() -> None:
    saved = allow(None, "SN-7", NOW, "ann")
    assert saved == Save(Device("SN-7", State.ALLOWED, NEW, allowed_at=NOW), Entry("allowed", ANY, by="ann"))


def test_a_quarantined_serial_is_allowed_and_what_was_turned_away_is_returning() -> None:
    returning = tuple(Returning(one, NOW) for one in ("a", "b", "c"))
    freed = Device("SN-1", State.ALLOWED, 1, allowed_at=NOW, returning=returning)
    assert allow(QUARANTINED, "SN-1", NOW, "ann") == Save(freed, Entry("allowed", ANY, "c", "ann"))
    bare = allow(replace(QUARANTINED, quarantined=()), "SN-1", NOW)
    assert isinstance(bare, Save)
    assert bare.entry == Entry("allowed", ANY)


@pytest.mark.parametrize("device", [ALLOWED, ABOARD, ROTATING])
def test_a_serial_that_is_allowed_already_stays_as_it_is(device: Device) -> None:
    assert isinstance(allow(device, "SN-1", NOW), Keep)


def test_a_revoked_serial_is_readmitted_and_not_allowed() -> None:
    with pytest.raises(OrderError, match="readmit"):
        allow(REVOKED, "SN-1", NOW)


def test_revoking_retires_all_that_a_device_has_and_ends_every_order() -> None:
    device = replace(
        ROTATING,
        renew=Renewal(NOW, NOW + HOUR, "drill"),
        readmit_until=NOW + HOUR,
        retiring=(Retiring("r", 5),),
        returning=(Returning("s", 6),),
    )
    saved = revoke(device, NOW, "ann")
    assert saved == Save(
        replace(
            ABOARD,
            state=State.REVOKED,
            retiring=(
                Retiring("r", 5),
                Retiring(SECOND, NOW),
                Retiring(FIRST, NOW),
                Retiring(VENDOR, NOW, vendor=True),
            ),
            quarantined=("s",),
        ),
        Entry("revoked", ANY, by="ann"),
    )
    assert isinstance(saved, Save)
    assert saved.entry
    assert saved.entry.detail.endswith(f": {SECOND[:16]}, {FIRST[:16]}")


def test_a_device_without_a_certificate_of_ours_is_revoked_too() -> None:
    saved = revoke(ALLOWED, NOW)
    assert saved == Save(replace(ALLOWED, state=State.REVOKED), Entry("revoked", ANY))
    assert isinstance(saved, Save)
    assert saved.entry
    assert "no certificate" in saved.entry.detail


def test_revoking_twice_changes_nothing() -> None:
    assert isinstance(revoke(REVOKED, NOW), Keep)


def test_a_quarantined_serial_has_nothing_to_revoke() -> None:
    with pytest.raises(OrderError, match="never allowed"):
        revoke(QUARANTINED, NOW)


@pytest.mark.usefixtures("far_east")
def test_readmission_lets_every_vendor_certificate_register_again_and_keeps_the_present_one() -> None:
    device = replace(
        ROTATING,
        retiring=(Retiring("old-vendor", 1, vendor=True), Retiring("r", 2)),
        returning=(Returning("s", 3), Returning(VENDOR, 4)),
        quarantined=("q",),
    )
    until = NOW + 3 * HOUR
    expected = replace(
        ROTATING,
        readmit_until=until,
        retiring=(Retiring("r", 2),),
        returning=tuple(Returning(one, NOW) for one in (VENDOR, "old-vendor", "s", "q")),
    )
    saved = readmit(device, NOW, until, "ann")
    assert saved == Save(expected, Entry("readmitted", ANY, by="ann"))
    assert saved.entry
    assert saved.entry.detail.endswith(" 2026-09-21 17:13 UTC")


def test_a_revoked_device_that_is_readmitted_starts_again_as_allowed() -> None:
    saved = readmit(replace(REVOKED, vendor_certificate_id=None), NOW, NOW + HOUR)
    assert saved.device == Device("SN-1", State.ALLOWED, 9, readmit_until=NOW + HOUR)


def test_a_readmission_may_be_prolonged_before_the_device_has_come() -> None:
    waiting = replace(ALLOWED, readmit_until=NOW + HOUR)
    assert readmit(waiting, NOW, NOW + 2 * HOUR).device == replace(waiting, readmit_until=NOW + 2 * HOUR)


@pytest.mark.parametrize(("device", "what_instead"), [(QUARANTINED, "allow"), (ALLOWED, "needs no readmission")])
def test_a_device_that_was_never_aboard_is_not_readmitted(device: Device, what_instead: str) -> None:
    with pytest.raises(OrderError, match=what_instead):
        readmit(device, NOW, NOW + HOUR)


def test_advice_replaces_the_advice_before() -> None:
    earlier, later = Renewal(NOW, NOW + 1, "one"), Renewal(NOW, NOW + 60_000, "two")
    assert advise(replace(ROTATING, renew=earlier), later, "ann") == Save(
        replace(ROTATING, renew=later),
        Entry("advised", "to renew between 2026-09-21 14:13 UTC and 2026-09-21 14:14 UTC: two", by="ann"),
    )


def test_a_device_without_a_certificate_of_ours_is_not_advised() -> None:
    with pytest.raises(OrderError, match="no certificate to renew"):
        advise(ABOARD, Renewal(NOW, NOW + 1, "one"))


@pytest.mark.usefixtures("far_east")
def test_a_removal_takes_all_out_of_service_and_notes_what_is_to_be_deleted() -> None:
    device = replace(
        ROTATING,
        retiring=(Retiring("old-vendor", 1, vendor=True), Retiring("r", 2)),
        returning=(Returning("s", 3), Returning(VENDOR, 4)),
        quarantined=("q",),
        renew=Renewal(NOW, NOW + HOUR, "drill"),
        readmit_until=NOW + HOUR,
        last_seen=NOW,
    )
    ours = tuple(Retiring(one, NOW) for one in (SECOND, FIRST, "r"))
    vendors = tuple(Retiring(one, NOW, vendor=True) for one in (VENDOR, "old-vendor", "s", "q"))
    gone = Device("SN-1", State.REVOKED, device.version, retiring=(*ours, *vendors), removing=NOW)
    detail = "certificates out of service: 7; the sweeper deletes them, its thing and its record"
    assert remove(device, NOW, "ann") == Save(gone, Entry("removed", detail, by="ann"))
    assert remove(gone, NOW + HOUR) == Keep("being removed since 2026-09-21 14:13 UTC")


def test_a_device_without_a_vendor_certificate_can_be_removed_too() -> None:
    one = replace(ALLOWED, quarantined=("q",))
    saved = remove(one, NOW)
    assert isinstance(saved, Save)
    assert saved.device.retiring == (Retiring("q", NOW, vendor=True),)
    assert saved.entry == Entry(
        "removed", "certificates out of service: 1; the sweeper deletes them, its thing and its record"
    )
    nothing = remove(replace(ALLOWED, vendor_certificate_id=None), NOW)
    assert isinstance(nothing, Save)
    assert nothing.device.retiring == ()


@pytest.mark.parametrize("order", [lambda one: allow(one, "SN-1", NOW), lambda one: readmit(one, NOW, NOW + HOUR)])
def test_a_device_that_is_being_removed_is_not_let_in(order: Callable[[Device], object]) -> None:
    with pytest.raises(OrderError, match="being removed"):
        order(replace(REVOKED, removing=NOW))
