"""When a fold's state is written to Flink's: a journal entry with each batch, and a snapshot now and then, in parts.

A snapshot of thousands of histories takes a third of a second, in which the other partitions of a task would wait too.
So each batch packs some of them, as they were when the snapshot began, and the last writes all that was packed at once:
until then a restart goes by the snapshot before, and by the journal since.
"""

import gc
from collections.abc import Callable, Iterator

from domain.risk.histories import HistoriesFold, Writes
from stream.journal import Journal, PartitionRecord

PARTS, LEAST = 128, 16
"""A snapshot takes so many batches, but each batch packs so many histories at least."""


class Snapshots:
    """The journal of a partition, and the snapshots of its fold, one after so many records.

    `load` reads a state entry by key.
    """

    def __init__(self, partition: int, load: Callable[[str], bytes | None], every: int) -> None:
        self._journal = Journal(partition, load, every)
        self._unwritten: list[PartitionRecord] = []
        self._part = 0

    def read(self) -> Iterator[PartitionRecord]:
        """The records since the last snapshot, in order: to be folded once, on start."""
        return self._journal.read()

    def note(self, record: PartitionRecord) -> None:
        """A record that was folded."""
        self._unwritten.append(record)

    def take_writes(self, fold: HistoriesFold) -> Writes:
        """The state entries that changed since the last call; None removes one."""
        unwritten, self._unwritten = self._unwritten, []
        writes = self._journal.add(unwritten)
        if not self._part and self._journal.is_full:
            gc.freeze()  # what a snapshot holds lives long, in no cycles: looking through it again finds nothing
            self._journal.mark()
            self._part = max(LEAST, fold.begin_writes() // PARTS)
        if self._part:
            snapshot = fold.continue_writes(self._part)
            if snapshot is not None:
                self._part = 0
                writes |= {**snapshot, **self._journal.clear()}
        return writes
