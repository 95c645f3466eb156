"""Micro-batches: many records of one Kafka partition cross from the JVM to Python at once, and are folded in order.

A Python operator pays for each crossing, not for each record. So the JVM packs the records of a few milliseconds into
one row, one call folds it, and one row goes back. The packing never affects a decision: each batch is sorted by offset,
and the fold reads one record after another.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapState, MapStateDescriptor

from schemas.packing import pack, unpack
from stream.journal import KEY, PartitionRecord


class Emission(NamedTuple):
    """Record to be written: topic name in UTF-8, key and value, all as bytes so that they cross alike."""

    topic: bytes
    key: bytes
    value: bytes


class StateReader(Protocol):
    """Flink's state of one Kafka partition, read for an account that is not in memory, or after a restart."""

    def get(self, key: str) -> bytes | None:
        """Return the entry under a key, or None."""

    def keys(self) -> Iterable[str]:
        """Return every key."""


class PartitionProcessor(Protocol):
    """Fold of one Kafka partition. It lives in the operator's memory and writes its changes to Flink's state."""

    def process(self, records: Sequence[PartitionRecord]) -> list[Emission]:
        """Fold records in offset order and return the records that result."""

    def take_writes(self) -> dict[str, bytes | None]:
        """Return the state entries that changed since the last call; None removes an entry."""


ProcessorFactory = Callable[[int, StateReader, int], PartitionProcessor]
"""Factory of a partition's processor, called at the partition's first batch, also after a restore.

Its arguments are the partition, its state, and the number of records between two snapshots of this state.
"""


class _EntryPairs(dict[str, bytes]):
    """Argument of `MapState.put_all` for both modes: thread mode calls items(), process mode iterates over pairs."""

    def __iter__(self) -> Iterator[tuple[str, bytes]]:  # type: ignore[override]
        return iter(self.items())


class PartitionState:
    """Flink's state of one partition: snapshots in one map, and the journal in a small map beside it.

    Flink copies a whole map that is written while a checkpoint reads it. Most batches write to the journal only.
    """

    def __init__(self, entries: MapState, journal: MapState) -> None:
        self._entries, self._journal = entries, journal
        self._older: set[str] = set()
        """Keys of journal entries that earlier code stored in the map of the snapshots."""

    def get(self, key: str) -> bytes | None:
        """Return the entry under a key, or None."""
        entry: bytes | None = self._journal.get(key) if key.startswith(KEY) else None
        if entry is None:
            entry = self._entries.get(key)
            if entry is not None and key.startswith(KEY):
                self._older.add(key)
        return None if entry is None else unpack(entry)

    def keys(self) -> Iterable[str]:
        """Return every key of the snapshots."""
        keys: Iterable[str] = self._entries.keys()
        return keys

    def write(self, writes: Mapping[str, bytes | None]) -> None:
        """Store entries, and remove those that are None."""
        for state, is_journal in ((self._entries, False), (self._journal, True)):
            kept = {
                key: pack(entry)
                for key, entry in writes.items()
                if entry is not None and key.startswith(KEY) is is_journal
            }
            if kept:
                state.put_all(_EntryPairs(kept))
        for key in [key for key, entry in writes.items() if entry is None]:
            if key.startswith(KEY) and key not in self._older:
                self._journal.remove(key)
            else:
                self._entries.remove(key)
                self._older.discard(key)


class PartitionOperator(KeyedProcessFunction):  # type: ignore[misc]  # PyFlink ships no types
    """Single Python operator of a job, keyed by Kafka partition; an element is a batch of one partition."""

    def __init__(self, factory: ProcessorFactory, snapshot_every: int) -> None:
        self._factory = factory
        self._snapshot_every = snapshot_every
        self._processors: dict[int, PartitionProcessor] = {}

    def open(self, runtime_context: RuntimeContext) -> None:
        """Set up the state maps. Flink calls this before the first batch and after every restore."""
        entries, journal = (
            runtime_context.get_map_state(MapStateDescriptor(name, Types.STRING(), Types.PICKLED_BYTE_ARRAY()))
            for name in ("entries", "journal")
        )
        self._maps: tuple[MapState, MapState] = entries, journal
        self._processors = {}
        self._states: dict[int, PartitionState] = {}

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:  # noqa: ARG002
        """Fold a batch (partition, offsets, timestamps, values) and yield one row with all emissions."""
        partition, offsets, timestamps, values = value
        processor = self._processors.get(partition)
        if processor is None:
            state = self._states[partition] = PartitionState(*self._maps)
            processor = self._processors[partition] = self._factory(partition, state, self._snapshot_every)
        emissions = processor.process(sort_batch(offsets, timestamps, values))
        self._states[partition].write(processor.take_writes())
        if emissions:
            yield Row([list(emission) for emission in emissions])  # process mode accepts only lists as arrays


def sort_batch(offsets: Sequence[int], timestamps: Sequence[int], values: Sequence[Any]) -> list[PartitionRecord]:
    """Return a batch as records in offset order. The columns are parallel; the JVM's aggregate promises no order."""
    return sorted(map(PartitionRecord._make, zip(offsets, timestamps, values, strict=True)))
