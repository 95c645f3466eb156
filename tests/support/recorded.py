"""A recorded history without a stack: the real processors, archive and analytics table, in memory and in a folder."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq

from domain.cases.events import ClockTicked
from domain.payment import FIELDS
from domain.record_types import to_fields
from domain.risk.default_packs import THREE
from domain.risk.events import TUPLES, RulesActivated
from domain.risk.packs import RulePack
from generator.traffic import Traffic, TrafficOptions
from projections.archive.analytics import AnalyticsWriter
from projections.archive.bucket import Bucket
from projections.archive.columns import Answers, ArchiveColumns
from projections.archive.segments import Alteration, record_sha256
from projections.archive.worker import ArchiveWriter, RecordDescriber
from projections.logs.log import ColumnBatch, LogRecord
from projections.replay.sources import DUPLICATE, SCORED
from schemas.codec import Decoder, Encoder
from schemas.topics import Topics
from stream.journal import PartitionRecord
from stream.microbatch import Emission
from stream.processors import CaseProcessor, EntityProcessor, PartitionContext, RiskProcessor
from tests.support.entities import SHOP
from tests.support.processors import PartitionState
from tests.support.records import ENCODER, IDS, TEXTS

TOPICS = Topics(prefix="t.")
PARTITIONS = 3
CODEC = Decoder(TEXTS.get, {"Transaction": FIELDS}), Encoder(IDS, TUPLES)
HOUR_MS = 3_600_000
RULES = RulePack(name="recorded", version=1, rules=(*THREE.rules, SHOP))
"""A pack with rules by account, and one by merchant."""


class FolderBucket(Bucket):
    """Objects in a folder, which worker processes open like a real bucket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        if (self.folder / key).exists():
            return False
        self.put(key, body, metadata or {})
        return True

    def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Store an object, and overwrite an existing one."""
        file = self.folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        file.with_name(f"{file.name}.meta").write_text(json.dumps(dict(metadata)))

    def get(self, key: str) -> bytes | None:
        file = self.folder / key
        return file.read_bytes() if file.is_file() else None

    def metadata(self, key: str) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / f"{key}.meta").read_text())
        return found

    def keys(self, under: str) -> Iterator[str]:
        files = (file for file in self.folder.rglob("*") if file.is_file() and file.suffix != ".meta")
        keys = sorted(file.relative_to(self.folder).as_posix() for file in files)
        return iter([key for key in keys if key.startswith(under)])


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Archive in a folder."""

    folder: Path

    def open(self) -> ArchiveColumns:
        return ArchiveColumns(FolderBucket(self.folder))


Recording = dict[str, list[list[LogRecord]]]
"""Every log, by partition."""


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Source that reads the logs in memory like those of a broker."""

    logs: Recording

    def open(self) -> "MemoryLogs":
        return MemoryLogs(self.logs)


class MemoryLogs:
    def __init__(self, logs: Recording) -> None:
        self._logs = logs
        self.altered: list[Alteration] = []

    def ends(self, topic: str) -> dict[int, int]:
        return {number: len(records) for number, records in enumerate(self._logs[topic])}

    def offset_after(self, topic: str, partition: int, until_ms: int) -> int | None:
        later = (record.offset for record in self._logs[topic][partition] if record.timestamp_ms > until_ms)
        return next(later, None)

    def batches(self, topic: str, partition: int, until: int) -> Iterator[ColumnBatch]:
        records = [record for record in self._logs[topic][partition] if record.offset < until]
        for first in range(0, len(records), 700):
            some = records[first : first + 700]
            yield ColumnBatch(*zip(*((each.offset, each.timestamp_ms, each.value) for each in some), strict=True))

    def schema_text(self, schema_id: int) -> str | None:
        return TEXTS.get(schema_id)

    def answer_ends(self, topic: str) -> dict[int, int]:
        return self.ends(topic)

    def answers(self, topic: str, partition: int, until: int) -> Iterator[Answers]:
        decoder = Decoder(TEXTS.get, {"Scored": SCORED, "Duplicate": DUPLICATE})
        for batch in self.batches(topic, partition, until):
            for value in batch.values:
                made = decoder.decode(value)[1]
                yield made["partition"], made["scored"], made["duplicates"]


class Recorder:
    """The jobs over logs in memory: they read in batches of 50, and their output is appended to the logs."""

    def __init__(self, pack: RulePack = RULES) -> None:
        self.logs: Recording = {topic: [[] for _ in range(PARTITIONS)] for topic in TOPICS.decision_logs}
        self._read = {(topic, number): 0 for topic in TOPICS.decision_logs for number in range(PARTITIONS)}
        states = [PartitionState() for _ in range(3 * PARTITIONS)]
        kinds: list[tuple[str, Callable[[PartitionContext], Any]]] = [
            (TOPICS.payments_inbound, RiskProcessor),
            (TOPICS.entities_inbound, EntityProcessor),
            (TOPICS.cases_inbox, CaseProcessor),
        ]
        self._jobs = {
            (topic, number): kind(PartitionContext(number, states.pop(), *CODEC, TOPICS))
            for topic, kind in kinds
            for number in range(PARTITIONS)
        }
        self.now_ms = 1_000
        self.activate(pack)

    def append(self, topic: str, partition: int, key: bytes, value: bytes | None, at_ms: int) -> None:
        """Append a record."""
        log = self.logs[topic][partition]
        headers = (("row", b"\x01"), ("run", key)) if topic == TOPICS.payments_inbound else ()
        log.append(LogRecord(topic, partition, len(log), at_ms, key, value, headers))

    def activate(self, pack: RulePack) -> None:
        """Activate a rule pack."""
        record = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="test")
        for topic in TOPICS.ruled_logs:
            for number in range(PARTITIONS):
                self.append(topic, number, b"", ENCODER.encode("RulesActivated", to_fields(record)), self.now_ms)
        self.work()

    def pay(self, payments: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Append payments, each at its time."""
        for at_ms, fields in payments:
            self.now_ms = max(self.now_ms, at_ms)
            key = str(fields["account_id"]).encode()
            value = ENCODER.encode("Transaction", fields)
            self.append(TOPICS.payments_inbound, crc32(key) % PARTITIONS, key, value, at_ms)
        self.work()

    def tick(self) -> None:
        """Advance the clock by five hours."""
        self.now_ms += 5 * HOUR_MS
        value = ENCODER.encode("ClockTicked", to_fields(ClockTicked(tick_id=str(self.now_ms), now_ms=self.now_ms)))
        for number in range(PARTITIONS):
            self.append(TOPICS.cases_inbox, number, b"", value, self.now_ms)
        self.work()

    def work(self) -> None:
        """Run the jobs until all records are read."""
        moved = True
        while moved:
            moved = any([*map(self._step, self._jobs)])

    def _step(self, place: tuple[str, int]) -> bool:
        log, first = self.logs[place[0]][place[1]], self._read[place]
        batch = [PartitionRecord(each.offset, each.timestamp_ms, each.value) for each in log[first : first + 50]]
        self._read[place] += len(batch)
        if batch:
            self.emit(self._jobs[place].process(batch), batch[-1].timestamp_ms)
        return bool(batch)

    def emit(self, emissions: Sequence[Emission], at_ms: int) -> None:
        """Append the output of a job."""
        for topic, key, value in emissions:
            if topic.decode() in self.logs:
                self.append(topic.decode(), crc32(key) % PARTITIONS, key, value, at_ms + 7)


def traffic(number: int, seed: int = 3, accounts: int = 40) -> list[tuple[int, dict[str, Any]]]:
    """Return payments in the order of arrival: some late, some duplicated, some invalid."""
    options = TrafficOptions(seed=seed, accounts=accounts, velocity_share=0.01, spike_share=0.01, delayed_share=0.02)
    made = [(each.arrives_ms, each.transaction) for each in islice(Traffic(options), number)]
    made[7:7] = [made[3], (made[6][0], {**made[6][1], "amount_minor": -5})]
    return made


def recorded(payments: Sequence[tuple[int, dict[str, Any]]]) -> Recorder:
    """Record a history with escalations by the clock."""
    recorder = Recorder()
    recorder.pay(payments)
    recorder.tick()
    return recorder


def archive(logs: Recording, folder: Path) -> FolderSource:
    """Store the logs as the archive worker does, in two segments each."""
    store = FolderBucket(folder)
    describer = RecordDescriber(store, TEXTS.get)
    for topic in TOPICS.archived_logs:
        for number, records in enumerate(logs[topic]):
            writer = ArchiveWriter(store, topic, number, describer)
            for some in (records[: len(records) // 2], records[len(records) // 2 :]):
                writer.write(list(some))
    for number, records in enumerate(logs[TOPICS.risk_scored]):
        AnalyticsWriter(store, number, Decoder(TEXTS.get)).write(list(records))
    return FolderSource(folder)


Put = Callable[[str, bytes, Mapping[str, str]], None]


def alter(store: Bucket, put: Put, topic: str, change: Callable[[bytes], bytes | None]) -> tuple[int, int]:
    """Change the first record of a log for which `change` returns bytes, and its SHA-256; return its log position."""
    for key in store.keys(f"log/{topic}/"):
        table = pq.read_table(BytesIO(store.get(key) or b""))
        rows = table.to_pylist()
        for row in rows:
            changed = None if row["value"] is None else change(row["value"])
            if changed is not None:
                row["value"] = changed
                headers = tuple((each["name"], each["value"]) for each in row["headers"])
                place = row["topic"], row["partition"], row["offset"], row["timestamp_ms"]
                row["sha256"] = record_sha256(LogRecord(*place, row["key"], changed, headers))
                sink = BytesIO()
                pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), sink)
                put(key, sink.getvalue(), store.metadata(key))
                return row["partition"], row["offset"]
    raise AssertionError(f"nothing to change in {topic}")
