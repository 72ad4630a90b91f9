"""Two thousand disks of devices that lost their power, each recovered; and every planted bug of storage, found.

It needs root, /dev/fuse and loop devices. Without them it is skipped, which CI=true does not allow.
"""

import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from random import Random

import pytest

from tests.powercut.case import Case
from tests.powercut.filesystems import ALL, FileSystem, of_this_machine, why_not
from tests.powercut.images import BLOCK, Image, Way, kept
from tests.powercut.lab import cut_lives, look_for, workers
from tests.powercut.log import Entry
from tests.powercut.measure import renewal
from tests.powercut.plants import PLANTS

IMAGES, SEED = 2000, 1
HERE = {system.name: system for system in of_this_machine()}
needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(Path.exists, (Path("/dev/fuse"), Path("/dev/loop-control")))),
    reason="it mounts file systems: it needs root, /dev/fuse and /dev/loop-control",
)
MOST_FLUSHES, MOST_BYTES = 90, 400_000  # of a renewal on ext4; more would wear a device's flash for nothing


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with workers(3 * (os.cpu_count() or 1)) as made:
        yield made


def test_ext4_can_be_cut_here() -> None:
    assert [reason for system in ALL if system.kind == "ext4" and (reason := why_not(system))] == []


@needs_mounts
def test_a_device_recovers_from_every_power_cut(pool: Executor) -> None:
    judged, broken = set[int](), []
    for result in cut_lives(pool, tuple(HERE.values()), IMAGES, SEED):
        judged.update(result.digests)
        broken += [words for words, _case in result.violations]
    assert broken == [], "\n".join(broken)
    assert len(judged) >= IMAGES


@needs_mounts
@pytest.mark.parametrize(
    ("plant", "life", "system"),
    [(plant.__name__, life, HERE[name]) for plant, life, name in PLANTS if name in HERE],
    ids=lambda one: one.name if isinstance(one, FileSystem) else one,
)
def test_a_planted_bug_is_found_and_judged_the_same_again(
    pool: Executor, plant: str, life: str, system: FileSystem
) -> None:
    _images, result = pool.submit(look_for, plant, life, system, SEED).result()
    assert result.violations, "a hole in the lab"
    words, case = result.violations[0]
    again: Case = pickle.loads(pickle.dumps(case))  # noqa: S301 - as a file of an earlier run is read
    problem = pool.submit(again.judge_again).result()
    assert problem is not None
    assert problem.why[:20] in words


@needs_mounts
def test_a_renewal_wears_the_disk_little(pool: Executor) -> None:
    flushes, written = pool.submit(renewal, HERE["ext4"]).result()
    assert 0 < flushes <= MOST_FLUSHES
    assert 0 < written <= MOST_BYTES


def entries(*contents: bytes) -> list[Entry]:
    return [Entry(number, number * BLOCK, content) for number, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("way", "fits"),
    [
        (Way.ALL, lambda lengths: lengths == [BLOCK] * 4),
        (Way.NOTHING, lambda lengths: lengths == [0] * 4),
        (Way.ONE, lambda lengths: sorted(lengths) == [0, 0, 0, BLOCK]),
        (Way.ALL_BUT_ONE, lambda lengths: sorted(lengths) == [0, BLOCK, BLOCK, BLOCK]),
        (Way.SOME, lambda lengths: set(lengths) <= {0, BLOCK}),
        (Way.TORN, lambda lengths: sum(0 < length < BLOCK for length in lengths) <= 1),
    ],
)
def test_a_disk_keeps_what_its_way_says(way: Way, fits: Callable[[list[int]], bool]) -> None:
    pending = entries(*[b"x" * BLOCK] * 4)
    for seed in range(50):
        lengths = kept(pending, way, Random(seed), 512)  # noqa: S311 - a test's dice
        assert fits(lengths)
        assert all(length % 512 == 0 for length in lengths)


def test_the_digest_of_an_image_is_that_of_its_content() -> None:
    one, other = Image(10 * BLOCK), Image(10 * BLOCK)
    one.write(BLOCK - 1, b"ab")
    other.write(BLOCK, b"b")
    assert one.digest != other.digest
    other.write(BLOCK - 1, b"a")
    assert one.digest == other.digest
    one.write(BLOCK - 1, bytes(2))
    assert one.digest == 0
