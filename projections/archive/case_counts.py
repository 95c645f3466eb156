"""Counts of events and answers per case, in a Merkle tree that proves that an exported case is complete.

The SHA-256 of a case's id selects one of BUCKETS. The entry of a bucket is canonical JSON: for each of its cases that
SHA-256, the number of events and the number of answers. Each head holds the root of this tree. The signer thus commits
to the number of events of each case before anybody asks for one.
"""

import json
from collections.abc import Iterable
from hashlib import sha256

from projections.archive.merkle import MerkleTree, leaf_hash

BUCKETS = 1024
_EMPTY_LEAF = leaf_hash(b"[]")


def case_name(case_id: str) -> str:
    """Return the name of a case in the tree: the SHA-256 of its id, so that a proof reveals no other case's id."""
    return sha256(case_id.encode()).hexdigest()


def bucket_of(name: str) -> int:
    """Return the bucket of a case: the first ten bits of its name."""
    return int(name[:3], 16) >> 2


class CaseCounts:
    """Counts of one partition with their tree. Changed buckets are hashed when the root is requested."""

    def __init__(self) -> None:
        self._cases: list[dict[str, list[int]]] = [{} for _ in range(BUCKETS)]
        self._tree = MerkleTree([_EMPTY_LEAF] * BUCKETS)
        self._changed: set[int] = set()

    def extend(self, identities: Iterable[str]) -> None:
        """Count events by their identities: `case/sequence` for events, `case/answer/command` for answers."""
        for identity in identities:
            case_id, _, place = identity.partition("/")
            name = case_name(case_id)
            number = bucket_of(name)
            counts = self._cases[number].setdefault(name, [0, 0])
            counts[place.startswith("answer/")] += 1
            self._changed.add(number)

    def entry(self, number: int) -> bytes:
        """Return the entry of a bucket."""
        cases = [[name, *counts] for name, counts in sorted(self._cases[number].items())]
        return json.dumps(cases, separators=(",", ":")).encode()

    def root(self) -> bytes:
        """Return the root of the tree."""
        for number in sorted(self._changed):
            self._tree.replace(number, leaf_hash(self.entry(number)))
        self._changed.clear()
        return self._tree.root()

    def proof(self, case_id: str) -> tuple[bytes, list[bytes]]:
        """Return the entry of a case's bucket with its inclusion proof. The bucket may not contain the case."""
        self.root()
        number = bucket_of(case_name(case_id))
        return self.entry(number), self._tree.inclusion(number)
