"""Merkle trees after RFC 9162 (and 6962): hashing, an append-only tree, and the proofs of a complete one. Pure.

A leaf is hashed as SHA-256(0x00, entry), a node as SHA-256(0x01, left, right).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

EMPTY = sha256().digest()
"""The root of a tree without leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its two children."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """An append-only tree. It keeps the roots of its complete subtrees, largest first, and no leaves."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size, self.peaks = size, list(peaks)
        if len(self.peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(self.peaks)}")

    def add(self, leaf: bytes) -> None:
        """Append the hash of one entry."""
        size = self.size
        while size & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            size >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> "Frontier":
        """Append the hashes of several entries; return the tree itself."""
        for leaf in leaves:
            self.add(leaf)
        return self

    def copy(self) -> "Frontier":
        """Return an independent copy."""
        return Frontier(self.size, self.peaks)

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        if not self.peaks:
            return EMPTY
        *rest, root = self.peaks
        for peak in reversed(rest):
            root = node_hash(peak, root)
        return root


class MerkleTree:
    """A tree with all of its leaves, for proofs. `levels[0]` holds the leaves, the last level the root."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.levels = [list(leaves)]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            above = [node_hash(below[n], below[n + 1]) for n in range(0, len(below) - 1, 2)]
            self.levels.append(above if len(below) % 2 == 0 else [*above, below[-1]])

    @property
    def size(self) -> int:
        """Return the number of leaves."""
        return len(self.levels[0])

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        return self.levels[-1][0] if self.size else EMPTY

    def replace(self, index: int, leaf: bytes) -> None:
        """Replace one leaf and rehash the nodes above it."""
        self.levels[0][index] = leaf
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            index //= 2
            pair = below[2 * index : 2 * index + 2]
            above[index] = node_hash(*pair) if len(pair) == 2 else pair[0]

    def inclusion(self, index: int) -> list[bytes]:
        """Return the inclusion proof of a leaf: the sibling hashes from the leaf up to the root. Raises IndexError."""
        if not 0 <= index < self.size:
            raise IndexError(f"leaf {index} does not exist in a tree of {self.size} leaves")
        path = []
        for level in self.levels[:-1]:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index //= 2
        return path

    def consistency(self, size: int) -> list[bytes]:
        """Return the proof that the tree of the first `size` leaves is a prefix of this one (RFC 9162, 2.1.4).

        Raises IndexError.
        """
        if not 0 < size <= self.size:
            raise IndexError(f"a tree of {size} leaves is not a prefix of a tree of {self.size} leaves")
        return self._consistency_path(size, 0, self.size, is_whole=True)

    def _consistency_path(self, size: int, begin: int, end: int, *, is_whole: bool) -> list[bytes]:
        if size == end - begin:
            return [] if is_whole else [self._root_of(begin, end)]
        middle = begin + _largest_power_below(end - begin)
        if begin + size <= middle:
            return [*self._consistency_path(size, begin, middle, is_whole=is_whole), self._root_of(middle, end)]
        left = middle - begin
        return [*self._consistency_path(size - left, middle, end, is_whole=False), self._root_of(begin, middle)]

    def _root_of(self, begin: int, end: int) -> bytes:
        """Return the root of leaves `begin` to `end`, which fill a subtree or reach the end of the tree."""
        level = (end - begin - 1).bit_length()
        return self.levels[level][begin >> level]


def _largest_power_below(number: int) -> int:
    return 1 << (number - 1).bit_length() - 1
