"""Where the power goes, and what the disk has kept then: a plan for one life, and its images one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from tests.powercut.images import Image, Way, kept
from tests.powercut.log import Entry
from tests.powercut.moments import Moment

FORGETFUL = 0.5  # of the cuts where a rename may be lost


@dataclass(frozen=True)
class Cut:
    """The power goes after `entries` entries of the log, at a moment; the disk keeps a part of the rest, in a `way`.

    `forgetful`: the renames whose directories were not synced are lost, too.
    """

    entries: int
    moment: Moment
    way: Way
    forgetful: bool = False


@dataclass(frozen=True)
class Left:
    """What a cut left of the writes since the last flush, which was number `flush`.

    Each write is its offset, its length, and the bytes of it that the disk kept.
    """

    flush: int
    writes: tuple[tuple[int, int, int], ...]


def plan(entries: Sequence[Entry], moments: Sequence[Moment], chance: Random) -> list[Cut]:
    """Cut after each flush, and, in a way that chance chooses, before each effect and after each write."""
    cuts: list[Cut] = []
    following = 0
    for number, moment in enumerate(moments):
        while following < len(entries) and entries[following].end <= moment.position:
            following += 1
        cuts += _in_moment(entries, moments, number, following, chance)
    return [replace(cut, forgetful=bool(cut.moment.unsynced) and chance.random() < FORGETFUL) for cut in cuts]


def _in_moment(
    entries: Sequence[Entry], moments: Sequence[Moment], number: int, following: int, chance: Random
) -> Iterator[Cut]:
    """Cut at the moment itself, and after each entry until the next one."""
    moment = moments[number]
    ways = tuple(Way)
    yield Cut(following, moment, chance.choice(ways))
    until = moments[number + 1].position if number + 1 < len(moments) else moment.position
    while following < len(entries) and entries[following].end <= until:
        following += 1
        flushed = entries[following - 1].content is None
        yield Cut(following, moment, Way.ALL if flushed else chance.choice(ways))


def images(
    base: Image, entries: Sequence[Entry], cuts: Sequence[Cut], chance: Random, atom: int
) -> Iterator[tuple[Cut, Left, Image]]:
    """Give each cut, in the order of the log, with what the disk holds then; the same disk at the same moment once."""
    flushed, flushes, done, seen = base.copy(), 0, 0, set()
    for cut in cuts:
        last = max((number + 1 for number in range(done, cut.entries) if entries[number].content is None), default=done)
        for entry in entries[done:last]:
            flushed.write(entry.offset, entry.content or b"")
            flushes += entry.content is None
        done = last
        image, pending = flushed.copy(), entries[done : cut.entries]
        lengths = kept(pending, cut.way, chance, atom)
        for entry, length in zip(pending, lengths, strict=True):
            image.write(entry.offset, (entry.content or b"")[:length])
        held = image.digest, cut.moment.told, cut.moment.unsynced if cut.forgetful else ()
        if held not in seen:
            seen.add(held)
            writes = ((entry.offset, len(entry.content or b"")) for entry in pending)
            yield (
                cut,
                Left(flushes, tuple((*write, length) for write, length in zip(writes, lengths, strict=True))),
                image,
            )
