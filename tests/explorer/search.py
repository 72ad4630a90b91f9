"""The search: breadth first by faults, every new world continued fairly to its end.

A world is first continued without a further fault until it ends or meets one whose end is known. Where faults remain
(or a run is held back, which may go on at any point) this is done call by call and every point is kept; otherwise step
by step. Then, at every kept point, each choice is made.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.explorer import canon, fair
from tests.explorer.choices import choices, releases
from tests.explorer.tape import ALL
from tests.explorer.world import Violation, World

LONGEST = 8_000  # things that happen in one fair continuation
ANEW = "all is at rest, and life goes on"
Path = tuple[tuple[int, str], ...]
"""How a world came about: so many things happened, then this choice was made; and so on."""


@dataclass(frozen=True)
class Node:
    """A world, how it came about, and for how many calls it was followed when it was new."""

    world: World
    path: Path
    steps: int


class Found(Exception):
    """A promise is broken: what, and the path to it."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(what)
        self.what, self.path = what, path


@dataclass
class Search:
    """One search; `known` are the worlds whose fair end is known, `told` hears of progress now and then."""

    most: int | None = None
    told: Callable[[Search, int], None] = lambda _search, _faults: None
    known: set[bytes] = field(default_factory=set)
    transitions: int = 0
    at_first: bool = True
    chance: random.Random | None = None  # for the order of the last layer, where not all of it may be seen
    found: dict[str, Path] = field(default_factory=dict)

    @property
    def states(self) -> int:
        """How many distinct worlds have been seen to end well."""
        return len(self.known)

    def run(self, start: World, faults: int) -> None:
        """Explore all that so many faults lead to; `found` has each broken promise with its path.

        With `at_first` it ends at the first, and raises it as `Found`.
        """
        layer = list(self._new(start, (), left=faults))
        for left in range(faults - 1, -1, -1):
            following: list[Node] = []
            if self.chance is not None and not left:
                self.chance.shuffle(layer)
            for node in layer:
                for world, path in self._points(node):
                    for name, act in choices(world):
                        following += self._chosen(world, path, name, act, left)
                        self.told(self, faults - left)
                        if self.most is not None and self.states >= self.most:
                            return
            layer = following

    def _chosen(self, world: World, path: Path, name: str, act: Callable[[World], None], left: int) -> Iterator[Node]:
        other, there = world.copy(), (*path[:-1], (path[-1][0], name))
        try:
            act(other)
        except Violation as broken:
            self._break(str(broken), there)
            return iter(())
        return self._new(other, there, left)

    def _break(self, what: str, path: Path) -> None:
        if self.at_first:
            raise Found(what, path)
        self.found.setdefault(what, path)

    def _new(self, world: World, path: Path, left: int) -> Iterator[Node]:
        """Follow a world that is new to its end, and those that come of letting go on what it holds back."""
        waiting = [(world, path)]
        while waiting:
            world, path = waiting.pop()
            self.transitions += 1
            if canon.key(world) in self.known:
                continue
            node = Node(world.copy(), path, self._follow(world, path, left))
            if left:
                yield node
            if any(run.held for run in node.world.runs):
                waiting += self._released(node)

    def _released(self, node: Node) -> Iterator[tuple[World, Path]]:
        for world, path in self._points(node):
            for name, act in releases(world):
                other = world.copy()
                act(other)
                yield other, (*path[:-1], (path[-1][0], name))

    def _follow(self, world: World, path: Path, left: int) -> int:
        """Have a world end; gives how many calls were followed, and remembers what was met on the way."""
        met: list[bytes] = []
        steps = 0
        while steps < LONGEST:
            whole = world.lap or not (left or any(run.held for run in world.runs))
            between = world.job is None or not whole
            if between:
                mark = canon.key(world)
                if mark in self.known:
                    break
                met.append(mark)
            try:
                if fair.go_on(world, ALL if whole else 1) is None:
                    break
            except Violation as broken:
                self._break(str(broken), (*path, (steps, "")))
                break
            steps += 1
            self.transitions += 1
        else:
            self._break("it never ends", (*path, (steps, "")))
        self.known.update(met)
        return steps

    def _points(self, node: Node) -> Iterator[tuple[World, Path]]:
        """Give every point of a node's continuation at which a choice can be made, with the path to it."""
        world = node.world.copy()
        for steps in range(node.steps + 1):
            if world.lap:
                return
            yield world, (*node.path, (steps, ""))
            if steps < node.steps and fair.go_on(world) is None:
                return


def walk(start: World, chance: random.Random, faults: int) -> Path:
    """Make so many choices at random points, then end fairly; gives the path, or raises `Found`.

    A life that ends on the way counts as a choice: the world goes on from there.
    """
    world, steps = start.copy(), 0
    path: Path = ()
    try:
        while faults:
            if chance.random() < 0.08:
                offered = [*choices(world), *releases(world)]
                if offered:
                    name, act = chance.choice(offered)
                    path, steps, faults = (*path, (steps, name)), 0, faults - 1
                    act(world)
                    continue
            steps += 1
            if fair.go_on(world) is None:
                path, steps, faults = (*path, (steps - 1, ANEW)), 0, faults - 1
                world.lap = 0
        for _ in range(LONGEST):
            if fair.go_on(world, ALL) is None:
                return path
    except Violation as broken:
        raise Found(str(broken), (*path, (steps, ""))) from None
    raise Found("it never ends", path)


def replay(start: World, path: Path) -> Iterator[tuple[float, str]]:
    """Live a path again, call by call, telling when and what; then go on to the end, or to the broken promise."""
    world = start.copy()
    begun = world.now
    for steps, name in path:
        for _ in range(steps):
            said = fair.go_on(world)
            if said is None:
                return
            yield world.now - begun, said
        if name == ANEW:
            world.lap = 0
        elif name:
            yield world.now - begun, f"*** {name}"
            dict([*choices(world), *releases(world)])[name](world)
    while (said := fair.go_on(world)) is not None:
        yield world.now - begun, said
