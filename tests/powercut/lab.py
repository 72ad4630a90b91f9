"""The lab: many lives, each cut at many places, in processes that have their mounts to themselves."""

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from textwrap import indent

from tests.powercut import kernel
from tests.powercut.case import Case, Problem, examine, planted
from tests.powercut.cuts import Cut, images, plan
from tests.powercut.disk import logged_disk
from tests.powercut.filesystems import ALL, FileSystem
from tests.powercut.life import KINDS, Life, begun
from tests.powercut.log import Entry, read_log
from tests.powercut.plants import Plant
from tests.powercut.words import known_in_words, left_in_words, saved_in_words

SHARE = 900  # images of one life: room for every flush of the longest, and for others
LIVES_FOR_A_PLANT, FOR_A_PLANT = 3, 300  # lives, and images of each; as a rule the first life shows it
PROCESSES = 3 * (os.cpu_count() or 1)  # a process waits for its disk most of the time
MOST_TOLD = 5  # violations of one life: more of them tell nothing new
NO_PLANT = ""


@dataclass(frozen=True)
class Order:
    """One life to live and to cut: its number says on which file system and how disturbed, seed and number the rest."""

    number: int
    seed: int
    most: int
    plant: str = NO_PLANT


@dataclass
class Result:
    """What became of an order: a digest of each disk that was judged; each violation in words, with its case."""

    name: str
    digests: list[int] = field(default_factory=list)
    violations: list[tuple[str, Case | None]] = field(default_factory=list)


def kinds_of_lives(systems: Sequence[FileSystem]) -> list[tuple[Callable[[Life], None], FileSystem]]:
    """Give every kind of life on every file system."""
    return list(product(KINDS, systems))


def carry_out(order: Order, kind: Callable[[Life], None], system: FileSystem) -> Result:
    """Live a life, cut it, and judge each image; in a process that `workers` made."""
    chance = Random(f"{order.seed}-{order.number}")  # noqa: S311 - a test's dice
    result = Result(f"{kind.__name__} on {system.name}")
    with planted(order.plant):
        with logged_disk(Path.cwd(), system) as disk, begun(disk, chance) as life:
            try:
                kind(life)
            except Exception as error:  # noqa: BLE001 - whatever ends a life early is wrong, and its disk is cut all the same
                if not order.plant:
                    result.violations.append((f"{result.name}: the life itself ended: {error!r}", None))
        entries = list(read_log(disk.log))
        cuts = chosen(plan(entries, life.moments, chance), entries, order.most, chance)
        for cut, left, image in images(disk.base, entries, cuts, chance, system.atom):
            result.digests.append(image.digest)
            problem = examine(life.device, life.ledger, cut, system, image)
            if problem is not None:
                authorities = life.device.cloud.vendor, life.device.cloud.manufacturer
                case = Case(kind.__name__, system, order.plant, cut, left, image, life.ledger, authorities)
                result.violations.append((in_words(case, problem), case))
            if len(result.violations) >= (1 if order.plant else MOST_TOLD):
                break
    return result


def in_words(case: Case, problem: Problem) -> str:
    """Tell a violation: where, what was left, what was known, what was found, why that is wrong."""
    moment = case.cut.moment
    return "\n".join((
        f"{case.system.name}, life `{case.life}`: {problem.why}",
        f"  the power went {left_in_words(case.left, case.cut)}",
        f"  the device was about to: {moment.effect}",
        f"  the cloud had been told: {known_in_words(moment)}",
        f"  the record saved last: {saved_in_words(case.ledger, moment)}",
        "  the disk held after recovery:",
        indent(problem.held, "    "),
    ))  # fmt: skip


def chosen(cuts: Sequence[Cut], entries: Sequence[Entry], most: int, chance: Random) -> list[Cut]:
    """Choose at most so many cuts, in their order: after every flush if there is room, and others by chance."""
    flushes = [number for number, cut in enumerate(cuts) if cut.entries and entries[cut.entries - 1].content is None]
    if len(flushes) > most:
        flushes = []
    others = sorted(set(range(len(cuts))) - set(flushes))
    return [cuts[n] for n in sorted([*flushes, *chance.sample(others, min(len(others), most - len(flushes)))])]


@contextlib.contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes that have mounts of their own, and a directory in memory as working directory."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="powercut-") as place,
        ProcessPoolExecutor(count, spawn, _settle, (place,)) as pool,
    ):
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # lives that are no longer wanted


def _settle(place: str) -> None:
    kernel.die_with(signal.SIGKILL)
    kernel.private_mounts()
    kernel.mount("tmpfs", Path(place), "tmpfs")
    os.chdir(place)
    logging.disable(logging.CRITICAL)


def cut_lives(pool: Executor, systems: Sequence[FileSystem], most: int, seed: int) -> Iterator[Result]:
    """Live and cut lives of all kinds until so many disks have been judged; gives each life as it is done."""
    kinds, seen, number = kinds_of_lives(systems), set[int](), 0
    while len(seen) < most:
        share = min(SHARE, -(-(most - len(seen)) // len(kinds)))
        running = []
        for kind, system in kinds:
            running.append(pool.submit(carry_out, Order(number, seed, share), kind, system))
            number += 1
        for future in as_completed(running):
            result = future.result()
            seen.update(result.digests)
            yield result


def look_for(plant: Plant, seed: int) -> tuple[int, Result]:
    """Look for a planted bug in lives of its kind; gives the images that it took, and the last life."""
    (kind,) = (kind for kind in KINDS if kind.__name__ == plant.life)
    (system,) = (system for system in ALL if system.name == plant.system)
    images = 0
    for number in range(LIVES_FOR_A_PLANT):
        result = carry_out(Order(number, seed, FOR_A_PLANT, plant.name), kind, system)
        images += len(result.digests)
        if result.violations:
            break
    return images, result
