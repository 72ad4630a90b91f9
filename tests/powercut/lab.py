"""The lab: many lives, each cut at many places, in processes that have their mounts to themselves."""

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random

import pytest

from tests.powercut import kernel
from tests.powercut.cuts import Cut, images, plan
from tests.powercut.disk import logged_disk, mounted_image
from tests.powercut.filesystems import FileSystem, of_this_kernel
from tests.powercut.images import Image
from tests.powercut.judge import judge
from tests.powercut.life import KINDS, Life, begun
from tests.powercut.log import Entry, read_log
from tests.powercut.plants import PLANTS

MOST_TOLD = 5  # violations of one life: more of them tell nothing new
WITHOUT_PLANT = ""


@dataclass(frozen=True)
class Order:
    """One life to live and to cut: its number says on which file system and how disturbed, seed and number the rest."""

    number: int
    seed: int
    most: int
    plant: str = WITHOUT_PLANT


@dataclass
class Told:
    """What became of it; `violations` in words, with what reproduces each."""

    order: Order
    name: str
    images: int = 0
    violations: list[str] = field(default_factory=list)


def kinds_of_lives() -> list[tuple[str, FileSystem, int]]:
    """Give every kind of life on every file system that this kernel has: its name, and what it takes."""
    return [
        (f"{KINDS[kind].__name__} on {system.name}", system, kind)
        for kind, system in product(range(len(KINDS)), of_this_kernel())
    ]


def carry_out(order: Order) -> Told:
    """Live a life, cut it, and judge each image; in a process that `workers` made."""
    kinds = kinds_of_lives()
    name, system, kind = kinds[order.number % len(kinds)]
    chance = Random(f"{order.seed}-{order.number}")  # noqa: S311 - a test's dice
    told = Told(order, name)
    with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:  # the Lambda prints its metrics
        for plant in PLANTS:
            if plant.__name__ == order.plant:
                plant(patch)
        with logged_disk(Path.cwd(), system) as disk, begun(disk, chance) as life:
            KINDS[kind](life)
        entries = list(read_log(disk.log))
        cuts = chosen(plan(entries, life.moments, chance), entries, order.most, chance)
        for cut, image in images(disk.base, entries, cuts, chance, system.atom):
            told.images += 1
            problem = _recovered(life, cut, image, system)
            if problem is not None:
                told.violations.append(f"{name}, {cut}: {problem}")
            if len(told.violations) == (1 if order.plant else MOST_TOLD):
                break
    return told


def chosen(cuts: Sequence[Cut], entries: Sequence[Entry], most: int, chance: Random) -> list[Cut]:
    """Choose at most so many cuts, in their order: after every flush if there is room, and others by chance."""
    flushes = [number for number, cut in enumerate(cuts) if cut.entries and entries[cut.entries - 1].content is None]
    if len(flushes) > most:
        flushes = []
    others = sorted(set(range(len(cuts))) - set(flushes))
    return [cuts[n] for n in sorted([*flushes, *chance.sample(others, min(len(others), most - len(flushes)))])]


def _recovered(life: Life, cut: Cut, image: Image, system: FileSystem) -> str | None:
    """Say what is wrong with a device that comes up on this image, if anything."""
    try:
        with mounted_image(Path.cwd(), system, image) as root:
            judge(life, cut.moment, root)
    except Exception as error:  # noqa: BLE001 - whatever a boot raises is what was looked for
        return f"{type(error).__name__}: {error}"
    return None


@contextlib.contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes that have mounts of their own, and a directory in memory as working directory."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="powercut-") as place,
        ProcessPoolExecutor(count, spawn, _settle, (place,)) as pool,
    ):
        yield pool


def _settle(place: str) -> None:
    kernel.die_with(signal.SIGKILL)
    kernel.private_mounts()
    kernel.mount("tmpfs", Path(place), "tmpfs")
    os.chdir(place)
    logging.disable(logging.CRITICAL)


def cut_lives(pool: ProcessPoolExecutor, most: int, seed: int) -> Iterator[Told]:
    """Live and cut lives of all kinds until there are so many images; gives each as it is done."""
    kinds, done, number = len(kinds_of_lives()), 0, 0
    while done < most:
        share = -(-(most - done) // kinds)
        orders = [Order(number + kind, seed, share) for kind in range(kinds)]
        number += kinds
        for future in as_completed([pool.submit(carry_out, order) for order in orders]):
            told = future.result()
            done += told.images
            yield told


def find(pool: ProcessPoolExecutor, plant: str, seed: int, most: int = 250) -> Told:
    """Look for a planted bug, in one kind of life after the other; gives the life that shows it, or the last one."""
    tried = 0
    for number in range(len(kinds_of_lives())):
        told = pool.submit(carry_out, Order(number, seed, most, plant)).result()
        tried += told.images
        if told.violations:
            break
    told.images = tried
    return told
