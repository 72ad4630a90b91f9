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


def kept(pending: Sequence[Entry], way: Way, chance: Random, atom: int) -> list[int]:
    """Choose how many bytes of each write the disk kept, from its beginning on; it never tears `atom` bytes."""
    lengths = [len(entry.content or b"") for entry in pending]
    if not lengths or way is Way.ALL:
        return lengths
    if way is Way.NOTHING:
        return [0] * len(lengths)
    one = chance.randrange(len(lengths))
    if way is Way.ONE:
        return [length if number == one else 0 for number, length in enumerate(lengths)]
    if way is Way.ALL_BUT_ONE:
        return [0 if number == one else length for number, length in enumerate(lengths)]
    some = [length if chance.random() < 0.5 else 0 for length in lengths]
    if way is Way.TORN:
        some[one] = chance.randrange(lengths[one] // atom + 1) * atom
    return some
