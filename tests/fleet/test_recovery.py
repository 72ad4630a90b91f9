"""Orders that let a device start again: at an awkward moment, once more, and with every vendor certificate it has."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cloud.rotation import devices
from cloud.rotation.lifecycle import SETTLE_MS
from cloud.rotation.record import State
from tests.cloud.lambda_bench import before_each_call
from tests.cloud.scenarios import Killed

if TYPE_CHECKING:
    from tests.cloud.lambda_bench import Bench
    from tests.fleet.conftest import Fleet

DAY = 24 * 3600 * 1000


def comes(bench: Bench, vendor: str, number: int = 7) -> None:
    """Have a device connect with a vendor certificate that is not registered, and go all the way."""
    bench.vendor_again(vendor)
    goes_on(bench, vendor, number)


def goes_on(bench: Bench, vendor: str, number: int = 7) -> None:
    made = bench.create(vendor, number)
    assert "cert_id" in made, made
    bench.ack(made["cert_id"])
    bench.check_settled()
    assert bench.device().readmit_until is None


def expired(fleet: Fleet) -> str:
    """Bring a device aboard and let its certificate expire; return the id of its vendor certificate."""
    fleet.aboard()
    fleet.bench.now += 91 * DAY
    return str(fleet.bench.device().vendor_certificate_id)


@pytest.mark.parametrize("how", ["expired", "revoked"])
def test_a_new_bundle_that_came_before_the_readmission_is_let_in_by_it(fleet: Fleet, how: str) -> None:
    expired(fleet) if how == "expired" else fleet.aboard()
    if how == "revoked":
        fleet("revoke SN-1 --yes")
    new = fleet.bench.vendor("SN-1")
    fleet.bench.deliver(fleet.bench.registered_event(new))
    assert fleet.bench.status(new) == "INACTIVE"
    assert fleet("readmit SN-1").status == 0
    comes(fleet.bench, new)


def test_several_that_came_too_early_are_all_let_in_by_one_order(fleet: Fleet) -> None:
    early = [fleet.bench.vendor("SN-7") for _ in range(2)]
    for vendor in early:
        fleet.bench.deliver(fleet.bench.registered_event(vendor))
    assert fleet("allow SN-7").status == 0
    assert [fleet.bench.status(vendor) for vendor in early] == ["gone", "gone"]


@pytest.mark.parametrize("order", ["allow", "readmit"])
@pytest.mark.parametrize("operation", ["UpdateItem", "TransactWriteItems", "DeleteCertificate", "DescribeCertificate"])
def test_an_order_that_was_stopped_is_finished_by_the_same_order(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, order: str, operation: str
) -> None:
    if order == "allow":
        vendor, line = fleet.bench.vendor("SN-1"), "allow SN-1"
        fleet.bench.table.delete_item(Key={"serial": "SN-1"})
        fleet.bench.deliver(fleet.bench.registered_event(vendor))
    else:
        vendor, line = expired(fleet), "readmit SN-1"

    def stop(_number: int, called: str) -> None:
        if called == operation:
            raise Killed

    with before_each_call(monkeypatch, stop), suppress(Killed):
        fleet(line)
    assert fleet(line).status == 0
    comes(fleet.bench, vendor)


def test_a_certificate_that_an_order_was_to_let_in_is_not_forgotten_by_the_next_order(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = fleet.bench.vendor("SN-7")
    fleet.bench.deliver(fleet.bench.registered_event(vendor))

    def stop(_number: int, called: str) -> None:
        if called == "DescribeCertificate":
            raise Killed

    with before_each_call(monkeypatch, stop), suppress(Killed):
        fleet("allow SN-7")
    assert fleet("revoke SN-7 --yes").status == 0
    assert fleet.bench.status(vendor) == "INACTIVE"
    assert fleet("readmit SN-7").status == 0
    assert fleet.bench.status(vendor) == "gone", "it can never register again"


def test_a_device_that_comes_back_before_the_record_is_written_is_let_in_by_the_same_order(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.aboard()
    vendor = str(fleet.bench.device().vendor_certificate_id)
    fleet("revoke SN-1 --yes")
    honest = devices.Devices.save
    came: list[bool] = []

    def save(self: devices.Devices, *arguments: object) -> None:
        if not came:
            came.append(True)
            if fleet.bench.status(vendor) == "gone":
                fleet.bench.vendor_again(vendor)
        honest(self, *arguments)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(devices.Devices, "save", save)
    assert fleet("readmit SN-1").status == 0
    assert fleet("readmit SN-1").status == 0
    if fleet.bench.status(vendor) == "gone":
        fleet.bench.vendor_again(vendor)
    goes_on(fleet.bench, vendor)


def test_a_late_request_of_a_retired_vendor_certificate_does_not_put_out_the_one_in_service(fleet: Fleet) -> None:
    first = expired(fleet)
    fleet("readmit SN-1")
    fleet.bench.vendor_again(first)
    second = fleet.bench.vendor("SN-1")
    fleet.bench.deliver(fleet.bench.registered_event(second))
    assert fleet.bench.device().vendor_certificate_id == second
    assert fleet.bench.create(first, 5)["error"]["code"] == "wrong-principal"
    assert fleet.bench.status(second) == "ACTIVE"
    goes_on(fleet.bench, second)


def test_the_sweeper_keeps_what_a_restored_device_has_got(fleet: Fleet) -> None:
    fleet.aboard()
    vendor = str(fleet.bench.device().vendor_certificate_id)
    fleet("readmit SN-1 --for 24h")  # its disk was restored: it no longer has the active one
    fleet.bench.vendor_again(vendor)
    made = fleet.bench.create(vendor, 7)
    for _ in range(10):
        fleet.bench.now += 6 * 3600 * 1000
        fleet.bench.sweep()
    assert fleet.bench.status(made["cert_id"]) == "ACTIVE", "all that it has"
    fleet.bench.ack(made["cert_id"])
    assert fleet.bench.device().state is State.ROTATION_COMPLETE
    fleet.bench.now += SETTLE_MS
    fleet.bench.sweep()
    fleet.bench.check_settled()
