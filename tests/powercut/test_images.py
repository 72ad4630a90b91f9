"""What a disk keeps is what its way says, and two images with one content have one digest."""

from collections.abc import Callable
from random import Random

import pytest

from tests.powercut.images import BLOCK, Image, Way, kept
from tests.powercut.log import Entry

ATOM = 512
WRITES = [Entry(number, number * BLOCK, b"x" * BLOCK) for number in range(4)]
FLUSH = Entry(0, 0, None)


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
    for seed in range(50):
        lengths = kept(WRITES, way, Random(seed), ATOM)  # noqa: S311 - a test's dice
        assert fits(lengths)
        assert all(length % ATOM == 0 for length in lengths)


def test_a_torn_write_is_torn_for_some_seed_and_nothing_pending_leaves_nothing() -> None:
    torn = [kept(WRITES, Way.TORN, Random(seed), ATOM) for seed in range(50)]  # noqa: S311 - a test's dice
    assert any(0 < length < BLOCK for lengths in torn for length in lengths)
    assert all(kept([], way, Random(0), ATOM) == [] for way in Way)  # noqa: S311 - a test's dice
    assert kept([FLUSH], Way.ALL, Random(0), ATOM) == [0]  # noqa: S311 - a test's dice


def test_the_digest_of_an_image_is_that_of_its_content() -> None:
    one, other = Image(10 * BLOCK), Image(10 * BLOCK)
    one.write(BLOCK - 1, b"ab")
    other.write(BLOCK, b"b")
    assert one.digest != other.digest
    other.write(BLOCK - 1, b"a")
    assert one.digest == other.digest
    one.write(BLOCK - 1, bytes(2))
    assert one.digest == 0
