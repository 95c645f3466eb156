"""Merkle trees after RFC 9162 (and 6962): hashing, a tree that only grows, and the proofs that a whole one gives. Pure.

A leaf is hashed as SHA-256(0x00, entry), a node as SHA-256(0x01, left, right).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

EMPTY = sha256().digest()
"""The root of a tree without leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its two children."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree to which leaves are added: it keeps the roots of its whole subtrees, the largest first, and no leaves."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size, self.peaks = size, list(peaks)
        if len(self.peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} whole subtrees, not {len(self.peaks)}")

    def add(self, leaf: bytes) -> None:
        """Add the hash of one more entry."""
        size = self.size
        while size & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            size >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> "Frontier":
        """Add the hashes of more entries."""
        for leaf in leaves:
            self.add(leaf)
        return self

    def copy(self) -> "Frontier":
        """The same tree, to be added to by itself."""
        return Frontier(self.size, self.peaks)

    def root(self) -> bytes:
        """The hash of the whole tree."""
        if not self.peaks:
            return EMPTY
        *rest, root = self.peaks
        for peak in reversed(rest):
            root = node_hash(peak, root)
        return root


class MerkleTree:
    """A tree with all of its leaves, to prove what is in it. `levels[0]` are the leaves, the last level is the root."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.levels = [list(leaves)]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            above = [node_hash(below[n], below[n + 1]) for n in range(0, len(below) - 1, 2)]
            self.levels.append(above if len(below) % 2 == 0 else [*above, below[-1]])

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self.levels[0])

    def root(self) -> bytes:
        """The hash of the whole tree."""
        return self.levels[-1][0] if self.size else EMPTY

    def replace(self, index: int, leaf: bytes) -> None:
        """Put another leaf in the place of one: what is above it is hashed anew."""
        self.levels[0][index] = leaf
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            index //= 2
            pair = below[2 * index : 2 * index + 2]
            above[index] = node_hash(*pair) if len(pair) == 2 else pair[0]

    def inclusion(self, index: int) -> list[bytes]:
        """What it takes, from the leaf upwards, to get from a leaf to the root."""
        if not 0 <= index < self.size:
            raise IndexError(f"there is no leaf {index} of {self.size}")
        path = []
        for level in self.levels[:-1]:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index //= 2
        return path

    def consistency(self, size: int) -> list[bytes]:
        """What it takes to get from the root of the first `size` leaves to this one's; RFC 9162 section 2.1.4."""
        if not 0 < size <= self.size:
            raise IndexError(f"no tree of {size} leaves came before this one of {self.size}")
        return self._grown(size, 0, self.size, is_whole=True)

    def _grown(self, size: int, begin: int, end: int, *, is_whole: bool) -> list[bytes]:
        if size == end - begin:
            return [] if is_whole else [self._root_of(begin, end)]
        middle = begin + _largest_power_below(end - begin)
        if begin + size <= middle:
            return [*self._grown(size, begin, middle, is_whole=is_whole), self._root_of(middle, end)]
        left = middle - begin
        return [*self._grown(size - left, middle, end, is_whole=False), self._root_of(begin, middle)]

    def _root_of(self, begin: int, end: int) -> bytes:
        """The root of the leaves from `begin` on: they fill a subtree, or reach to the end of the tree."""
        level = (end - begin - 1).bit_length()
        return self.levels[level][begin >> level]


def _largest_power_below(number: int) -> int:
    return 1 << (number - 1).bit_length() - 1
