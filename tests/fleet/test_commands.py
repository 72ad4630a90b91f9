"""Each command, as typed: what it does, what it says, and what it leaves alone."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

import iot_agent
from cloud.common.errors import SetupError
from cloud.rotation import devices
from cloud.rotation.operator_rules import OrderError
from cloud.rotation.record import State
from cloud.setup import stack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.conftest import Fleet

DAY = 24 * 3600 * 1000
CHANGING = ["allow SN-7", "rotate SN-1", "readmit SN-1", "revoke SN-1 --yes", "remove SN-1 --yes"]


def everything(fleet: Fleet) -> tuple[object, ...]:
    """Return all that a command could have changed."""
    serials = [device.serial for device in fleet.bench.devices.scan()]
    lines = [line for serial in serials for line in fleet.bench.devices.history(serial)]
    return list(fleet.bench.devices.scan()), lines, fleet.bench.issued(), fleet.bench.all_things()


def test_allow_brings_a_serial_onto_the_list_once(fleet: Fleet) -> None:
    said = fleet("allow SN-7 SN-8 SN-7")
    assert (said.status, said.out.count("allowed")) == (0, 2)
    assert fleet.bench.device("SN-7").state is State.ALLOWED
    assert "known already" in fleet("allow SN-7").out


def test_allow_takes_a_list_and_does_nothing_while_a_line_is_wrong(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("serial,site\nSN-7,a\nSN 8,b\n")
    said = fleet(f"allow --from {tmp_path / 'list'}")
    assert (said.status, "line 3" in said.err) == (1, True)
    assert fleet.bench.devices.get("SN-7") is None
    (tmp_path / "list").write_text("serial,site\nSN-7,a\nSN-8,b\n")
    assert fleet(f"allow --from {tmp_path / 'list'}").status == 0
    assert fleet.bench.device("SN-8").state is State.ALLOWED


def test_what_came_too_early_is_listed_and_may_then_register_again(fleet: Fleet) -> None:
    early = fleet.bench.vendor("SN-7")
    fleet.bench.deliver(fleet.bench.registered_event(early))
    (row,) = fleet("list --state quarantined --json").rows
    assert (row["serial"], row["quarantined_certificate_ids"]) == ("SN-7", [early])
    assert fleet("allow SN-7").status == 0
    fleet.bench.vendor_again(early, "SN-7")
    assert "pem" in fleet.bench.create(early, 3, "SN-7")


@pytest.mark.parametrize("line", CHANGING)
def test_a_dry_run_says_the_same_and_changes_nothing(fleet: Fleet, line: str) -> None:
    fleet.aboard()
    before = everything(fleet)
    dry = fleet(f"{line} --dry-run")
    assert everything(fleet) == before
    assert (dry.status, "would be" in dry.out) == (0, True)
    assert fleet(line).out == dry.out.replace("would be ", "")
    assert everything(fleet) != before


@pytest.mark.parametrize("line", CHANGING)
def test_every_change_is_told_to_a_program_too_and_is_in_the_history_with_its_author(fleet: Fleet, line: str) -> None:
    fleet.aboard()
    (told,) = fleet(f"{line} --json").rows
    assert told["done"]
    last = list(fleet.bench.devices.history(told["serial"]))[-1].entry
    assert (last.event, last.detail) == (told["event"], told["detail"])
    assert "arn:aws:" in str(last.by)


def test_rotate_is_heard_by_the_device_and_forgotten_once_it_has_renewed(fleet: Fleet) -> None:
    first = fleet.aboard()
    fleet.bench.now += DAY
    assert fleet("rotate SN-1 --over 1h --reason new-CA").status == 0
    advice = fleet.check_in(first)["renew"]
    assert fleet.bench.now <= advice["start"] < advice["end"] <= fleet.bench.now + 3_600_000
    assert advice["reason"] == "new-CA"
    second = fleet.bench.create(first, 2)["cert_id"]
    fleet.bench.ack(second)
    assert fleet.check_in(second).get("renew") is None


def test_rotate_all_advises_those_with_a_certificate_and_an_issuer_those_of_its_own(fleet: Fleet) -> None:
    fleet.aboard()
    fleet("allow SN-7")
    assert [row["serial"] for row in fleet("rotate --all --json").rows] == ["SN-1"]
    assert [row["serial"] for row in fleet("rotate --issuer 'manufacturer CA' --json").rows] == ["SN-1"]


def test_an_issuer_that_nobody_has_a_certificate_of_is_told_the_names_there_are(fleet: Fleet) -> None:
    fleet.aboard()
    said = fleet("rotate --issuer manufacturer --json")
    assert (said.status, said.out) == (1, "")
    assert 'no device has a certificate of a CA named "manufacturer"' in said.err
    assert 'issued by "manufacturer CA"' in said.err
    assert fleet.bench.device().renew is None
    said = fleet("list --issuer manufacturer --json")
    assert (said.status, said.out) == (0, "")
    assert 'issued by "manufacturer CA"' in said.err
    assert "issued by" not in fleet("list --issuer 'manufacturer CA'").err


def test_with_no_certificate_at_all_no_issuer_is_named(fleet: Fleet) -> None:
    said = fleet("rotate --issuer 'manufacturer CA'")
    assert (said.status, "no device has a certificate" in said.err) == (1, True)


def test_rotate_refuses_what_would_meet_the_limits_of_aws(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.aboard()
    monkeypatch.setattr("cloud.fleet.rollout.MOST_PER_SECOND", 0.001)
    said = fleet("rotate --all --over 10s")
    assert said.status == 1
    assert "--over 1h" in said.err
    assert fleet.bench.device().renew is None


@pytest.mark.parametrize("line", ["rotate", "rotate SN-1 --all", "allow", "rotate --from nowhere"])
def test_a_command_that_does_not_say_which_devices_is_refused(fleet: Fleet, line: str) -> None:
    said = fleet(line)
    assert said.status == 1
    assert "what to do:" in said.err or "no devices are given" in said.err


def test_an_expired_device_is_readmitted_and_the_door_closes_again(fleet: Fleet) -> None:
    first = fleet.aboard()
    vendor = str(fleet.bench.device().vendor_certificate_id)
    fleet.bench.now += 91 * DAY
    (row,) = fleet("list --overdue --json").rows
    assert "EXPIRED: readmit the device" in row["notes"]
    assert fleet("readmit SN-1 --for 2h").status == 0
    fleet.bench.vendor_again(vendor)
    second = fleet.bench.create(vendor, 2)["cert_id"]
    fleet.bench.ack(second)
    fleet.bench.check_settled()
    assert fleet.bench.device().readmit_until is None
    assert fleet.bench.status(first) == "gone"


def test_a_revoked_device_has_nothing_that_is_accepted(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = fleet.aboard()
    vendor = str(fleet.bench.device().vendor_certificate_id)
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    assert fleet("revoke SN-1").status == 1
    assert fleet.bench.status(certificate) == "ACTIVE"
    monkeypatch.setattr("builtins.input", lambda _question: "y")
    assert fleet("revoke SN-1").status == 0
    assert fleet.bench.status(certificate) == "gone"
    assert fleet.bench.create(certificate, 2)["error"]["code"] == "not-allowed"
    assert fleet("readmit SN-1").status == 0
    vendor = fleet.bench.vendor_again(vendor)
    fleet.bench.ack(fleet.bench.create(vendor, 2)["cert_id"])
    fleet.bench.check_settled()


def test_one_that_fails_keeps_no_other_from_it(fleet: Fleet) -> None:
    fleet.aboard("SN-1", 1)
    fleet.aboard("SN-2", 2)
    said = fleet("rotate SN-1 SN-404 SN-2 --json")
    assert said.status == 1
    assert [row["done"] for row in said.rows] == [True, False, True]
    assert "has no record" in said.rows[1]["error"]


def test_a_write_that_lost_a_race_is_decided_again(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = fleet.aboard()
    honest = devices.Devices.save
    raced: list[bool] = []

    def save(self: devices.Devices, *arguments: object) -> None:
        if not raced:
            raced.append(True)
            fleet.check_in(certificate)  # which writes the record in between
        honest(self, *arguments)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(devices.Devices, "save", save)
    assert fleet("rotate SN-1").status == 0
    device = fleet.bench.device()
    assert device.renew is not None
    assert device.report is not None


def test_list_reads_page_after_page(fleet: Fleet) -> None:
    fleet.aboard()
    item = fleet.bench.table.get_item(Key={"serial": "SN-1"})["Item"]
    with fleet.bench.table.batch_writer() as batch:
        for number in range(600):
            batch.put_item(Item={**item, "serial": f"MANY-{number:03d}", "report": "x" * 4000})
    assert len(fleet.bench.table.scan()["Items"]) < 601, "moto gave all in one page: this would show nothing"
    assert len(fleet("list --json").rows) == 601
    assert len(fleet("list --prefix MANY-00 --json").rows) == 10
    lines = fleet("list --limit 7").out.splitlines()
    assert len(lines) == 8
    assert fleet("forecast --json").json["devices"] == 601


def test_list_for_a_person_names_state_expiry_and_last_contact(fleet: Fleet) -> None:
    fleet.aboard()
    fleet.bench.now += 2 * DAY
    heading, line = fleet("list").out.splitlines()
    assert re.split(" {2,}", heading) == ["SERIAL", "STATE", "EXPIRES (UTC)", "EXPIRES IN", "LAST SEEN", "NOTES"]
    assert line.split()[:2] == ["SN-1", "ROTATION_COMPLETE"]
    assert "in 87 d" in line
    assert "2 d ago" in line


def test_show_tells_the_whole_story_and_that_all_agrees(fleet: Fleet) -> None:
    certificate = fleet.aboard()
    said = fleet("show SN-1")
    assert said.status == 0
    assert "The record and IoT Core agree." in said.out
    events = [line["event"] for line in fleet("show SN-1 --json").json["history"]]
    assert events == ["allowed", "registered", "issued", "proven"]
    assert f"{certificate[:16]}  active    ACTIVE" in said.out
    assert "TIME (UTC)" in said.out


def test_times_in_json_are_also_written_as_iso_8601(fleet: Fleet) -> None:
    fleet.aboard()
    (row,) = fleet("list --json").rows
    assert row["readmit_until"] is row["readmit_until_iso"] is None
    assert round(datetime.fromisoformat(row["expires_at_iso"]).timestamp() * 1000) == row["expires_at"]
    line = fleet("show SN-1 --json").json["history"][0]
    assert round(datetime.fromisoformat(line["at_iso"]).timestamp() * 1000) == line["at"]


@pytest.mark.parametrize("place", [".", "missing/fleet.html"])
def test_a_page_that_cannot_be_written_is_refused_before_the_table_is_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cloud.fleet.read_commands.reach", None)
    said = fleet(f"forecast --html {place}")
    assert said.status == 1
    assert "cannot write" in said.err


@pytest.mark.parametrize("problem", ["inactive", "unregistered", "without its policy", "without its thing", "orphan"])
def test_show_finds_what_does_not_agree_and_says_what_to_do(fleet: Fleet, problem: str) -> None:
    certificate, iot = fleet.aboard(), fleet.bench.iot
    arn = fleet.bench.described(certificate)["certificateArn"]
    match problem:
        case "inactive":
            iot.update_certificate(certificateId=certificate, newStatus="INACTIVE")
        case "unregistered":
            iot.detach_thing_principal(thingName="SN-1", principal=arn)
            for policy in ("device", "application"):
                iot.detach_policy(policyName=policy, target=arn)
            iot.update_certificate(certificateId=certificate, newStatus="INACTIVE")
            iot.delete_certificate(certificateId=certificate)
        case "without its policy":
            iot.detach_policy(policyName="application", target=arn)
        case "without its thing":
            iot.detach_thing_principal(thingName="SN-1", principal=arn)
        case _:
            stray = fleet.bench.connect_vendor("SN-1", "stray")
            iot.attach_thing_principal(thingName="SN-1", principal=fleet.bench.described(stray)["certificateArn"])
    said = fleet("show SN-1")
    assert said.status == 1
    assert "agree" not in said.out
    assert said.out.count("what to do:") == 1
    (finding,) = fleet("show SN-1 --json").json["findings"]
    if problem == "orphan":  # it may be all that the device has: deleting it would leave it outside
        assert finding["remedy"].startswith("deactivate it; then readmit the device if it has no other certificate")


def test_show_of_a_vendor_certificate_that_came_back_is_a_finding(fleet: Fleet) -> None:
    fleet.aboard()
    vendor = str(fleet.bench.device().vendor_certificate_id)
    fleet.bench.now += DAY
    fleet.bench.sweep()
    assert fleet("show SN-1").status == 0
    fleet.bench.iot.update_certificate(certificateId=vendor, newStatus="ACTIVE")
    assert "out of service in the record, but ACTIVE" in fleet("show SN-1").out


def test_forecast_writes_a_page_of_its_own(fleet: Fleet, tmp_path: Path) -> None:
    fleet.aboard()
    assert fleet(f"forecast --html {tmp_path / 'fleet.html'}").status == 0
    page = (tmp_path / "fleet.html").read_text()
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


@pytest.mark.parametrize(
    "line", ["forecast --html nowhere/x", "forecast --html .", "allow --from .", "rotate --from ."]
)
def test_a_file_that_cannot_be_used_is_named(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = fleet(line)
    assert said.status == 1
    assert line.rsplit(" ", 1)[1] in said.err
    assert "what to do:" in said.err


def test_an_order_that_makes_no_sense_is_told_with_its_device(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OrderError("it is revoked: readmit it instead")

    monkeypatch.setattr("cloud.rotation.operator_rules.allow", refuse)
    said = fleet("allow SN-7")
    assert (said.status, "SN-7: it is revoked: readmit it instead" in said.err) == (1, True)


@pytest.mark.parametrize(
    ("line", "status"), [("list --state bogus", 2), ("", 2), ("show SN-404", 1), ("show ../x", 2), ("--help", 0)]
)
def test_what_is_wrong_is_said_with_an_exit_status(fleet: Fleet, line: str, status: int) -> None:
    said = fleet(line)
    assert said.status == status
    assert said.err or not status


@pytest.mark.parametrize("command", ["list", "show", "forecast", "allow", "rotate", "readmit", "revoke", "remove"])
def test_every_command_has_help(fleet: Fleet, command: str) -> None:
    said = fleet(f"{command} --help")
    assert said.status == 0
    assert "Exit status:" in said.out
    assert "--json" in said.out


def test_a_stack_that_is_not_there_is_named(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack.Stack, "outputs", lambda _self: {})
    said = fleet("list --stack other")
    assert (said.status, "stack other is not deployed" in said.err) == (1, True)


def test_a_reason_reaches_the_person(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object) -> dict[str, str]:
        raise SetupError("the sky is falling", "take cover")

    monkeypatch.setattr(stack.Stack, "outputs", fail)
    said = fleet("list")
    assert said.err == "iot-fleet: the sky is falling\n  what to do: take cover\n"


def test_a_record_that_begins_anew_writes_over_no_history(fleet: Fleet) -> None:
    fleet.aboard()
    before = list(fleet.bench.devices.history("SN-1"))
    fleet.bench.table.delete_item(Key={"serial": "SN-1"})
    fleet.bench.now += DAY
    fleet("allow SN-1")
    history = list(fleet.bench.devices.history("SN-1"))
    assert history[: len(before)] == before
    assert [line.entry.event for line in history[len(before) :]] == ["allowed"]


def test_the_open_door_of_a_readmission_is_no_finding(fleet: Fleet) -> None:
    fleet.aboard()
    assert fleet("revoke SN-1 --yes").status == 0
    assert fleet("readmit SN-1").status == 0
    assert fleet("show SN-1").status == 0


def test_a_long_history_is_shown_from_its_end(fleet: Fleet) -> None:
    fleet.aboard()
    for number in range(30):
        fleet(f"rotate SN-1 --reason number-{number}")
    said = fleet("show SN-1").out
    assert "History (the last 20 lines; 14 earlier ones: --history 0)" in said
    assert (said.count("advised"), "number-29" in said) == (20, True)
    assert fleet("show SN-1 --history 0").out.count("advised") == 30
    assert len(fleet("show SN-1 --json").json["history"]) == 34
    assert fleet("show SN-1 --history some").status == 2


def test_list_in_json_has_report_version_issuer_and_window(fleet: Fleet) -> None:
    certificate = fleet.aboard()
    fleet.check_in(certificate)
    fleet("rotate SN-1 --over 1h --reason drill")
    (row,) = fleet("list --json").rows
    assert (row["report"], row["agent_version"]) == ({"version": "1"}, "1")
    assert row["issuer"] == "manufacturer CA"
    assert row["renew"]["reason"] == "drill"
    assert round(datetime.fromisoformat(row["renew"]["end_iso"]).timestamp() * 1000) == row["renew"]["end"]


def test_rotate_names_the_window_and_a_dry_run_sums_up(fleet: Fleet) -> None:
    fleet.aboard("SN-1", 1)
    fleet.aboard("SN-2", 2)
    said = fleet("rotate --all --over 7d --start 2027-01-31T08:00 --dry-run")
    assert re.search(r"SN-1  would be advised: to renew between 2027-\d\d-\d\d \d\d:\d\d UTC and 2027-", said.out)
    assert "2 would be advised; this was a dry run: nothing was changed" in said.err
    assert "2 advised\n" in fleet("rotate --all").err
    assert "1 allowed, 1 unchanged" in fleet("allow SN-1 SN-9").err
    (row, _) = fleet("rotate --all --json").rows
    assert row["renew"]["start"] < row["renew"]["end"]


def test_a_bar_never_shares_the_terminal_with_results(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    serials = " ".join(f"SN-{number}" for number in range(30))
    assert "30 devices in" in fleet(f"allow {serials}").err
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    said = fleet(f"revoke --yes {serials}")
    assert (said.out.count("\n"), said.err) == (30, "iot-fleet: 30 revoked\n")


def test_the_version_is_that_of_the_agent(fleet: Fleet) -> None:
    assert fleet("--version").out == f"iot-fleet {iot_agent.__version__}\n"
