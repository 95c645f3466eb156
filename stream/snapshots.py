"""Writes of a fold's state: a journal entry with each batch, and at intervals a snapshot in parts.

A snapshot of thousands of histories takes a third of a second, and the other partitions of the task would wait for it.
So each batch packs some histories as they were when the snapshot began. The last batch writes all packed histories at
once; until then a restart uses the previous snapshot and the journal since.
"""

import gc
from collections.abc import Callable, Iterator

from domain.risk.histories import HistoriesFold, Writes
from stream.journal import Journal, PartitionRecord

PARTS, LEAST = 128, 16
"""Number of batches over which a snapshot is spread, and minimum number of histories that each batch packs."""


class Snapshots:
    """Journal of a partition, and the snapshots of its fold, one after every `every` records.

    `load` reads a state entry by key.
    """

    def __init__(self, partition: int, load: Callable[[str], bytes | None], every: int) -> None:
        self._journal = Journal(partition, load, every)
        self._unwritten: list[PartitionRecord] = []
        self._part = 0

    def read(self) -> Iterator[PartitionRecord]:
        """Yield the records since the last snapshot, in order. Call it once, on start."""
        return self._journal.read()

    def note(self, record: PartitionRecord) -> None:
        """Add a folded record to the next journal entry."""
        self._unwritten.append(record)

    def take_writes(self, fold: HistoriesFold) -> Writes:
        """Return the state entries that changed since the last call; None removes an entry."""
        unwritten, self._unwritten = self._unwritten, []
        writes = self._journal.add(unwritten)
        if not self._part and self._journal.is_full:
            gc.freeze()  # a snapshot's objects live long and form no cycles: collections need not visit them
            self._journal.mark()
            self._part = max(LEAST, fold.begin_writes() // PARTS)
        if self._part:
            snapshot = fold.continue_writes(self._part)
            if snapshot is not None:
                self._part = 0
                writes |= {**snapshot, **self._journal.clear()}
        return writes
