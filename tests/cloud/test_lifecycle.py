"""The cloud's rules one by one, as pure functions; `test_rotation.py` shows them at the Lambda's entry."""

from dataclasses import replace

import pytest

from cloud.rotation import lifecycle
from cloud.rotation.lifecycle import (
    REMEMBERED,
    SETTLE_MS,
    Admit,
    Keep,
    Presented,
    Quarantine,
    Refuse,
    Save,
    decide_ack,
    decide_check_in,
    decide_create,
    decide_registered,
    finished,
    needs_inspection,
    none_returning,
    reusable,
    to_retire,
    to_return,
    with_pending,
)
from cloud.rotation.record import NEW, Certificate, Device, Entry, Renewal, Retiring, Returning, State

NOW = 1_790_000_000_000
HOUR = 3600 * 1000
VENDOR, OTHER_VENDOR, FIRST, SECOND = ("vendor--" * 8, "other---" * 8, "first---" * 8, "second--" * 8)
ACTIVE = Certificate(FIRST, "key-one-" * 8, "PEM 1", NOW - 90 * HOUR, NOW + 90 * HOUR)
PENDING = Certificate(SECOND, "key-two-" * 8, "PEM 2", NOW - HOUR, NOW + 99 * HOUR)
ALLOWED = Device("SN-1", State.ALLOWED, 3)
ABOARD = replace(ALLOWED, state=State.THING_CREATED, vendor_certificate_id=VENDOR, vendor_not_after=NOW + 900 * HOUR)
FIRST_ISSUED = replace(ABOARD, state=State.CERT_ISSUED, pending=PENDING)
COMPLETE = replace(ABOARD, state=State.ROTATION_COMPLETE, active=ACTIVE)
ROTATING = replace(COMPLETE, state=State.CERT_ISSUED, pending=PENDING)
QUARANTINED = Device("SN-1", State.QUARANTINED, 1, quarantined=(VENDOR,))
REVOKED = Device("SN-1", State.REVOKED, 9, vendor_certificate_id=VENDOR)
READMITTED = replace(COMPLETE, readmit_until=NOW + HOUR, returning=(Returning(VENDOR, NOW - HOUR),))
SHOWN = Presented(VENDOR, "SN-1", by_vendor_ca=True, not_after=NOW + 900 * HOUR)
OTHER = replace(SHOWN, certificate_id=OTHER_VENDOR, not_after=NOW + 800 * HOUR)


# ---- a vendor certificate registers itself -------------------------------------------------------------------------


def test_the_vendor_certificate_of_an_allowed_serial_is_recorded() -> None:
    saved = decide_registered(ALLOWED, SHOWN, NOW)
    assert saved == Save(
        replace(ABOARD, retiring=()),
        Entry("registered", "the vendor certificate has registered itself and is good until 2026-10-29", VENDOR),
    )


@pytest.mark.usefixtures("far_east")
def test_a_date_is_that_of_utc_wherever_it_is_written() -> None:
    saved = decide_registered(ALLOWED, replace(SHOWN, not_after=NOW - NOW % (24 * HOUR) - 1), NOW)
    assert isinstance(saved, Save)
    assert saved.entry
    assert saved.entry.detail.endswith("2026-09-20")


@pytest.mark.parametrize("device", [ABOARD, FIRST_ISSUED, READMITTED])
def test_a_vendor_certificate_that_is_recorded_already_changes_nothing(device: Device) -> None:
    assert isinstance(decide_registered(device, SHOWN, NOW), Keep)


def test_what_another_authority_issued_is_none_of_our_business() -> None:
    assert isinstance(decide_registered(ALLOWED, replace(SHOWN, by_vendor_ca=False), NOW), Keep)


def test_a_vendor_certificate_without_a_valid_serial_is_quarantined_and_nothing_is_recorded() -> None:
    judged = decide_registered(None, replace(SHOWN, serial=None), NOW)
    assert isinstance(judged, Quarantine)
    assert judged.reason
    assert (judged.certificate_id, judged.record, judged.thing) == (VENDOR, None, None)


def test_an_unknown_serial_is_quarantined_with_its_thing_and_remembered() -> None:
    judged = decide_registered(None, SHOWN, NOW)
    assert isinstance(judged, Quarantine)
    assert judged.reason
    assert (judged.certificate_id, judged.thing) == (VENDOR, "SN-1")
    assert judged.record == Device("SN-1", State.QUARANTINED, NEW, quarantined=(VENDOR,))


def test_a_quarantined_serial_keeps_its_record_and_the_other_certificate_is_remembered_last() -> None:
    judged = decide_registered(QUARANTINED, OTHER, NOW)
    assert isinstance(judged, Quarantine)
    assert judged.reason
    assert (judged.certificate_id, judged.thing) == (OTHER_VENDOR, "SN-1")
    assert judged.record == replace(QUARANTINED, quarantined=(VENDOR, OTHER_VENDOR))


def test_a_certificate_that_was_turned_away_before_needs_no_write() -> None:
    judged = decide_registered(QUARANTINED, SHOWN, NOW)
    assert isinstance(judged, Quarantine)
    assert judged.reason
    assert (judged.certificate_id, judged.thing, judged.record) == (VENDOR, "SN-1", None)


@pytest.mark.parametrize(
    ("why", "device", "presented"),
    [
        ("the device is revoked", replace(REVOKED, returning=(Returning(FIRST, 1), Returning(VENDOR, 1))), SHOWN),
        ("the serial has another", replace(COMPLETE, returning=(Returning(OTHER_VENDOR, 1),)), OTHER),
        ("the serial has another, and no certificate of ours", ABOARD, OTHER),
    ],
)
def test_a_vendor_certificate_out_of_place_is_turned_away_and_remembered(
    why: str, device: Device, presented: Presented
) -> None:
    judged = decide_registered(device, presented, NOW)
    assert isinstance(judged, Quarantine), why
    assert judged.reason
    assert (judged.certificate_id, judged.thing) == (presented.certificate_id, None), why
    kept = tuple(one for one in device.returning if one.certificate_id != presented.certificate_id)
    assert judged.record == replace(device, quarantined=(presented.certificate_id,), returning=kept), why


def test_only_the_latest_certificates_that_were_turned_away_are_remembered() -> None:
    full = replace(QUARANTINED, quarantined=tuple(f"{number}" for number in range(REMEMBERED)))
    judged = decide_registered(full, SHOWN, NOW)
    assert isinstance(judged, Quarantine)
    assert judged.reason
    assert judged.record
    assert judged.record.quarantined == (*full.quarantined[1:], VENDOR)


def test_a_vendor_certificate_that_has_served_its_purpose_is_quarantined_without_a_write() -> None:
    judged = decide_registered(COMPLETE, SHOWN, NOW)
    assert isinstance(judged, Quarantine)
    assert judged.reason
    assert (judged.certificate_id, judged.record, judged.thing) == (VENDOR, None, None)


def test_another_vendor_certificate_of_a_readmitted_device_takes_the_place_of_its_own() -> None:
    device = replace(
        READMITTED,
        quarantined=(OTHER_VENDOR, "x"),
        returning=(Returning(VENDOR, 5), Returning("x", 6)),
        retiring=(Retiring("y", 7),),
    )
    judged = decide_registered(device, OTHER, NOW)
    assert isinstance(judged, Save)
    assert judged.device == replace(
        device,
        vendor_certificate_id=OTHER_VENDOR,
        vendor_not_after=OTHER.not_after,
        quarantined=("x",),
        returning=(Returning("x", 6),),
        retiring=(Retiring("y", 7), Retiring(VENDOR, NOW, vendor=True)),
    )
    assert judged.entry
    assert (judged.entry.event, judged.entry.certificate_id) == ("registered", OTHER_VENDOR)


def test_its_own_that_comes_back_stays_among_what_is_returning() -> None:
    device = replace(ALLOWED, vendor_certificate_id=VENDOR, returning=(Returning(VENDOR, 5),))
    judged = decide_registered(device, SHOWN, NOW)
    assert isinstance(judged, Save)
    assert judged.device == replace(device, state=State.THING_CREATED, vendor_not_after=SHOWN.not_after)


# ---- who may ask for a certificate ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "device", "principal", "inspect"),
    [
        ("nothing is known of the serial", None, VENDOR, True),
        ("nobody allowed it", QUARANTINED, VENDOR, True),
        ("its registration may be news", ALLOWED, VENDOR, True),
        ("its vendor certificate is recorded", ABOARD, VENDOR, False),
        ("a stranger is refused without a look", COMPLETE, OTHER_VENDOR, False),
        ("a readmitted device may come with another one", READMITTED, OTHER_VENDOR, True),
        ("a readmitted device asks with its own", READMITTED, VENDOR, False),
        ("a readmitted device asks with its active one", READMITTED, FIRST, False),
        ("its readmission is over", replace(READMITTED, readmit_until=NOW), OTHER_VENDOR, False),
    ],
)
def test_a_principal_is_inspected_only_if_the_record_does_not_know_it(
    why: str, device: Device | None, principal: str, *, inspect: bool
) -> None:
    assert needs_inspection(device, principal, NOW) is inspect, why


@pytest.mark.parametrize(
    ("why", "device", "principal", "recovering"),
    [
        ("the vendor certificate asks for the first", ABOARD, VENDOR, False),
        ("and asks again", FIRST_ISSUED, VENDOR, False),
        ("the active one asks for the next", COMPLETE, FIRST, False),
        ("and asks again", ROTATING, FIRST, False),
        ("a readmitted device asks with its vendor certificate", READMITTED, VENDOR, True),
        ("one that has no certificate of ours does not recover", replace(ABOARD, readmit_until=NOW + 1), VENDOR, False),
        ("a readmitted device still has its active one", READMITTED, FIRST, False),
    ],
)
def test_the_present_certificate_may_ask_and_changes_nothing_by_that(
    why: str, device: Device, principal: str, *, recovering: bool
) -> None:
    judged = decide_create(device, "SN-1", principal, None, NOW)
    assert isinstance(judged, Admit), why
    assert judged.reason
    assert (judged.device, judged.recovering) == (device, recovering), why


@pytest.mark.parametrize(
    ("code", "why", "device", "principal"),
    [
        ("not-allowed", "nobody knows the serial", None, VENDOR),
        ("not-allowed", "it is quarantined", QUARANTINED, VENDOR),
        ("not-allowed", "it is revoked", REVOKED, VENDOR),
        ("wrong-principal", "it is allowed, and this is no vendor certificate", ALLOWED, FIRST),
        ("wrong-principal", "the vendor certificate has served its purpose", COMPLETE, VENDOR),
        ("wrong-principal", "the pending one is not proven", ROTATING, SECOND),
        ("wrong-principal", "the readmission is over", replace(READMITTED, readmit_until=NOW), VENDOR),
    ],
)
def test_nobody_else_may_ask(code: str, why: str, device: Device | None, principal: str) -> None:
    judged = decide_create(device, "SN-1", principal, None, NOW)
    assert isinstance(judged, Refuse), why
    assert judged.reason
    assert (judged.code, judged.retry_after_s) == (code, None), why


def test_a_request_that_overtakes_the_registration_is_admitted_and_records_the_vendor_certificate() -> None:
    judged = decide_create(ALLOWED, "SN-1", VENDOR, SHOWN, NOW)
    assert isinstance(judged, Admit)
    assert judged.reason
    assert (judged.device, judged.recovering) == (ABOARD, False)


def test_a_readmitted_device_is_admitted_with_another_vendor_certificate_and_recovers() -> None:
    judged = decide_create(READMITTED, "SN-1", OTHER_VENDOR, OTHER, NOW)
    assert isinstance(judged, Admit)
    assert judged.reason
    assert judged.recovering is True
    assert judged.device.vendor_certificate_id == OTHER_VENDOR
    assert judged.device.retiring == (Retiring(VENDOR, NOW, vendor=True),)


def test_an_inspection_that_was_not_needed_records_nothing_and_admits_nobody() -> None:
    judged = decide_create(ABOARD, "SN-1", VENDOR, SHOWN, NOW)
    assert isinstance(judged, Admit)
    assert judged.reason
    assert judged.device == ABOARD
    assert isinstance(decide_create(COMPLETE, "SN-1", VENDOR, SHOWN, NOW), Refuse)


@pytest.mark.parametrize("device", [None, QUARANTINED])
def test_a_vendor_certificate_of_a_serial_that_nobody_allowed_is_quarantined(device: Device | None) -> None:
    judged = decide_create(device, "SN-1", OTHER_VENDOR, OTHER, NOW)
    assert isinstance(judged, Quarantine)
    assert judged.reason
    assert (judged.certificate_id, judged.thing) == (OTHER_VENDOR, "SN-1")
    known = device or Device("SN-1", State.QUARANTINED, NEW)
    assert judged.record == replace(known, quarantined=(*known.quarantined, OTHER_VENDOR))


@pytest.mark.parametrize(
    ("why", "presented"),
    [
        ("another authority issued it", replace(SHOWN, by_vendor_ca=False)),
        ("it names another serial", replace(SHOWN, serial="SN-2")),
        ("it is out of service", replace(SHOWN, in_service=False)),
    ],
)
def test_a_certificate_that_does_not_speak_for_the_serial_is_refused_and_not_quarantined(
    why: str, presented: Presented
) -> None:
    assert isinstance(decide_create(None, "SN-1", VENDOR, presented, NOW), Refuse), why
    refused = decide_create(ALLOWED, "SN-1", VENDOR, presented, NOW)
    assert isinstance(refused, Refuse), why
    assert refused.code == "wrong-principal", why


def test_a_late_message_of_a_vendor_certificate_that_is_being_retired_is_refused() -> None:
    device = replace(READMITTED, retiring=(Retiring(OTHER_VENDOR, NOW, vendor=True),))
    refused = decide_create(device, "SN-1", OTHER_VENDOR, OTHER, NOW)
    assert isinstance(refused, Refuse)
    assert refused.code == "wrong-principal"


# ---- what is issued ------------------------------------------------------------------------------------------------


def test_the_same_key_gets_its_certificate_again_pending_or_active_but_no_other_key_does() -> None:
    assert reusable(ROTATING, PENDING.public_key, NOW) is PENDING
    assert reusable(ROTATING, ACTIVE.public_key, NOW) is ACTIVE
    assert reusable(ROTATING, "another", NOW) is None
    assert reusable(ABOARD, ACTIVE.public_key, NOW) is None


def test_a_certificate_in_the_last_third_of_its_life_is_not_handed_out_again() -> None:
    aging = replace(ACTIVE, issued_at=NOW - 200, not_after=NOW + 100)
    assert reusable(replace(COMPLETE, active=aging), aging.public_key, NOW) is None
    assert reusable(replace(COMPLETE, active=aging), aging.public_key, NOW - 1) is aging


def test_a_new_certificate_is_pending_and_the_active_one_stays() -> None:
    detail = f"for the key {PENDING.public_key[:16]}"
    assert with_pending(COMPLETE, PENDING, NOW) == Save(ROTATING, Entry("issued", detail, SECOND))
    assert with_pending(ABOARD, PENDING, NOW) == Save(FIRST_ISSUED, Entry("issued", detail, SECOND))


def test_a_new_certificate_supersedes_an_unproven_one_which_is_then_retired() -> None:
    third = replace(PENDING, certificate_id="third---" * 8, public_key="key-3---" * 8)
    superseded = Retiring(SECOND, NOW)
    detail = f"for the key {third.public_key[:16]}; {SECOND[:16]}, which was never proven, is retired"
    assert with_pending(ROTATING, third, NOW) == Save(
        replace(ROTATING, pending=third, retiring=(superseded,)), Entry("issued", detail, third.certificate_id)
    )


# ---- acknowledgement -----------------------------------------------------------------------------------------------


def test_an_acknowledgement_over_the_pending_certificate_makes_it_active_and_retires_the_previous() -> None:
    assert decide_ack(ROTATING, SECOND, SECOND, NOW) == Save(
        replace(COMPLETE, active=PENDING, retiring=(Retiring(FIRST, NOW),), last_seen=NOW),
        Entry("proven", f"the device has used it; {FIRST[:16]} is retired", SECOND),
    )


def test_the_first_certificate_retires_the_vendors() -> None:
    assert decide_ack(FIRST_ISSUED, SECOND, SECOND, NOW) == Save(
        replace(COMPLETE, active=PENDING, retiring=(Retiring(VENDOR, NOW, vendor=True),), last_seen=NOW),
        Entry("proven", f"the device has used it; {VENDOR[:16]} is retired", SECOND),
    )


def test_the_first_proof_after_a_readmission_ends_it_and_retires_the_vendor_certificate_too() -> None:
    device = replace(READMITTED, state=State.CERT_ISSUED, pending=PENDING, returning=(Returning("left", 5),))
    saved = decide_ack(device, SECOND, SECOND, NOW)
    assert isinstance(saved, Save)
    assert saved.device == replace(
        COMPLETE,
        active=PENDING,
        retiring=(Retiring(FIRST, NOW), Retiring(VENDOR, NOW, vendor=True)),
        quarantined=("left",),
        last_seen=NOW,
    )


@pytest.mark.parametrize(
    ("since", "kept"), [(PENDING.issued_at - 1, False), (PENDING.issued_at, False), (PENDING.issued_at + 1, True)]
)
def test_advice_is_followed_by_a_certificate_that_was_issued_after_it(since: int, *, kept: bool) -> None:
    advice = Renewal(NOW, NOW + HOUR, "drill", since)
    saved = decide_ack(replace(ROTATING, renew=advice), SECOND, SECOND, NOW)
    assert isinstance(saved, Save)
    assert saved.device.renew == (advice if kept else None)


@pytest.mark.parametrize("device", [COMPLETE, ROTATING])
def test_an_acknowledgement_that_is_heard_again_changes_nothing(device: Device) -> None:
    assert isinstance(decide_ack(device, FIRST, FIRST, NOW), Keep)


@pytest.mark.parametrize(
    ("code", "why", "device", "principal", "named"),
    [
        ("not-allowed", "nobody knows the serial", None, SECOND, SECOND),
        ("not-allowed", "it is quarantined", replace(ROTATING, state=State.QUARANTINED), SECOND, SECOND),
        ("not-allowed", "it is revoked", replace(ROTATING, state=State.REVOKED), SECOND, SECOND),
        ("wrong-principal", "it names another certificate", ROTATING, FIRST, SECOND),
        ("wrong-principal", "it comes over the vendor certificate", FIRST_ISSUED, VENDOR, VENDOR),
        ("wrong-principal", "the device does not have it", COMPLETE, SECOND, SECOND),
    ],
)
def test_an_acknowledgement_is_believed_only_over_the_certificate_it_names(
    code: str, why: str, device: Device | None, principal: str, named: str
) -> None:
    judged = decide_ack(device, principal, named, NOW)
    assert isinstance(judged, Refuse), why
    assert judged.reason
    assert judged.code == code, why


# ---- check-in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [COMPLETE, ROTATING])
def test_a_check_in_over_the_active_certificate_is_noted_without_a_line_of_history(device: Device) -> None:
    assert decide_check_in(device, FIRST, "{}", NOW) == Save(replace(device, last_seen=NOW, report="{}"))


@pytest.mark.parametrize(
    ("code", "device", "principal"),
    [
        ("not-allowed", None, FIRST),
        ("not-allowed", replace(COMPLETE, state=State.REVOKED), FIRST),
        ("not-allowed", replace(COMPLETE, state=State.QUARANTINED), FIRST),
        ("wrong-principal", COMPLETE, VENDOR),
        ("wrong-principal", ROTATING, SECOND),
        ("wrong-principal", FIRST_ISSUED, SECOND),
    ],
)
def test_a_check_in_over_any_other_certificate_is_refused(code: str, device: Device | None, principal: str) -> None:
    judged = decide_check_in(device, principal, "{}", NOW)
    assert isinstance(judged, Refuse)
    assert judged.reason
    assert judged.code == code


# ---- what is to be finished ----------------------------------------------------------------------------------------

SETTLED, RECENT = NOW - SETTLE_MS, NOW - SETTLE_MS + 1


def test_what_is_retired_leaves_the_record_once_it_has_settled() -> None:
    device = replace(COMPLETE, retiring=(Retiring(SECOND, SETTLED), Retiring(VENDOR, SETTLED), Retiring("r", RECENT)))
    assert finished(device, (), NOW) == Save(
        replace(COMPLETE, retiring=(Retiring("r", RECENT),)), Entry("retired", f"{SECOND[:16]}, {VENDOR[:16]}")
    )


def test_what_is_too_recent_stays_on_the_record_without_a_write() -> None:
    device = replace(COMPLETE, retiring=(Retiring("r", RECENT),), returning=(Returning("s", RECENT),))
    assert isinstance(finished(device, (), NOW), Keep)


def test_what_has_returned_leaves_the_record_without_a_line_of_history() -> None:
    device = replace(COMPLETE, returning=(Returning("s", SETTLED), Returning("t", RECENT)))
    assert finished(device, (), NOW) == Save(replace(COMPLETE, returning=(Returning("t", RECENT),)))


def test_what_is_shut_out_is_looked_after_for_as_long_again() -> None:
    device = replace(COMPLETE, returning=(Returning("s", SETTLED), Returning("t", RECENT)))
    assert finished(device, ["s"], NOW) == Save(
        replace(COMPLETE, returning=(Returning("s", NOW), Returning("t", RECENT)))
    )


def test_each_certificate_is_returning_once_from_now_on() -> None:
    assert to_return(["b", "a", "b"], NOW) == (Returning("b", NOW), Returning("a", NOW))


def test_what_returns_no_more_is_remembered_once_for_the_next_order_except_the_vendors_own() -> None:
    device = replace(ABOARD, quarantined=("a",), returning=(Returning(VENDOR, 1), Returning("a", 2), Returning("b", 3)))
    assert none_returning(device) == replace(device, quarantined=("a", "b"), returning=())
    full = replace(device, quarantined=tuple(f"{number}" for number in range(REMEMBERED)))
    assert none_returning(full).quarantined == (*full.quarantined[2:], "a", "b")


def test_a_certificate_is_to_be_retired_once_and_marked_if_it_is_the_vendors() -> None:
    assert to_retire(ABOARD, None, NOW) == ()
    assert to_retire(ABOARD, VENDOR, NOW) == (Retiring(VENDOR, NOW, vendor=True),)
    leaving = replace(ABOARD, retiring=(Retiring(FIRST, 5),))
    assert to_retire(leaving, FIRST, NOW) == leaving.retiring
    assert to_retire(leaving, SECOND, NOW) == (Retiring(FIRST, 5), Retiring(SECOND, NOW))


# ---- what a record answers -----------------------------------------------------------------------------------------


def test_the_present_certificate_is_the_active_one_before_there_is_one_the_vendors() -> None:
    assert (ABOARD.present_certificate_id, ABOARD.present_not_after) == (VENDOR, NOW + 900 * HOUR)
    assert (ROTATING.present_certificate_id, ROTATING.present_not_after) == (FIRST, ACTIVE.not_after)


def test_a_record_knows_every_certificate_whatever_it_is_to_the_device() -> None:
    device = replace(ROTATING, retiring=(Retiring("r", 1),), returning=(Returning("s", 1),), quarantined=("q",))
    assert [one for one in (VENDOR, FIRST, SECOND, "r", "s", "q", "stranger") if device.knows(one)] == [
        VENDOR, FIRST, SECOND, "r", "s", "q",
    ]  # fmt: skip
    assert [one for one in (VENDOR, FIRST, SECOND, "r", "s", "q") if device.holds(one)] == [FIRST, SECOND]


def test_what_only_an_operator_ends_cannot_be_moved_by_a_message() -> None:
    assert {state for state, _ in lifecycle.TRANSITIONS}.isdisjoint(lifecycle.OUTSIDE)


def test_what_is_left_of_a_removed_device_is_deleted_when_it_has_settled_and_no_sooner() -> None:
    leaving = (Retiring("r", NOW), Retiring("v", NOW, vendor=True))
    gone = Device("SN-1", State.REVOKED, 3, retiring=leaving, quarantined=("q", "v"), removing=NOW)
    assert not lifecycle.removable(gone, NOW + lifecycle.SETTLE_MS - 1)
    assert lifecycle.removable(gone, NOW + lifecycle.SETTLE_MS)
    assert not lifecycle.removable(replace(gone, removing=None), NOW + lifecycle.SETTLE_MS)
    assert lifecycle.left_of(gone) == ("r", "v", "q")
    later = NOW + lifecycle.SETTLE_MS
    assert isinstance(lifecycle.finished(gone, [], later), Keep), "they are deleted together, at the end"
