"""Two thousand disks that lost their power are recovered, and each planted bug of storage is found.

A machine that cannot mount file systems skips all that needs them, which CI=true does not allow.
"""

import pickle
from collections.abc import Iterator
from concurrent.futures import Executor

import pytest

from tests.powercut import lab, measure
from tests.powercut.case import Case
from tests.powercut.filesystems import nothing_can_be_cut, of_this_machine
from tests.powercut.life import KINDS
from tests.powercut.plants import PLANTS, Plant

pytestmark = pytest.mark.needs_root  # it mounts file systems

IMAGES, SEED = 2000, 1
SYSTEMS = of_this_machine()
LACKING = nothing_can_be_cut()
needs_mounts = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with lab.workers(lab.PROCESSES) as pool:
        yield pool


@needs_mounts
def test_no_image_breaks_a_promise(pool: Executor) -> None:
    results = list(lab.cut_lives(pool, SYSTEMS, IMAGES, SEED))
    assert [words for result in results for words, _ in result.violations] == []
    assert len({digest for result in results for digest in result.digests}) >= IMAGES
    assert len({result.name for result in results}) == len(KINDS) * len(SYSTEMS)


@needs_mounts
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found(plant: Plant, pool: Executor) -> None:
    images, result = pool.submit(lab.look_for, plant, SEED).result()
    assert result.violations, f"a hole in the lab: not found in {images} images"


@needs_mounts
def test_a_violation_is_told_in_words_and_can_be_judged_again(pool: Executor) -> None:
    (plant,) = (plant for plant in PLANTS if plant.name == "written_in_place")
    _, result = pool.submit(lab.look_for, plant, SEED).result()
    words, case = result.violations[0]
    assert case is not None
    for told in ("the power went after flush", "the cloud had been told:", "the disk held after recovery:"):
        assert told in words
    again: Case = pickle.loads(pickle.dumps(case))  # noqa: S301 - our own
    problem = pool.submit(again.judge_again).result()
    assert problem is not None
    assert problem.why in words


@needs_mounts
def test_a_renewal_flushes_and_writes_no_more_than_was_measured(pool: Executor) -> None:
    flushes, size = pool.submit(measure.renewal, SYSTEMS[0]).result()
    assert (flushes, size) <= (70, 300_000), "docs/evidence.md shows what it was"
