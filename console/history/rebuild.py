"""Rebuilds the case views: builds a version beside the live one, compares it, catches up, switches, drops the old
one.

A rebuild appends to no log and sends nothing. It reads logs and writes one table, rows of the control store, and the
offsets of the new version's own consumer group. Webhooks and the process worker read cases.events in other groups,
which a rebuild does not touch.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from console.terminal import messages, progress
from console.views.live_table import LOOK_EVERY_S
from console.views.versions import CASES, ViewVersion, ViewVersionError, ViewVersions
from console.wiring import RebuildParts
from domain.digest import canonical_json
from migrations.models import ViewVersionRow
from migrations.store import exclusive_lock
from projections.archive.archived_log import ArchivedLog
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.log import MAX_BATCH, KafkaLog, RecordLog, to_log_record
from projections.logs.worker import decode_case_events
from projections.views.case_table import DynamoCaseTable
from projections.views.rebuild import (
    FoldedViews,
    PartitionShard,
    ShardResult,
    build,
    divide,
    events_of,
    fold,
    item_digest,
)
from projections.views.worker import ViewProjector, group_of
from schemas.codec import Decoder

SHOWN: Final = 10
"""Maximum number of differences that a report lists; it counts all of them."""
TAKEN_OVER_WITHIN_S: Final = 30.0
"""Seconds that a rebuild waits for the worker to take over the new version."""
SETTLED_WITHIN_S: Final = 10.0
"""Seconds that the old version gets to catch up before the two count as different."""
DROP_AFTER_S: Final = 4 * LOOK_EVERY_S
"""Seconds that the old table stays after a switch: readers look up the name every LOOK_EVERY_S."""
_POLL_S: Final = 0.1
_WAIT_S: Final = 0.25
_MODULUS: Final = 1 << 256


class RebuildError(RuntimeError):
    """A version that cannot be built, or that differs from the log; the message gives the reason and the cure."""


@dataclass(slots=True)
class RebuildResult:
    """Report of a rebuild, with the differences to the old version."""

    document: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@contextmanager
def _rebuild_lock(versions: ViewVersions) -> Iterator[None]:
    with exclusive_lock(versions.engine, f"rebuild of {CASES}"):
        yield


def rebuild(parts: RebuildParts, source: str, *, keep_old: bool, share_events: int | None = None) -> RebuildResult:
    """Rebuild the case views from `kafka` or `s3`, or resume a rebuild that was killed. Raise RebuildError,
    LockHeld.
    """
    versions, log = parts.versions, _source(parts, source)
    with _rebuild_lock(versions):
        begun = time.monotonic()
        row = _begin(parts, log, source, share_events)
        rebuilding = ShardedRebuild(parts, row, log)
        figures = rebuilding.build()
        built_s = time.monotonic() - begun
        catching_up = VersionCatchUp(parts, row)
        try:
            old = versions.live()
            differing = catching_up.compare(old)
            catching_up.switch()
        finally:
            catching_up.close()
    dropped = [] if keep_old else [drop(parts, old.number)]
    outcome = RebuildResult(
        {
            "view": CASES,
            "source": source,
            "version": row.version,
            "table": row.table_name,
            **figures,
            "built_s": round(built_s, 1),
            "old_version": old.number,
            "differs_from_old": len(differing),
            "differences": differing[:SHOWN],
            "switched": True,
            "dropped": dropped,
        }
    )
    outcome.problems = differing
    return outcome


def _source(parts: RebuildParts, source: str) -> tuple[RecordLog, Decoder]:
    if source == "s3":
        archive = ArchivedLog(parts.archive.objects())
        return archive, Decoder(archive.schema_text)
    return parts.logs.reader(), parts.logs.decoder()


def _begin(
    parts: RebuildParts, log: tuple[RecordLog, Decoder], source: str, share_events: int | None
) -> ViewVersionRow:
    """Return the unfinished version, or begin a new one."""
    unfinished = parts.versions.unfinished()
    if unfinished is None:
        topic = parts.logs.topics.cases_events
        ends = log[0].ends(topic)
        if isinstance(log[0], KafkaLog):
            _check_whole(parts.logs, topic)
        return parts.versions.begin(source, divide(ends, share_events) if share_events else divide(ends))
    if unfinished.source != source:
        raise RebuildError(
            f"version {unfinished.version} of {CASES} is being rebuilt from {unfinished.source}. Resume it: "
            f"fraudcase rebuild {CASES} --from {unfinished.source}. Or drop it: "
            f"fraudcase views drop {unfinished.version}"
        )
    messages.print(f"resuming version {unfinished.version}, which is {unfinished.state}", highlight=False)
    return unfinished


def _check_whole(logs: KafkaLogs, topic: str) -> None:
    with _consumer(logs, "fraudcase-reader") as consumer:
        for number in _partitions(consumer, topic):
            low, _ = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
            if low:
                raise RebuildError(
                    f"{topic} partition {number} begins at offset {low}: Kafka no longer holds its start. "
                    f"Cure: fraudcase rebuild {CASES} --from s3"
                )


@contextmanager
def _consumer(logs: KafkaLogs, group: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": logs.bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    return sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)


class ShardedRebuild:
    """The first stage of a rebuild, shard by shard; finished shards are noted in the control store and survive a
    kill.
    """

    def __init__(self, parts: RebuildParts, row: ViewVersionRow, log: tuple[RecordLog, Decoder]) -> None:
        self._versions, self._row = parts.versions, row
        self._log, self._decoder = log
        self._topic = parts.logs.topics.cases_events
        self._table = parts.open_table(row.table_name)
        self._parked: dict[str, str] = {}

    def build(self) -> dict[str, Any]:
        """Build the missing shards and compare the table with the log. Return the figures. Raise RebuildError if
        they differ.
        """
        begun, before = time.monotonic(), self._done()
        self._table.ensure()
        if self._row.state == "building":
            self._write()
            self._check_source()
            self._compare_with_derived()
        written_s = time.monotonic() - begun
        shares = self._versions.shares(self._row.version)
        row = self._versions.row(self._row.version)
        events = sum(share.events for share in shares)
        return {
            "events": events,
            "events_per_s": round((events - before) / written_s) if written_s else 0,
            "items": row.items,
            "digest": row.digest,
            "derived_digest": f"{sum(int(share.digest, 16) for share in shares) % _MODULUS:064x}",
            "equal": True,
            "parked": len(self._parked),
        }

    def _done(self) -> int:
        return sum(share.events for share in self._versions.shares(self._row.version) if share.done_at_ms)

    def _write(self) -> None:
        todo, total, seen_events = [], 0, 0
        for row in self._versions.shares(self._row.version):
            share = PartitionShard(row.partition, row.share, row.shares, row.until)
            total += share.until // share.of
            if row.done_at_ms is None:
                todo.append(share)
            else:
                seen_events += share.until // share.of
        with progress("events rebuilt", total) as seen:

            def done(share: PartitionShard, written: ShardResult, folded: FoldedViews) -> None:
                nonlocal seen_events
                self._versions.done(self._row.version, share, written)
                self._parked |= folded.parked
                seen_events += share.until // share.of
                seen(seen_events)

            build(
                self._log, self._topic, self._decoder, todo, self._table, done,
                lambda written: seen(seen_events + written),
            )  # fmt: skip

    def _check_source(self) -> None:
        altered = self._log.altered if isinstance(self._log, ArchivedLog) else []
        if altered:
            self._versions.undo(self._row.version)
            raise RebuildError(f"{altered[0].detail}: an altered archive is not used for a rebuild")

    def _compare_with_derived(self) -> None:
        """Read the whole table back and compare its digest with the digest of the shards."""
        shares = self._versions.shares(self._row.version)
        wanted, items = sum(int(share.digest, 16) for share in shares) % _MODULUS, 0
        total = 0
        with progress("items compared", sum(share.items for share in shares)) as seen:
            for item in self._table.scan():
                total += item_digest([item])
                items += 1
                if items % 1000 == 0:
                    seen(items)
        if total % _MODULUS != wanted:
            named = self._first_difference()
            self._versions.undo(self._row.version)
            raise RebuildError(
                f"version {self._row.version} differs from the log, so nothing was switched: {named}. "
                f"Rebuild it: fraudcase views drop {self._row.version}; fraudcase rebuild {CASES}"
            )
        self._versions.built(self._row.version, items, f"{wanted:064x}")

    def _first_difference(self) -> str:
        stored = {(item["pk"], item["sk"]): item_digest([item]) for item in self._table.scan()}
        for row in self._versions.shares(self._row.version):
            share = PartitionShard(row.partition, row.share, row.shares, row.until)
            for item in fold(events_of(self._log, self._topic, share, self._decoder)).items():
                if stored.pop((item["pk"], item["sk"]), None) != item_digest([item]):
                    return f"{item['pk']} {item['sk']} should be {_shorten_text(canonical_json(item))}"
        return f"{' '.join(min(stored))} comes from no event" if stored else "the log has changed meanwhile"


def _shorten_text(encoded: bytes) -> str:
    text = encoded.decode()
    return text if len(text) <= 400 else f"{text[:400]}…"


class VersionCatchUp:
    """The second stage: brings a version to the end of the log, makes it live, and updates it until its worker takes
    over.

    It reads and commits in the version's consumer group, as the worker does, so that either continues after the other
    was killed. Writes are conditional: the two may overlap.
    """

    def __init__(self, parts: RebuildParts, row: ViewVersionRow) -> None:
        self._logs, self._versions, self._row = parts.logs, parts.versions, row
        self._topic = parts.logs.topics.cases_events
        self._group = group_of(self._topic, row.version)
        self._open = parts.open_table
        self._table = self._open(row.table_name)
        self._projector = ViewProjector(self._table)
        self._decoder = parts.logs.decoder()
        self._admin = AdminClient({"bootstrap.servers": parts.logs.bootstrap})
        self._scope = _consumer(parts.logs, self._group)
        self._consumer = self._scope.__enter__()
        self._position = self._starts()
        self._consumer.assign([TopicPartition(self._topic, *mark) for mark in self._position.items()])

    def close(self) -> None:
        """Close the connection."""
        self._scope.__exit__(None, None, None)

    def _starts(self) -> dict[int, int]:
        built = {share.partition: share.until for share in self._versions.shares(self._row.version)}
        marks = [TopicPartition(self._topic, number) for number in _partitions(self._consumer, self._topic)]
        committed = self._consumer.committed(marks, timeout=10)
        return {mark.partition: max(mark.offset, built.get(mark.partition, 0)) for mark in committed}

    def run(self) -> None:
        """Apply the events up to the current end of the log."""
        ends = self._logs.reader().ends(self._topic)
        while any(self._position[number] < end for number, end in ends.items()):
            self._step()
        self._commit()

    def _step(self) -> None:
        records = [to_log_record(message) for message in self._consumer.consume(MAX_BATCH, timeout=_POLL_S)]
        if records:
            self._projector.apply(decode_case_events(self._decoder, records))
            self._position |= {record.partition: record.offset + 1 for record in records}

    def _commit(self) -> None:
        marks = [TopicPartition(self._topic, number, offset) for number, offset in self._position.items()]
        with suppress(KafkaException):  # the worker has joined the group and commits from now on
            self._consumer.commit(offsets=marks, asynchronous=False)

    def compare(self, old: ViewVersion) -> list[str]:
        """Return the items in which the live version differs, once both versions have read the same events."""
        self.run()
        before = self._open(old.table)
        suspects = self._suspects(before)
        until = time.monotonic() + SETTLED_WITHIN_S
        while True:
            self.run()  # first, so that this version has read what the old one holds
            named: dict[str, list[str]] = {}
            for case_id in sorted(suspects):
                differing = _item_differences(before.items_of(case_id), self._table.items_of(case_id))
                if differing:
                    named[case_id] = differing
            if not named or time.monotonic() > until:
                return [each for differing in named.values() for each in differing]
            suspects = set(named)
            time.sleep(_WAIT_S)

    def _suspects(self, before: DynamoCaseTable) -> set[str]:
        """Return the cases with an item that differs now; one of the tables may only be a moment ahead."""
        with progress("items of the old version compared", self._row.items) as seen:
            ours = {(item["pk"], item["sk"]): item_digest([item]) for item in self._table.scan()}
            keys = set()
            for number, item in enumerate(before.scan()):
                key = item["pk"], item["sk"]
                if ours.pop(key, None) != item_digest([item]):
                    keys.add(key)
                if number % 1000 == 0:
                    seen(number)
        return {pk.removeprefix("case#") for pk, _ in keys | ours.keys()}

    def switch(self) -> None:
        """Make the version live and update it until its worker has taken over."""
        has_worker = self._members(group_of(self._topic, self._versions.live().number)) > 0
        self.run()
        self._versions.switch(self._row.version)
        until = time.monotonic() + (TAKEN_OVER_WITHIN_S if has_worker else 0)
        while not self._members(self._group):
            self.run()
            if time.monotonic() > until:
                if has_worker:
                    messages.print(
                        "the worker of the case views has not taken over the new version yet. Look at its log"
                    )
                return
            time.sleep(_WAIT_S)
        self.run()  # events that came while the worker was joining the group

    def _members(self, group: str) -> int:
        try:
            described = self._admin.describe_consumer_groups([group], request_timeout=10)[group].result(10)
        except KafkaException:
            return 0
        return len(described.members)


def _item_differences(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    before = {item["sk"]: item for item in old}
    after = {item["sk"]: item for item in new}
    return [
        f"{(before.get(place) or after[place])['pk']} {place}: the old version has {_item_text(before.get(place))}, "
        f"the log gives {_item_text(after.get(place))}"
        for place in sorted(before.keys() | after.keys())
        if before.get(place) != after.get(place)
    ]


def _item_text(item: Mapping[str, Any] | None) -> str:
    return "nothing" if item is None else _shorten_text(canonical_json(dict(item)))


def switch(parts: RebuildParts, number: int) -> None:
    """Make another version live, even an old one, after bringing it to the end of the log. Raise ViewVersionError."""
    versions = parts.versions
    with _rebuild_lock(versions):
        row = versions.row(number)
        if row.state not in ("built", "old"):
            raise ViewVersionError(f"version {number} of {CASES} is {row.state}: only a built version can become live")
        catching_up = VersionCatchUp(parts, row)
        try:
            catching_up.switch()
        finally:
            catching_up.close()


def drop(parts: RebuildParts, number: int) -> int:
    """Drop a version that is not live: its table and its consumer group. Return its number."""
    versions = parts.versions
    with _rebuild_lock(versions):
        row = versions.row(number)
        ended_s = (row.ended_at_ms or 0) / 1000
        if row.state == "old":
            time.sleep(max(0.0, min(DROP_AFTER_S, ended_s + DROP_AFTER_S - time.time())))
        parts.open_table(versions.drop(number)).drop()
        _forget(parts.logs, group_of(parts.logs.topics.cases_events, number))
    return number


def _forget(logs: KafkaLogs, group: str) -> None:
    """Delete a consumer group; one that has members or does not exist is left alone, since its number is not reused."""
    admin = AdminClient({"bootstrap.servers": logs.bootstrap})
    with suppress(KafkaException):
        admin.delete_consumer_groups([group], request_timeout=10)[group].result(10)


def old_versions(versions: ViewVersions) -> list[int]:
    """Return the numbers of versions that were live before and are kept."""
    return [row.version for row in versions.every() if row.state == "old"]
