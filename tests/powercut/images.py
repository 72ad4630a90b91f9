"""What a disk may hold when the power goes. Pure.

All that was written before the last flush is there. Of what was written since, a disk may have kept any part, in any
order: all, nothing, some, all but one, one alone, or some with one of them torn, its beginning kept. Two writes to one
place are kept in their order.
"""

import hashlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from random import Random

from tests.powercut.log import Entry

BLOCK = 4096
EMPTY = bytes(BLOCK)


class Image:
    """A disk's content: the blocks that are not empty, and a digest of all of them that is kept up with each write."""

    def __init__(self, size: int, blocks: dict[int, bytes] | None = None, digest: int = 0) -> None:
        self.size, self.digest = size, digest
        self._blocks = {} if blocks is None else blocks

    @property
    def blocks(self) -> Iterable[tuple[int, bytes]]:
        """Offset and content of each block."""
        return ((number * BLOCK, content) for number, content in self._blocks.items())

    def copy(self) -> "Image":
        return Image(self.size, dict(self._blocks), self.digest)

    def write(self, offset: int, content: bytes) -> None:
        """Write at any offset."""
        done = 0
        while done < len(content):
            number, start = divmod(offset + done, BLOCK)
            part = content[done : done + BLOCK - start]
            self._put(number, start, part)
            done += len(part)

    def _put(self, number: int, start: int, part: bytes) -> None:
        old = self._blocks.get(number, EMPTY)
        new = old[:start] + part + old[start + len(part) :]
        if new != old:
            self.digest ^= _digest(number, old) ^ _digest(number, new)
            self._blocks[number] = new


def _digest(number: int, content: bytes) -> int:
    if content == EMPTY:
        return 0
    return int.from_bytes(hashlib.blake2b(content, digest_size=16, salt=number.to_bytes(8)).digest())


class Way(StrEnum):
    """What the disk kept of the writes since the last flush."""

    ALL = "all"
    NOTHING = "nothing"
    SOME = "some"
    ALL_BUT_ONE = "all but one"
    ONE = "one"
    TORN = "some, one of them torn"


def kept(pending: Sequence[Entry], way: Way, chance: Random, atom: int) -> list[tuple[int, bytes]]:
    """Choose offset and content of what the disk kept; `atom` is the bytes that it never tears."""
    writes = [(entry.offset, entry.content) for entry in pending if entry.content]
    if not writes or way is Way.ALL:
        return writes
    if way is Way.NOTHING:
        return []
    one = chance.randrange(len(writes))
    if way is Way.ONE:
        return [writes[one]]
    if way is Way.ALL_BUT_ONE:
        return writes[:one] + writes[one + 1 :]
    some = [number for number in range(len(writes)) if chance.random() < 0.5 or (way is Way.TORN and number == one)]
    return [
        (offset, content[: _torn(len(content), chance, atom)] if way is Way.TORN and number == one else content)
        for number, (offset, content) in ((number, writes[number]) for number in some)
    ]


def _torn(length: int, chance: Random, atom: int) -> int:
    return chance.randrange(length // atom + 1) * atom
