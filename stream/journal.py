"""What a fold has read since its state was last written out: so that a batch costs one state entry, not two a payment.

A fold's state is its last snapshot, and the records since, which lead to the same state again: the journal is to the
operator what the log is to the system. The snapshot and the clearing of the journal before it are one write.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from domain.state_pickles import read_pickle

MAX_RECORDS, MAX_BATCHES = 32_768, 1_024
"""When a snapshot is due, if nobody says otherwise. More records make a restart slower, fewer cost more often."""
GOLDEN = 0.618_034
"""The golden ratio: multiples of it lie evenly apart, however many there are."""
KEY = "\x1fjournal\x1f"
FIRST_KEY = f"{KEY}first"
"""Where the number of the first entry stands; in the state of earlier code, which began anew each time, nowhere."""


class PartitionRecord(NamedTuple):
    """One record of a Kafka partition."""

    offset: int
    timestamp_ms: int
    value: bytes | None


class Journal:
    """The journal of one partition, in the state entries that `load` reads; `most` records until a snapshot is due."""

    def __init__(self, partition: int, load: Callable[[str], bytes | None], most: int = MAX_RECORDS) -> None:
        self._load = load
        self._most = most
        self._first = self._mark = self._next = int(load(FIRST_KEY) or 0)
        self._records = int(partition * GOLDEN % 1 * most)  # partitions fill alike: else all would pause at once

    def read(self) -> Iterator[PartitionRecord]:
        """The records since the last snapshot, in order: to be read once, on start."""
        while (entry := self._load(f"{KEY}{self._next}")) is not None:
            records = read_pickle(entry)
            self._next += 1
            self._records += len(records)
            yield from map(PartitionRecord._make, records)

    @property
    def is_full(self) -> bool:
        """Whether a snapshot is due."""
        return self._next - self._mark >= MAX_BATCHES or self._records >= self._most

    def add(self, records: Sequence[PartitionRecord]) -> dict[str, bytes | None]:
        """The write that a batch costs."""
        if not records:
            return {}
        key = f"{KEY}{self._next}"
        self._next += 1
        self._records += len(records)
        return {key: pickle.dumps([tuple(record) for record in records], 5)}

    def mark(self) -> None:
        """A snapshot begins: of the fold as all that was added until now has made it."""
        self._mark, self._records = self._next, 0

    def clear(self) -> dict[str, bytes | None]:
        """The writes that go with the snapshot that began at the mark."""
        writes: dict[str, bytes | None] = {f"{KEY}{number}": None for number in range(self._first, self._mark)}
        self._first = self._mark
        return {**writes, FIRST_KEY: b"%d" % self._first}
