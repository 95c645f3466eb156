"""How many events and answers each case of a partition has: a Merkle tree, so that a case can be shown to be whole.

A case falls into one of BUCKETS by the SHA-256 of its id; a bucket's entry is the canonical JSON of its cases, each as
that SHA-256, its events, its answers. A head holds the tree's root: so who made the head had to say, before anybody
asked, how many events a case has.
"""

import json
from collections.abc import Iterable
from hashlib import sha256

from projections.archive.merkle import MerkleTree, leaf_hash

BUCKETS = 1024
_EMPTY_LEAF = leaf_hash(b"[]")


def case_name(case_id: str) -> str:
    """How the tree names a case: not by its id, which is nobody's business who asks for another case."""
    return sha256(case_id.encode()).hexdigest()


def bucket_of(name: str) -> int:
    """Where a case falls: the first ten bits of its name."""
    return int(name[:3], 16) >> 2


class CaseCounts:
    """The counts of one partition, and their tree; what has changed is hashed when the root is asked for."""

    def __init__(self) -> None:
        self._cases: list[dict[str, list[int]]] = [{} for _ in range(BUCKETS)]
        self._tree = MerkleTree([_EMPTY_LEAF] * BUCKETS)
        self._changed: set[int] = set()

    def extend(self, identities: Iterable[str]) -> None:
        """Take in what tells events apart: `case/sequence`, `case/answer/command`."""
        for identity in identities:
            case_id, _, place = identity.partition("/")
            name = case_name(case_id)
            number = bucket_of(name)
            counts = self._cases[number].setdefault(name, [0, 0])
            counts[place.startswith("answer/")] += 1
            self._changed.add(number)

    def entry(self, number: int) -> bytes:
        """The entry of a bucket."""
        cases = [[name, *counts] for name, counts in sorted(self._cases[number].items())]
        return json.dumps(cases, separators=(",", ":")).encode()

    def root(self) -> bytes:
        """The root of the tree."""
        for number in sorted(self._changed):
            self._tree.replace(number, leaf_hash(self.entry(number)))
        self._changed.clear()
        return self._tree.root()

    def proof(self, case_id: str) -> tuple[bytes, list[bytes]]:
        """The entry that a case is in, or would be, and what it takes to get from there to the root."""
        self.root()
        number = bucket_of(case_name(case_id))
        return self.entry(number), self._tree.inclusion(number)
