"""Archive worker: all logs to the archive, and risk.scored to the analytics table. It keeps its positions in S3."""

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from prometheus_client import Gauge

from projections.archive.analytics import AnalyticsWriter
from projections.archive.bucket import Bucket, Retention
from projections.archive.case_counts import CaseCounts
from projections.archive.heads import ArchiveContradiction, BadHead, HeadWriter
from projections.archive.record_leaf import FIELDS, RecordParts, RecordShape, cut_value, record_salt, shape_of
from projections.archive.segments import (
    RecordDescription,
    archive_position,
    partition_folder,
    segments,
    stored_identities,
    write_segment,
)
from projections.archive.signing import Signer, load_signer
from projections.archive.stores import StoreOptions, s3_client
from projections.logs.log import KafkaLog, LogRecord
from projections.logs.worker import EVENTS, WRITTEN, StopSignal, complain, logs_of, parser, serve_metrics
from schemas.codec import Decoder
from schemas.topics import Topics

NAME = "archive"
MAX_SEGMENT_RECORDS = 20_000
MAX_SEGMENT_BYTES = 32 << 20
IDLE_POLLS = 10
MAX_WAITING_POLLS = 250
"""Polls after which a segment that is not full is written: quiet ones of its partition, or all since the last one."""
HEAD_POLLS = 15
"""Polls between two heads."""
POLL_S, GATHERS_MS = 0.2, 200
KEY_VARIABLE = "FRAUDCASE_AUDIT_KEY"
UNSIGNED = Gauge("fraudcase_audit_unsigned", "1 if the archive contradicts its last head and signing has stopped")


class RecordSink(Protocol):
    """Store of one partition's records."""

    @property
    def position(self) -> int:
        """Return the offset of the first record that is not stored yet."""

    def write(self, records: list[LogRecord]) -> None:
        """Store the records. Idempotent: call again after a failure."""


class RecordDescriber:
    """Describes records for the archive and stores their writers' schemas.

    With a salt key, parts of the records can be withheld from a proof.
    """

    def __init__(self, bucket: Bucket, schema_text: Callable[[int], str | None], salt_key: bytes | None = None) -> None:
        self._bucket, self._schema_text, self._salt_key = bucket, schema_text, salt_key
        self._known: dict[int, tuple[str, str | None, RecordShape | None]] = {}

    def describe(self, record: LogRecord) -> RecordDescription:
        """Return the type, schema and parts of a record, and for a case event its identity."""
        value = record.value
        salt = None if self._salt_key is None else record_salt(self._salt_key, record)
        if value is None or len(value) < 5 or value[0] != 0:
            return RecordDescription(cut_value(value, None), salt)
        schema_id = int.from_bytes(value[1:5], "big", signed=True)
        known = self._known.get(schema_id) or self._schema(schema_id)
        if known is None:
            return RecordDescription(cut_value(value, None), salt, schema_id=schema_id)
        sha256, name, shape = known
        value_parts = cut_value(value, shape)
        identity = _identity(value_parts) if record.topic.endswith("cases.events") else None
        return RecordDescription(value_parts, salt, name, schema_id, sha256, identity)

    def _schema(self, schema_id: int) -> tuple[str, str | None, RecordShape | None] | None:
        text = self._schema_text(schema_id) if schema_id >= 0 else None
        if text is None:
            return None
        sha256, shape = hashlib.sha256(text.encode()).hexdigest(), shape_of(text)
        self._bucket.put_new(f"schemas/{sha256}.avsc", text.encode())
        self._known[schema_id] = sha256, None if shape is None else shape.name, shape
        return self._known[schema_id]


def _identity(value_parts: RecordParts) -> str | None:
    if value_parts.form != FIELDS:
        return None
    case_id, sequence, command_id = value_parts.wanted
    if case_id is None or (sequence is None and command_id is None):
        return None
    return f"{case_id}/answer/{command_id}" if sequence is None else f"{case_id}/{sequence}"


class ArchiveWriter:
    """Writer of one partition of a log."""

    def __init__(self, bucket: Bucket, topic: str, partition: int, describer: RecordDescriber) -> None:
        self._bucket, self._describer = bucket, describer
        self.topic, self.partition = topic, partition
        self._folder = partition_folder(topic, partition)
        self._stored: dict[str, bytes] = {}
        self.cases: CaseCounts | None = CaseCounts() if topic.endswith("cases.events") else None
        self._resume()

    def _resume(self) -> None:
        """Read the position and the stored case events from the archive."""
        self.archive_position = archive_position(self._bucket, self._folder)
        self.position = self.archive_position.last_offset + 1
        if self.cases is None:
            return
        self.cases = CaseCounts()
        for segment in segments(self._bucket, self._folder):
            if segment.first_offset <= self.archive_position.last_offset:
                identities = stored_identities(self._bucket, segment)
                self._stored.update(identities)
                self.cases.extend(identity for identity, _ in identities)

    def write(self, records: list[LogRecord]) -> None:
        """Store records as one segment, without case events that the archive already has."""
        fresh = [record for record in records if record.offset >= self.position]
        if not fresh:
            return
        kept, notes = [], []
        seen: dict[str, bytes] = {}
        for record in fresh:
            described = self._describer.describe(record)
            identity = described.identity
            if identity is not None:
                content = hashlib.sha256(record.value or b"").digest()
                if content == seen.get(identity, self._stored.get(identity)):
                    continue
                seen[identity] = content
            kept.append(record)
            notes.append(described)
        if not kept:
            self.position = fresh[-1].offset + 1
            return
        after = write_segment(self._bucket, kept, notes, self.archive_position, fresh[-1].offset)
        if after is None:  # an earlier attempt succeeded without an acknowledgement, or another worker wrote it
            self._resume()
            self.write(fresh)
            return
        self.archive_position, self.position = after, fresh[-1].offset + 1
        self._stored.update(seen)
        if self.cases is not None:
            self.cases.extend(each.identity for each in notes if each.identity is not None)


class SegmentBuffer:
    """Records of one partition that wait for their segment."""

    def __init__(self, sink: RecordSink) -> None:
        self.sink = sink
        self.records: list[LogRecord] = []
        self._bytes = 0
        self._quiet_polls = 0
        self._waiting_polls = 0

    def add(self, records: list[LogRecord]) -> None:
        """Add the records of one poll; an empty list counts as a quiet poll."""
        self.records += records
        self._bytes += sum(len(record.value or b"") for record in records)
        self._quiet_polls = 0 if records else self._quiet_polls + 1
        self._waiting_polls += 1

    @property
    def is_due(self) -> bool:
        """Return whether to write now."""
        if not self.records:
            return False
        is_full = len(self.records) >= MAX_SEGMENT_RECORDS or self._bytes >= MAX_SEGMENT_BYTES
        return is_full or self._quiet_polls >= IDLE_POLLS or self._waiting_polls >= MAX_WAITING_POLLS

    def write(self) -> None:
        """Store all records, in segments of at most MAX_SEGMENT_RECORDS."""
        while self.records:
            self.sink.write(self.records[:MAX_SEGMENT_RECORDS])
            del self.records[:MAX_SEGMENT_RECORDS]
        self._bytes = self._quiet_polls = self._waiting_polls = 0


def buffers_of(
    bucket: Bucket, topics: Topics, log: KafkaLog, lookup: Callable[[int], str | None], salt_key: bytes | None
) -> dict[tuple[str, int], SegmentBuffer]:
    """Return a buffer with its sink for every partition of every log."""
    describer, decoder = RecordDescriber(bucket, lookup, salt_key), Decoder(lookup)
    archived = (*topics.archived_logs, topics.quarantine)
    buffers: dict[tuple[str, int], SegmentBuffer] = {
        (topic, number): SegmentBuffer(ArchiveWriter(bucket, topic, number, describer))
        for topic in archived
        for number in log.ends(topic)
    }
    for number in log.ends(topics.risk_scored):
        buffers[topics.risk_scored, number] = SegmentBuffer(AnalyticsWriter(bucket, number, decoder))
    return buffers


class HeadSchedule:
    """Signing of a head over all stored records every HEAD_POLLS polls.

    If the archive contradicts its last head, signing stops. Archiving continues, because records that are only in Kafka
    would be lost at the end of its retention.
    """

    def __init__(self, bucket: Bucket, signer: Signer | None, writers: list[ArchiveWriter], kept: Path | None) -> None:
        self._kept = kept
        self._heads: HeadWriter | None = None
        self._polls = 0
        if signer is None:
            complain("no audit key (FRAUDCASE_AUDIT_KEY): no heads are signed")
            return
        try:
            kept_head = kept.read_bytes() if kept is not None and kept.exists() else None
            self._heads = HeadWriter(bucket, signer, writers, kept_head)
        except (ArchiveContradiction, BadHead) as error:
            self._stop_signing(error)

    def is_due(self) -> bool:
        """Count one poll and return whether to sign."""
        self._polls += 1
        return self._heads is not None and self._polls >= HEAD_POLLS

    def sign(self) -> None:
        """Sign a head if anything is new, and keep a copy outside the bucket."""
        self._polls = 0
        try:
            head = None if self._heads is None else self._heads.write()
        except ArchiveContradiction as error:
            self._stop_signing(error)
            return
        if head is not None:
            WRITTEN.labels(NAME, "heads").inc()
            if self._kept is not None:
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                made = self._kept.with_suffix(".new")
                made.write_bytes(head.body)
                made.replace(self._kept)

    def _stop_signing(self, error: Exception) -> None:
        UNSIGNED.set(1)
        complain(f"NO HEAD IS SIGNED: signing has stopped: {error}. Run: fraudcase audit verify")
        self._heads = None


def main() -> None:
    """Run until stopped by SIGTERM or SIGINT, then write the buffered records."""
    options = parser()
    options.add_argument("--s3-url", help="address of S3; default: AWS")
    options.add_argument("--bucket", required=True)
    options.add_argument(
        "--last-head", type=Path, help="file outside the bucket that keeps a copy of the last signed head"
    )
    options.add_argument("--lock-mode", choices=("GOVERNANCE", "COMPLIANCE"), default="GOVERNANCE")
    options.add_argument(
        "--lock-days", type=int, default=0, help="retention if the bucket has Object Lock; 0: the bucket's default"
    )
    known = options.parse_args()
    stop, logs = StopSignal(), logs_of(known)
    bucket = Bucket(s3_client(StoreOptions(url=known.s3_url)), known.bucket, logs.topics.prefix)
    if known.lock_days and bucket.has_lock():
        retention = Retention(mode=known.lock_mode, days=known.lock_days, now=lambda: datetime.now(UTC))
        bucket = bucket.with_retention(retention)
    log = logs.reader()
    given = os.environ.get(KEY_VARIABLE)
    signer = load_signer(given) if given else None
    lookup = stop.retry_while_unavailable(logs.registry().schema_text)
    buffers = buffers_of(bucket, logs.topics, log, lookup, None if signer is None else signer.salt_key)
    writers = [buffer.sink for buffer in buffers.values() if isinstance(buffer.sink, ArchiveWriter)]
    signing = HeadSchedule(bucket, signer, writers, known.last_head)
    follower = log.follow({place: buffer.sink.position for place, buffer in buffers.items()}, GATHERS_MS)
    serve_metrics(known.metrics_port)
    while not stop.is_set:
        arrived: dict[tuple[str, int], list[LogRecord]] = {place: [] for place in buffers}
        for record in follower.poll(POLL_S):
            arrived[record.topic, record.partition].append(record)
        for place, buffer in buffers.items():
            buffer.add(arrived[place])
            EVENTS.labels(NAME, place[0]).inc(len(arrived[place]))
            if buffer.is_due and stop.persist(buffer.write):
                WRITTEN.labels(NAME, "segments").inc()
        if signing.is_due():
            stop.persist(signing.sign)
    for buffer in buffers.values():
        buffer.write()
    signing.sign()
    follower.close()


if __name__ == "__main__":
    main()
