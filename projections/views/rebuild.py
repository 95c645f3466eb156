"""Rebuild of the case views from the log, in memory and into a table without readers. Each item is written once.

A partition of cases.events is divided into shards by record key, small enough to be folded in memory. Shards are
independent of each other and can be repeated: the same records give the same items.
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
from projections.logs.log import LogRecord, RecordLog
from projections.logs.worker import decode_case_events
from projections.views.case_table import DynamoCaseTable
from projections.views.case_view import CaseView, Item, event_item, project, view_item
from schemas.codec import Decoder

SHARD_EVENTS: Final = 100_000
"""Records of a partition per shard; folding one takes about 300 MB of memory."""
WRITERS: Final = 8
"""Concurrent requests: the store mostly waits for its disk."""
_MODULUS: Final = 1 << 256


class PartitionShard(NamedTuple):
    """Subset of the keys of a partition, up to offset `until`: shard `number` of `of`."""

    partition: int
    number: int
    of: int
    until: int

    def has(self, key: bytes | None) -> bool:
        """Return whether a key belongs to the shard. All records of an account, hence of a case, have one key."""
        return self.of == 1 or zlib.crc32(key or b"") % self.of == self.number


class ShardResult(NamedTuple):
    """Counts of a folded shard and the sum of its item digests, which is independent of the order of shards."""

    events: int
    items: int
    digest: int


class ItemSink(Protocol):
    """A table to fill."""

    def fill(self, items: Sequence[Item], threads: int) -> None:
        """Store items in a table that nobody else writes."""


@dataclass(slots=True)
class FoldedViews:
    """Folded records: the last view of each case, and each event once with its first known-at time."""

    views: dict[str, CaseView] = field(default_factory=dict)
    stored: dict[tuple[str, str], Item] = field(default_factory=dict)
    parked: dict[str, str] = field(default_factory=dict)
    """Reason by case id for cases with a missing event: their view is not updated, as in the live table."""

    def add(self, known: KnownEvent) -> None:
        """Add the next event of its case."""
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
        """Return all items for the table: the events, then the views."""
        return [*self.stored.values(), *map(view_item, self.views.values())]


def divide(ends: dict[int, int], shard_events: int = SHARD_EVENTS) -> list[PartitionShard]:
    """Divide a log with these ends into shards."""
    return [
        PartitionShard(partition, number, of, until)
        for partition, until in sorted(ends.items())
        if until
        for of in (-(-until // shard_events),)
        for number in range(of)
    ]


def fold(events: Iterable[KnownEvent]) -> FoldedViews:
    """Fold events into views."""
    folded = FoldedViews()
    for event in events:
        folded.add(event)
    return folded


def events_of(log: RecordLog, topic: str, shard: PartitionShard, decoder: Decoder) -> Iterator[KnownEvent]:
    """Yield the case events of a shard in log order."""
    batch: list[LogRecord] = []
    for record in log.read(topic, shard.partition, shard.until):
        if shard.has(record.key):
            batch.append(record)
        if len(batch) == _BATCH_RECORDS:
            yield from decode_case_events(decoder, batch)
            batch = []
    yield from decode_case_events(decoder, batch)


_BATCH_RECORDS: Final = 1_000
_PROGRESS_EVERY: Final = 20_000
"""Items between two progress reports."""


def item_digest(items: Iterable[Item]) -> int:
    """Return the sum of the items' SHA-256, each over canonical JSON. It is independent of their order."""
    total = 0
    for item in items:
        total += int.from_bytes(hashlib.sha256(canonical_json(item)).digest(), "big")
    return total % _MODULUS


def write_views(
    table: ItemSink,
    items: Sequence[Item],
    *,
    threads: int = WRITERS,
    report_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Store items in a table that nobody else writes, and return their number. Idempotent."""
    for start in range(0, len(items), _PROGRESS_EVERY):
        table.fill(items[start : start + _PROGRESS_EVERY], threads)
        report_progress(min(len(items), start + _PROGRESS_EVERY))
    return len(items)


def build(
    log: RecordLog,
    topic: str,
    decoder: Decoder,
    shards: Iterable[PartitionShard],
    table: ItemSink,
    done: Callable[[PartitionShard, ShardResult, FoldedViews], None],
    report_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write shards to a table; fold one shard while the previous one is written.

    `done` is called for each shard in order. `report_progress` receives the number of events of the current shard
    written so far.
    """
    with ThreadPoolExecutor(1) as writer:
        waiting: Callable[[], None] | None = None
        for shard in shards:
            events = list(events_of(log, topic, shard, decoder))
            folded = fold(events)
            if waiting is not None:
                waiting()
            waiting = _start_writing(writer, table, shard, len(events), folded, done, report_progress)
        if waiting is not None:
            waiting()


def _start_writing(
    writer: ThreadPoolExecutor,
    table: ItemSink,
    shard: PartitionShard,
    events: int,
    folded: FoldedViews,
    done: Callable[[PartitionShard, ShardResult, FoldedViews], None],
    report_progress: Callable[[int], None],
) -> Callable[[], None]:
    items = folded.items()
    writing = writer.submit(
        write_views, table, items, report_progress=lambda count: report_progress(count * events // len(items))
    )
    written = ShardResult(events, len(items), item_digest(items))

    def finish() -> None:
        writing.result()
        done(shard, written, folded)

    return finish


# -- throughput of the store ------------------------------------------------------------------------------


def store_writes_per_s(table: DynamoCaseTable, items: Sequence[Item], *, threads: int = WRITERS) -> float:
    """Return the store's maximum rate in items per second: prepared BatchWriteItem requests on `threads` threads."""
    batches = table.prepared(items)
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(table.put_prepared, batches))
    return len(items) / (time.perf_counter() - begun)
