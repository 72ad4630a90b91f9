"""From each start, every world that one fault leads to keeps the promise; a planted bug breaks it."""

from collections.abc import Callable

import pytest

from tests.explorer import paper
from tests.explorer.plants import PLANTS
from tests.explorer.search import Found, Search
from tests.explorer.starts import STARTS

AT_LEAST = 3_000  # distinct worlds from each start: fewer would mean that choices are missing
MOST = 12_000  # for a test's patience; a search without this bound goes on to the end


def explored(start: str, most: int) -> Search:
    """Explore from a start, with one fault at each point; raises `Found` at the first broken promise."""
    search = Search(most=most)
    search.run(STARTS[start](), 1)
    return search


@pytest.mark.parametrize("start", sorted(STARTS))
def test_no_fault_breaks_the_promise(start: str) -> None:
    with paper.instead_of_x509():
        assert explored(start, MOST).states >= AT_LEAST


@pytest.mark.parametrize(("plant", "start"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_planted_bug_breaks_it(
    plant: Callable[[pytest.MonkeyPatch], None], start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with paper.instead_of_x509():
        world = STARTS[start]()
        plant(monkeypatch)
        with pytest.raises(Found):
            Search().run(world, 1)
