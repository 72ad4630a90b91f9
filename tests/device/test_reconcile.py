"""What the disk holds outranks what the record remembers, and what a lost record is made of again."""

from dataclasses import replace

import pytest

from iot_agent.core import reconcile as room
from iot_agent.core.lifecycle import MOST_UNCONFIRMED, ApplyContext, decide
from iot_agent.core.reconcile import OnDisk, rebuild, reconcile
from iot_agent.core.record import Certificate, Event, Identity, Kind, Pending, Record, State
from iot_agent.core.schedule import Policy

NOW = 1_790_000_000
POLICY = Policy(minimum_interval=100)
CONTEXT = ApplyContext(NOW, POLICY, 0.5)


def identity(label: str, start: int = NOW - 100, renew_at: int = NOW + 500) -> Identity:
    return Identity(label, Certificate(f"{len(label)}{label:x>63}", start, start + 10_000, renew_at))


def disk(*complete: Identity, orphans: tuple[str, ...] = (), current: str | None = None) -> OnDisk:
    return OnDisk(complete, frozenset(orphans), current)


ACTIVE = identity("active")
ACKED = Record("SN-1", State.ACKED, active=ACTIVE, check_in_at=NOW + 50)


def test_a_record_that_is_not_behind_is_left_alone() -> None:
    assert reconcile(ACKED, disk(ACTIVE, current="active"), CONTEXT) == ACKED


@pytest.mark.parametrize("generated", [False, True])
def test_a_certificate_that_is_stored_for_the_pending_key_is_not_asked_for_again(*, generated: bool) -> None:
    behind = replace(ACKED, pending=Pending("next", "r", generated=generated))
    found = reconcile(behind, disk(ACTIVE, identity("next", renew_at=0)), CONTEXT)
    assert found.state is State.ROTATED
    assert found.pending is not None
    assert found.pending.certificate is not None
    assert found.pending.certificate.renew_at > NOW, "its renewal instant is drawn now: it was stored before that"
    assert decide(found, NOW, POLICY, 0).kind is Kind.PROVE


def test_a_stored_certificate_is_taken_up_with_its_instant_and_what_failed_before_it_is_over() -> None:
    behind = replace(
        ACKED, pending=Pending("next", "r", refusals=1), proof_failures=3, problem="refused", failures=4, fallbacks=5
    )
    stored = identity("next")
    found = reconcile(behind, disk(ACTIVE, identity("x"), stored), CONTEXT)
    assert found == replace(
        behind,
        state=State.ROTATED,
        pending=Pending("next", "r", generated=True, certificate=stored.certificate, refusals=1),
        proof_failures=0,
        problem="",
        failures=0,
        fallbacks=0,
        unconfirmed=(identity("x"),),
        history=tuple(Event(NOW, "found-on-disk", one.certificate.certificate_id) for one in (stored, identity("x"))),
    )


def test_a_certificate_that_is_known_already_is_not_taken_up_again() -> None:
    certificate = identity("next", renew_at=NOW + 7).certificate
    proving = replace(ACKED, state=State.ROTATED, pending=Pending("next", "r", generated=True, certificate=certificate))
    assert reconcile(proving, disk(ACTIVE, identity("next")), CONTEXT) == proving
    waiting = replace(proving, state=State.ACKED)
    assert reconcile(waiting, disk(ACTIVE, identity("next")), CONTEXT) == waiting
    asked = Record("SN-1", State.UNPROVISIONED, pending=Pending("next", "r"))
    assert reconcile(asked, disk(identity("next")), CONTEXT) == asked


def test_a_key_without_a_stored_certificate_stays_pending() -> None:
    waiting = replace(ACKED, pending=Pending("next", "r"))
    assert reconcile(waiting, disk(ACTIVE), CONTEXT) == waiting


@pytest.mark.parametrize("already", range(MOST_UNCONFIRMED + 1))
def test_as_many_unknown_ones_are_kept_as_there_is_room_for(already: int) -> None:
    known = tuple(identity(f"known{number}", NOW - 1000 - number) for number in reversed(range(already)))
    unknown = [identity(f"i{number}", NOW - number) for number in range(3)]
    found = reconcile(replace(ACKED, unconfirmed=known), disk(ACTIVE, *known, *unknown), CONTEXT)
    room = MOST_UNCONFIRMED - already
    assert found.unconfirmed == (*known, *reversed(unknown[:room]))


def test_an_unknown_one_gets_its_renewal_instant_if_it_has_none() -> None:
    found = reconcile(ACKED, disk(ACTIVE, identity("new", renew_at=0), identity("old", renew_at=5)), CONTEXT)
    instants = {one.label: one.certificate.renew_at for one in found.unconfirmed}
    assert instants == {"old": 5, "new": NOW - 100 + int(10_000 * (2 / 3 + 0.05))}


def test_an_identity_that_the_record_does_not_know_is_kept_and_gets_its_turn() -> None:
    found = reconcile(ACKED, disk(ACTIVE, identity("new", NOW), identity("old", NOW - 900)), CONTEXT)
    assert [one.label for one in found.unconfirmed] == ["old", "new"]
    assert found.to_delete == ()
    assert reconcile(found, disk(ACTIVE, *found.unconfirmed), CONTEXT) == found


def test_of_very_many_unknown_ones_the_newest_are_kept_and_none_is_removed() -> None:
    many = [identity(f"i{number}", NOW - number) for number in range(20)]
    found = reconcile(ACKED, disk(ACTIVE, *many), CONTEXT)
    assert [one.label for one in found.unconfirmed] == [f"i{number}" for number in reversed(range(MOST_UNCONFIRMED))]
    assert found.to_delete == ()


def test_what_a_crash_has_left_is_removed_and_what_is_to_be_deleted_stays_so() -> None:
    gone = identity("gone")
    behind = replace(ACKED, to_delete=("gone",), pending=Pending("next", "r"))
    found = reconcile(behind, disk(ACTIVE, gone, orphans=("half", "next")), CONTEXT)
    assert found.to_delete == ("gone", "half")
    assert found.unconfirmed == ()


def test_an_active_identity_that_is_not_complete_is_looked_at_now() -> None:
    found = reconcile(ACKED, disk(), CONTEXT)
    assert found == replace(ACKED, check_in_at=0), "it may be readable again later"
    assert decide(found, NOW, POLICY, 0).kind is Kind.CHECK_IN


@pytest.mark.parametrize(("current", "active"), [("old", "old"), (None, "new"), ("nowhere", "new")])
def test_a_lost_record_is_made_of_what_is_on_the_disk(current: str | None, active: str) -> None:
    """`zz` has the youngest label, by a device's clock that was ahead; the cloud's clock says otherwise."""
    on_disk = disk(identity("zz", NOW - 900), identity("new", NOW), identity("old", NOW - 500), current=current)
    made = reconcile(rebuild("SN-1", on_disk), on_disk, CONTEXT)
    assert (made.state, made.active and made.active.label) == (State.ACKED, active)
    assert {one.label for one in made.unconfirmed} == {"zz", "new", "old"} - {active}
    assert made.to_delete == ()


def test_without_any_identity_a_lost_record_is_a_new_one() -> None:
    assert rebuild("SN-1", disk()) == Record("SN-1")


def test_a_rebuilt_identity_is_not_renewed_at_once() -> None:
    on_disk = disk(identity("only", renew_at=0))
    made = reconcile(rebuild("SN-1", on_disk), on_disk, CONTEXT)
    assert decide(replace(made, check_in_at=NOW + 10), NOW, POLICY, 0).kind is Kind.WAIT


def test_bug_planted_a_record_that_outranks_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_keep_unknown", lambda record, *_: record)
    with pytest.raises(AssertionError):
        test_an_identity_that_the_record_does_not_know_is_kept_and_gets_its_turn()
