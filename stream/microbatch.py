"""Micro-batches: many records of one Kafka partition cross from the JVM to Python at once, and are folded in order.

A Python operator pays for every crossing, not for every record. So the JVM packs what arrived within a few milliseconds
into one row, one call folds it, and one row goes back. How records are packed never decides anything: each batch is
sorted by offset, and the fold sees one record after another.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapState, MapStateDescriptor

from schemas.packing import pack, unpack
from stream.journal import KEY, PartitionRecord


class Emission(NamedTuple):
    """One record to be written; the topic's name in UTF-8, so that all three cross alike."""

    topic: bytes
    key: bytes
    value: bytes


class StateReader(Protocol):
    """What Flink keeps for one Kafka partition: read when an account is cold, or after a restart."""

    def get(self, key: str) -> bytes | None:
        """The entry under a key."""

    def keys(self) -> Iterable[str]:
        """Every key there is."""


class PartitionProcessor(Protocol):
    """The fold of one Kafka partition; lives in the operator's memory, beside the state that it writes through to."""

    def process(self, records: Sequence[PartitionRecord]) -> list[Emission]:
        """What these records lead to, in offset order."""

    def take_writes(self) -> dict[str, bytes | None]:
        """The state entries that changed since the last call; None removes one."""


ProcessorFactory = Callable[[int, StateReader, int], PartitionProcessor]
"""Makes the processor of a partition when its first batch comes: so after a restore too, with all state still cold.

The number is how many records there are between two snapshots of its state.
"""


class _EntryPairs(dict[str, bytes]):
    """What `MapState.put_all` takes in both modes: thread mode asks for items(), process mode iterates for pairs."""

    def __iter__(self) -> Iterator[tuple[str, bytes]]:  # type: ignore[override]
        return iter(self.items())


class PartitionState:
    """What Flink keeps for one partition: snapshots in one map, and the journal in a small one beside it.

    A map that is written while a checkpoint reads it is copied whole before: most batches write to the journal only.
    """

    def __init__(self, entries: MapState, journal: MapState) -> None:
        self._entries, self._journal = entries, journal
        self._older: set[str] = set()
        """Keys of a journal that stands where earlier code kept it, beside the snapshots."""

    def get(self, key: str) -> bytes | None:
        """The entry under a key."""
        found: bytes | None = self._journal.get(key) if key.startswith(KEY) else None
        if found is None:
            found = self._entries.get(key)
            if found is not None and key.startswith(KEY):
                self._older.add(key)
        return None if found is None else unpack(found)

    def keys(self) -> Iterable[str]:
        """Every key of the snapshots."""
        keys: Iterable[str] = self._entries.keys()
        return keys

    def write(self, writes: Mapping[str, bytes | None]) -> None:
        """Put entries, and remove those that are None."""
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
    """The one Python operator of a job. Keyed by Kafka partition; an element is a batch of it."""

    def __init__(self, factory: ProcessorFactory, snapshot_every: int) -> None:
        self._factory = factory
        self._snapshot_every = snapshot_every
        self._processors: dict[int, PartitionProcessor] = {}

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink before the first batch, and after every restore."""
        entries, journal = (
            runtime_context.get_map_state(MapStateDescriptor(name, Types.STRING(), Types.PICKLED_BYTE_ARRAY()))
            for name in ("entries", "journal")
        )
        self._maps: tuple[MapState, MapState] = entries, journal
        self._processors = {}
        self._states: dict[int, PartitionState] = {}

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:  # noqa: ARG002
        """Fold a batch: (partition, offsets, timestamps, values) to one row with all emissions."""
        partition, offsets, timestamps, values = value
        processor = self._processors.get(partition)
        if processor is None:
            state = self._states[partition] = PartitionState(*self._maps)
            processor = self._processors[partition] = self._factory(partition, state, self._snapshot_every)
        emissions = processor.process(sort_batch(offsets, timestamps, values))
        self._states[partition].write(processor.take_writes())
        if emissions:
            yield Row([list(emission) for emission in emissions])  # in process mode an array is a list, nothing else


def sort_batch(offsets: Sequence[int], timestamps: Sequence[int], values: Sequence[Any]) -> list[PartitionRecord]:
    """A batch as records by offset: the JVM's aggregate promises no order. Columns, because rows cross as one."""
    return sorted(map(PartitionRecord._make, zip(offsets, timestamps, values, strict=True)))
