"""What was true before each effect of a device's life: what a disk holds afterwards is judged against it."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

from cloud.rotation.record import Device
from iot_agent.core.record import Record
from iot_agent.storage.record_store import RecordStore
from tests.powercut.renames import Rename
from tests.simulator.cloud import Listed
from tests.simulator.device import SERIAL, SimulatedDevice


@dataclass(frozen=True)
class Moment:
    """The instant before an effect, at a position in the disk's log.

    `told` is the cloud's registry and table and the time; `saves` how many saves of the record had been begun, `saved`
    the last of them that had returned; `unsynced` the renames whose directories had not been synced since.
    """

    position: int
    effect: str
    told: bytes
    saves: int
    saved: int
    unsynced: tuple[Rename, ...] = ()


@dataclass
class Ledger:
    """Every save of the record, in order; what a save that has returned promises is that it is not lost."""

    begun: list[Record] = field(default_factory=list)
    saved: int = -1

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it up, from outside of whatever the store does."""
        honest = RecordStore.save

        def save(store: RecordStore, record: Record) -> None:
            self.begun.append(record)
            number = len(self.begun) - 1
            honest(store, record)
            self.saved = number

        with mock.patch.object(RecordStore, "save", save):
            yield

    def may_be_found(self, moment: Moment) -> list[Record]:
        """Give what may be found on the disk: the last record whose save had returned, or one begun since."""
        return self.begun[max(0, moment.saved) : moment.saves]


def told(device: SimulatedDevice) -> bytes:
    """Keep what the cloud knows, and the time."""
    register = device.cloud.register
    return pickle.dumps((device.cloud.table.items, register.entries, register.deleted, device.time.now, device.labels))


def put_back(device: SimulatedDevice, kept: bytes) -> None:
    """Put the cloud and the time back to what `told` kept."""
    register = device.cloud.register
    items, entries, register.deleted, device.time.now, device.labels = pickle.loads(kept)  # noqa: S301 - our own
    device.cloud.table.items, register.entries, register.mute_new = items, entries, False


def what_the_cloud_knew(kept: bytes) -> tuple[Device, dict[str, Listed]]:
    """Give the cloud's record of the device, and its certificates by their ids."""
    items, entries, *_ = pickle.loads(kept)  # noqa: S301 - our own
    return items[SERIAL], entries
