"""When the sweeper looks and what it decides, as pure functions; `test_sweeper.py` shows the scheduled run."""

from dataclasses import replace
from unittest.mock import ANY

import pytest

from cloud.rotation.agenda import (
    DAY_MS,
    LATE_MS,
    abandoned_at,
    decide_sweep,
    late,
    looked_at,
    next_look,
    overdue_at,
)
from cloud.rotation.lifecycle import SETTLE_MS, Keep, Save
from cloud.rotation.record import Certificate, Device, Entry, Retiring, Returning, State

NOW = 1_790_000_000_000
VENDOR, FIRST, SECOND = "vendor--" * 8, "first---" * 8, "second--" * 8
ACTIVE = Certificate(FIRST, "key-1", "PEM", NOW - 10 * DAY_MS, NOW + 50 * DAY_MS)
PENDING = Certificate(SECOND, "key-2", "PEM", NOW - DAY_MS, NOW + 59 * DAY_MS)
ABOARD = Device("SN-1", State.THING_CREATED, 3, vendor_certificate_id=VENDOR, vendor_not_after=NOW + 900 * DAY_MS)
COMPLETE = replace(ABOARD, state=State.ROTATION_COMPLETE, active=ACTIVE)
ROTATING = replace(COMPLETE, state=State.CERT_ISSUED, pending=PENDING)


def pending(issued_at: int, not_after: int, *, recovering: bool = False) -> Device:
    """Return a device that rotates, with such a pending certificate."""
    return replace(ROTATING, pending=replace(PENDING, issued_at=issued_at, not_after=not_after, recovering=recovering))


# ---- when ----------------------------------------------------------------------------------------------------------


def test_a_certificate_is_waited_for_a_day_or_half_of_its_life_if_that_is_shorter() -> None:
    assert abandoned_at(replace(PENDING, issued_at=NOW, not_after=NOW + 2 * DAY_MS + 2)) == NOW + DAY_MS
    assert abandoned_at(replace(PENDING, issued_at=NOW, not_after=NOW + 2 * DAY_MS - 1)) == NOW + DAY_MS - 1


def test_a_device_is_overdue_in_the_last_sixth_of_its_certificates_life() -> None:
    assert overdue_at(replace(ACTIVE, issued_at=NOW, not_after=NOW + 600)) == NOW + 500
    assert overdue_at(replace(ACTIVE, issued_at=NOW, not_after=NOW + 605)) == NOW + 505, "whole milliseconds"


@pytest.mark.parametrize(
    ("why", "device", "at"),
    [
        ("nothing is due", ABOARD, None),
        ("a retirement settles", replace(ABOARD, retiring=(Retiring("r", NOW - 1),)), NOW - 1 + SETTLE_MS),
        ("what returns settles", replace(ABOARD, returning=(Returning("s", NOW - 2),)), NOW - 2 + SETTLE_MS),
        ("a removal ends", replace(ABOARD, removing=NOW - 3), NOW - 3 + SETTLE_MS),
        ("a readmission ends", replace(ABOARD, readmit_until=NOW + 77), NOW + 77),
        ("a certificate is abandoned", pending(NOW - DAY_MS + 5, NOW + 59 * DAY_MS), NOW + 5),
        (
            "one that is waited for longer expires",
            pending(NOW - DAY_MS, NOW + 5 * DAY_MS, recovering=True),
            NOW + 5 * DAY_MS,
        ),
        ("one whose time is up now is not put off", ROTATING, NOW + SETTLE_MS),
        ("the active certificate is overdue", COMPLETE, overdue_at(ACTIVE)),
        ("the earliest counts", replace(COMPLETE, readmit_until=NOW + 60 * DAY_MS), overdue_at(ACTIVE)),
        ("what is past gets a moment to settle", replace(ABOARD, readmit_until=NOW - 9), NOW + SETTLE_MS),
        ("what is due now gets a moment to settle", replace(ABOARD, readmit_until=NOW), NOW + SETTLE_MS),
    ],
)
def test_the_next_look_is_at_the_earliest_moment_of_a_record(why: str, device: Device, at: int | None) -> None:
    assert next_look(device, NOW) == at, why


def test_a_look_that_is_due_stays_due_and_any_other_is_planned_afresh() -> None:
    assert next_look(replace(COMPLETE, look_at=NOW - 5), NOW) == NOW - 5
    assert next_look(replace(COMPLETE, look_at=NOW), NOW) == NOW
    assert next_look(replace(COMPLETE, look_at=NOW + 1), NOW) == overdue_at(ACTIVE)
    assert looked_at(replace(COMPLETE, look_at=NOW)) == COMPLETE


OVERDUE = replace(COMPLETE, active=replace(ACTIVE, issued_at=NOW - 50 * DAY_MS, not_after=NOW + 10 * DAY_MS))


@pytest.mark.parametrize(
    ("why", "device", "at"),
    [
        ("it is counted again after a day", OVERDUE, NOW + DAY_MS),
        ("a message of its own does not put that off", replace(OVERDUE, look_at=NOW + 5), NOW + 5),
        ("never later than in a day", replace(OVERDUE, look_at=NOW + 2 * DAY_MS), NOW + DAY_MS),
        (
            "once more when it expires",
            replace(COMPLETE, active=replace(ACTIVE, issued_at=NOW - 60 * DAY_MS, not_after=NOW + 3)),
            NOW + 3,
        ),
        (
            "then no more",
            replace(COMPLETE, active=replace(ACTIVE, issued_at=NOW - 60 * DAY_MS, not_after=NOW)),
            None,
        ),
    ],
)
def test_an_overdue_device_is_counted_about_once_a_day_and_once_when_its_certificate_expires(
    why: str, device: Device, at: int | None
) -> None:
    assert next_look(device, NOW) == at, why


@pytest.mark.parametrize(
    ("active", "word"),
    [
        (None, None),
        (replace(ACTIVE, issued_at=NOW - 499, not_after=NOW + 101), None),
        (replace(ACTIVE, issued_at=NOW - 500, not_after=NOW + 100), "Expiring"),
        (replace(ACTIVE, issued_at=NOW - 599, not_after=NOW + 1), "Expiring"),
        (replace(ACTIVE, issued_at=NOW - 600, not_after=NOW), "Expired"),
    ],
)
def test_a_device_that_has_not_renewed_is_counted_as_expiring_then_as_expired(
    active: Certificate | None, word: str | None
) -> None:
    assert late(replace(COMPLETE, active=active), NOW) == word


# ---- what ----------------------------------------------------------------------------------------------------------


def test_a_certificate_that_nobody_proved_within_a_day_is_abandoned_and_the_previous_one_stays() -> None:
    saved = decide_sweep(ROTATING, NOW)
    assert isinstance(saved, Save)
    assert saved.device == replace(COMPLETE, retiring=(Retiring(SECOND, NOW),))
    assert saved.entry
    assert (saved.entry.event, saved.entry.certificate_id) == ("abandoned", SECOND)
    assert isinstance(decide_sweep(ROTATING, NOW - 1), Keep)


def test_an_abandoned_first_certificate_leaves_the_device_with_its_vendors() -> None:
    saved = decide_sweep(replace(ABOARD, state=State.CERT_ISSUED, pending=PENDING), NOW)
    assert isinstance(saved, Save)
    assert saved.device == replace(ABOARD, retiring=(Retiring(SECOND, NOW),))


@pytest.mark.parametrize(
    ("why", "device", "abandoned"),
    [
        ("the present one lives for a day yet", DAY_MS + 1, True),
        ("the present one is about to expire", DAY_MS, False),
        ("nobody knows how long the present one lives", None, False),
    ],
)
def test_a_certificate_that_may_be_the_only_one_that_works_is_waited_for(
    why: str, device: int | None, *, abandoned: bool
) -> None:
    left = None if device is None else NOW + device
    waiting = replace(ABOARD, state=State.CERT_ISSUED, pending=PENDING, vendor_not_after=left)
    assert isinstance(decide_sweep(waiting, NOW), Save) is abandoned, why
    expired = replace(waiting, pending=replace(PENDING, not_after=NOW))
    assert isinstance(decide_sweep(expired, NOW), Save), "it has expired itself"


@pytest.mark.parametrize(
    ("heard", "abandoned"),
    [(None, False), (PENDING.issued_at + LATE_MS, False), (PENDING.issued_at + LATE_MS + 1, True)],
)
def test_what_a_readmitted_device_asked_for_is_kept_until_it_is_surely_heard_over_its_present_one(
    heard: int | None, *, abandoned: bool
) -> None:
    device = replace(ROTATING, pending=replace(PENDING, recovering=True), last_seen=heard)
    assert isinstance(decide_sweep(device, NOW), Save) is abandoned


OVER = Entry("readmission-over", ANY)


@pytest.mark.parametrize(
    ("why", "device", "then"),
    [
        (
            "the vendor certificate of a device with an active one is retired, and what has not returned remembered",
            replace(COMPLETE, readmit_until=NOW, returning=(Returning("s", 5),)),
            replace(COMPLETE, retiring=(Retiring(VENDOR, NOW, vendor=True),), quarantined=("s",)),
        ),
        (
            "one that was revoked before is so again",
            replace(ABOARD, state=State.ALLOWED, readmit_until=NOW, returning=(Returning("s", 5),)),
            replace(ABOARD, state=State.REVOKED, retiring=(Retiring(VENDOR, NOW, vendor=True),), quarantined=("s",)),
        ),
        (
            "one that has nothing else keeps its vendor certificate",
            replace(ABOARD, readmit_until=NOW, returning=(Returning("s", 5),)),
            replace(ABOARD, returning=(Returning("s", 5),)),
        ),
    ],
)
def test_a_readmission_that_was_not_used_in_its_time_ends(why: str, device: Device, then: Device) -> None:
    assert decide_sweep(device, NOW) == Save(then, OVER), why
    assert isinstance(decide_sweep(device, NOW - 1), Keep), why


def test_a_record_without_anything_due_is_left_alone() -> None:
    assert isinstance(decide_sweep(COMPLETE, NOW), Keep)
