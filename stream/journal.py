"""Write-ahead journal of a partition: the records folded since its last snapshot.

One state write per batch instead of two per payment. The fold's state is its last snapshot plus the journal's records,
which result in the same state when they are folded again. One write stores a snapshot and clears the journal before it.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from domain.state_pickles import read_pickle

MAX_RECORDS, MAX_BATCHES = 32_768, 1_024
"""Records and batches after which a snapshot is due. More make a restart slower, fewer cost more writes."""
GOLDEN = 0.618_034
"""Golden ratio: its multiples modulo 1 are evenly spread, for any number of partitions."""
KEY = "\x1fjournal\x1f"
FIRST_KEY = f"{KEY}first"
"""Key of the number of the first entry. Earlier code always started at 0 and did not store it."""


class PartitionRecord(NamedTuple):
    """Record of a Kafka partition."""

    offset: int
    timestamp_ms: int
    value: bytes | None


class Journal:
    """Journal of one partition, in the state entries that `load` reads. A snapshot is due after `most` records."""

    def __init__(self, partition: int, load: Callable[[str], bytes | None], most: int = MAX_RECORDS) -> None:
        self._load = load
        self._most = most
        self._first = self._mark = self._next = int(load(FIRST_KEY) or 0)
        self._records = int(partition * GOLDEN % 1 * most)  # partitions fill equally fast: spreads their snapshots

    def read(self) -> Iterator[PartitionRecord]:
        """Yield the records since the last snapshot, in order. Call it once, on start."""
        while (entry := self._load(f"{KEY}{self._next}")) is not None:
            records = read_pickle(entry)
            self._next += 1
            self._records += len(records)
            yield from map(PartitionRecord._make, records)

    @property
    def is_full(self) -> bool:
        """Return whether a snapshot is due."""
        return self._next - self._mark >= MAX_BATCHES or self._records >= self._most

    def add(self, records: Sequence[PartitionRecord]) -> dict[str, bytes | None]:
        """Return the state write that stores a batch of folded records."""
        if not records:
            return {}
        key = f"{KEY}{self._next}"
        self._next += 1
        self._records += len(records)
        return {key: pickle.dumps([tuple(record) for record in records], 5)}

    def mark(self) -> None:
        """Begin a snapshot of the fold with all records added so far."""
        self._mark, self._records = self._next, 0

    def clear(self) -> dict[str, bytes | None]:
        """Return the writes that remove the records before the mark; they belong to the snapshot that began there."""
        writes: dict[str, bytes | None] = {f"{KEY}{number}": None for number in range(self._first, self._mark)}
        self._first = self._mark
        return {**writes, FIRST_KEY: b"%d" % self._first}
