"""Views from the log alone, in memory, and into a table that nobody reads yet: each item is made once and written once.

A partition of cases.events is divided into shares by its records' keys, small enough to be folded in memory. A share
depends on nothing else, so it is done or it is done again: the same records give the same items.
"""

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from domain.cases.events import CaseAnswer
from domain.cases.state import BrokenLog
from domain.digest import canonical_json
from projections.logs.known import KnownEvent
from projections.logs.log import LogRecord
from projections.logs.worker import decode_case_events
from projections.views.case_table import DynamoCaseTable
from projections.views.case_view import CaseView, Item, event_item, project, view_item
from schemas.codec import Decoder

SHARE_EVENTS: Final = 100_000
"""Records of a partition that make one share: some 300 MB while it is folded."""
WRITERS: Final = 8
"""Requests at once: the store waits for its disk more than for anything else."""
_MODULUS: Final = 1 << 256


class PartitionShard(NamedTuple):
    """Some of the keys of a partition, up to an offset: number `number` of `of`."""

    partition: int
    number: int
    of: int
    until: int

    def has(self, key: bytes | None) -> bool:
        """Whether records of a key belong to it: all of an account's do, and so all of a case's."""
        return self.of == 1 or zlib.crc32(key or b"") % self.of == self.number


class ShardResult(NamedTuple):
    """What a share has led to; the digest is the sum over its items, so that shares add up in any order."""

    events: int
    items: int
    digest: int


class ItemSink(Protocol):
    """A table that is filled."""

    def fill(self, items: Sequence[Item], threads: int) -> None:
        """Store items in a table that nobody else writes."""


class RecordSource(Protocol):
    """Where records are read from: Kafka, or the archive."""

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record, by partition."""

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """The records of a partition from its start up to an offset."""


@dataclass(slots=True)
class FoldedViews:
    """What records lead to: the last view of each case, and every event once, as it became known first."""

    views: dict[str, CaseView] = field(default_factory=dict)
    stored: dict[tuple[str, str], Item] = field(default_factory=dict)
    parked: dict[str, str] = field(default_factory=dict)
    """Cases with an event that cannot follow: their view stands where it was, as the live one does."""

    def add(self, known: KnownEvent) -> None:
        """Take in the next event of its case."""
        event = known.event
        item = event_item(event, known.known_at_ms)
        self.stored.setdefault((item["pk"], item["sk"]), item)
        if isinstance(event, CaseAnswer):
            return
        try:
            self.views[event.case_id] = project(self.views.get(event.case_id), event)
        except BrokenLog as broken:
            self.parked[event.case_id] = str(broken)

    def items(self) -> list[Item]:
        """All that a table holds of it: of each case its events, then its view."""
        return [*self.stored.values(), *map(view_item, self.views.values())]


def divide(ends: dict[int, int], share_events: int = SHARE_EVENTS) -> list[PartitionShard]:
    """The shares of a log that ends there."""
    return [
        PartitionShard(partition, number, of, until)
        for partition, until in sorted(ends.items())
        if until
        for of in (-(-until // share_events),)
        for number in range(of)
    ]


def fold(events: Iterable[KnownEvent]) -> FoldedViews:
    """The views that events lead to."""
    folded = FoldedViews()
    for event in events:
        folded.add(event)
    return folded


def events_of(log: RecordSource, topic: str, share: PartitionShard, decoder: Decoder) -> Iterator[KnownEvent]:
    """The case events of a share, as they stand in the log."""
    batch: list[LogRecord] = []
    for record in log.read(topic, share.partition, share.until):
        if share.has(record.key):
            batch.append(record)
        if len(batch) == _AT_ONCE:
            yield from decode_case_events(decoder, batch)
            batch = []
    yield from decode_case_events(decoder, batch)


_AT_ONCE: Final = 1_000
_SEEN_EVERY: Final = 20_000
"""Items between two looks at how far it is."""


def item_digest(items: Iterable[Item]) -> int:
    """The sum of the SHA-256 of each item as canonical JSON: whatever the order, the same items, the same sum."""
    total = 0
    for item in items:
        total += int.from_bytes(hashlib.sha256(canonical_json(item)).digest(), "big")
    return total % _MODULUS


def write_views(
    table: ItemSink, items: Sequence[Item], *, threads: int = WRITERS, seen: Callable[[int], None] = lambda _: None
) -> int:
    """Store items in a table that nobody else writes, each once; returns how many. Again is the same as once."""
    for start in range(0, len(items), _SEEN_EVERY):
        table.fill(items[start : start + _SEEN_EVERY], threads)
        seen(min(len(items), start + _SEEN_EVERY))
    return len(items)


def build(
    log: RecordSource,
    topic: str,
    decoder: Decoder,
    shares: Iterable[PartitionShard],
    table: ItemSink,
    done: Callable[[PartitionShard, ShardResult, FoldedViews], None],
    seen: Callable[[int], None] = lambda _: None,
) -> None:
    """Bring shares into a table, one being folded while the one before is written; `done` hears of each in order.

    `seen` hears how many events of a share are written so far.
    """
    with ThreadPoolExecutor(1) as writer:
        waiting: Callable[[], None] | None = None
        for share in shares:
            events = list(events_of(log, topic, share, decoder))
            folded = fold(events)
            if waiting is not None:
                waiting()
            waiting = _writing(writer, table, share, len(events), folded, done, seen)
        if waiting is not None:
            waiting()


def _writing(
    writer: ThreadPoolExecutor,
    table: ItemSink,
    share: PartitionShard,
    events: int,
    folded: FoldedViews,
    done: Callable[[PartitionShard, ShardResult, FoldedViews], None],
    seen: Callable[[int], None],
) -> Callable[[], None]:
    items = folded.items()
    writing = writer.submit(write_views, table, items, seen=lambda many: seen(many * events // len(items)))
    written = ShardResult(events, len(items), item_digest(items))

    def finish() -> None:
        writing.result()
        done(share, written, folded)

    return finish


# -- what a store can do ----------------------------------------------------------------------------------


def store_writes_per_s(table: DynamoCaseTable, items: Sequence[Item], *, threads: int = WRITERS) -> float:
    """The ceiling: items that were prepared before the clock runs, by BatchWriteItem, by so many threads at once."""
    batches = table.prepared(items)
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(table.put_prepared, batches))
    return len(items) / (time.perf_counter() - begun)
