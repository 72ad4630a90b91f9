"""All that one fault leads to, from every start; and every planted bug, found."""

from collections.abc import Callable, Iterator

import pytest

from tests.explorer import canon, fair, paper
from tests.explorer.__main__ import command
from tests.explorer.plants import PLANTS, look_for
from tests.explorer.search import Search, replay
from tests.explorer.starts import STARTS
from tests.explorer.tape import ALL
from tests.explorer.world import Violation, World

LEAST = {"unknown": 12_000, "known": 7_000, "in-service": 9_000, "restored": 22_000}


@pytest.fixture(autouse=True)
def on_paper(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Read no X.509, and keep no log: a search would fill the memory with it."""
    with paper.instead_of_x509(), caplog.at_level("CRITICAL"):
        yield


@pytest.mark.parametrize("start", STARTS)
def test_no_single_fault_breaks_a_promise(start: str) -> None:
    search = Search(at_first=False)
    search.run(STARTS[start](), 1)
    assert [f"{what}: {command(start, path)}" for what, path in search.found.items()] == []
    assert search.states > LEAST[start], "the explorer has lost sight of something"


@pytest.mark.parametrize(("plant", "start"), PLANTS, ids=lambda one: getattr(one, "__name__", one))
def test_a_planted_bug_is_found_and_its_path_shows_it_again(
    plant: Callable[[pytest.MonkeyPatch], None], start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _states = look_for(plant, start)
    assert found is not None, "a hole in the explorer"
    world = STARTS[start]()
    plant(monkeypatch)
    with pytest.raises(Violation, match=found.what[:20]):
        list(replay(world, found.path))


def live(world: World, calls: int) -> World:
    while fair.go_on(world, calls) is not None:
        pass
    return world


@pytest.mark.parametrize("start", STARTS)
def test_a_world_ends_the_same_call_by_call_and_all_at_once(start: str) -> None:
    world = STARTS[start]()
    assert canon.key(live(world.copy(), 1)) == canon.key(live(world.copy(), ALL))


def test_two_copies_of_a_world_go_their_own_ways() -> None:
    world = STARTS["known"]()
    before, other = canon.key(world), world.copy()
    live(other, 1)
    assert canon.key(world) == before != canon.key(other)
