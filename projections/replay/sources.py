"""Sources of a replay. A source holds plain data, so that worker processes can receive it; each opens its own logs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import KafkaException
from confluent_kafka.schema_registry.error import SchemaRegistryError
from httpx2 import HTTPError

from domain.risk.events import DecisionsMade, DuplicateSeen, RiskScored
from projections.archive.bucket import Bucket
from projections.archive.columns import Answers, ArchiveColumns
from projections.archive.segments import Alteration
from projections.archive.stores import StoreOptions, s3_client
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.log import ColumnBatch, KafkaLog
from schemas.catalog import all_schemas
from schemas.codec import Decoder, UnreadableRecord
from schemas.registry import SchemaRegistry

SCORED = ("offset", *(name for name in RiskScored._fields if name not in ("partition", "offset", "shadow")))
"""Columns of a decision to compare, its offset in payments.inbound first; the analytics table has no shadow scores."""
DUPLICATE = ("offset", *(name for name in DuplicateSeen._fields if name not in ("partition", "offset")))


class LogGap(Exception):
    """Error: records of a deciding log are missing, so later events cannot be derived. The message says where."""

    altered: tuple[str, ...] = ()
    """Details of altered records found before the gap."""

    @classmethod
    def before(cls, topic: str, partition: int, offset: int, expected: int) -> "LogGap":
        """Return the error for a log where `offset` was read in place of `expected`."""
        return cls(f"{topic} partition {partition}: offset {offset} follows {expected - 1}, records are missing")

    @classmethod
    def at_end(cls, topic: str, partition: int, expected: int, end: int) -> "LogGap":
        """Return the error for a log without records from `expected` up to its reported end."""
        return cls(f"{topic} partition {partition}: no records from offset {expected} to its end at {end}")


class ColumnLog(Protocol):
    """The logs, read by column."""

    altered: list[Alteration]
    """Altered records and segments found so far."""

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record, by partition."""

    def offset_after(self, topic: str, partition: int, until_ms: int) -> int | None:
        """Return the offset of the first record later than `until_ms`, or None if there is none."""

    def batches(self, topic: str, partition: int, until: int) -> Iterator[ColumnBatch]:
        """Yield the records of a partition from its start up to, not including, offset `until`."""

    def schema_text(self, schema_id: int) -> str | None:
        """Return the writer's schema of an id, or None if it is unknown."""

    def answer_ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record of risk answers, by partition."""

    def answers(self, topic: str, partition: int, until: int) -> Iterator[Answers]:
        """Yield the answers of the risk job; redelivered ones may occur."""


class LogSource(Protocol):
    """Source that opens the logs; equal sources open the same logs."""

    def open(self) -> ColumnLog:
        """Open the logs."""


@dataclass(frozen=True, slots=True)
class BucketSource:
    """The archive as the only source."""

    store: StoreOptions
    bucket: str
    prefix: str

    def objects(self) -> Bucket:
        """Return the bucket of the system."""
        return Bucket(s3_client(self.store), self.bucket, self.prefix)

    def open(self) -> ArchiveColumns:
        """Open the archived logs."""
        return ArchiveColumns(self.objects())


class FallbackSource(Protocol):
    """Source of writers' schemas while the registry is unavailable."""

    def open(self) -> ArchiveColumns:
        """Open the archived logs."""


@dataclass(frozen=True, slots=True)
class KafkaSource:
    """The broker as source. Writers' schemas come from the registry or, if it is unavailable, from the archive."""

    logs: KafkaLogs
    archive: FallbackSource

    def open(self) -> "_KafkaColumns":
        """Open the logs."""
        return _KafkaColumns(self)


class _KafkaColumns(KafkaLog):
    def __init__(self, source: KafkaSource) -> None:
        super().__init__(source.logs.bootstrap)
        self._source = source
        self._registry: SchemaRegistry | None = source.logs.registry(retries=0)
        self._archive: ArchiveColumns | None = None
        self.altered: list[Alteration] = []

    def batches(self, topic: str, partition: int, until: int) -> Iterator[ColumnBatch]:
        try:
            yield from super().batches(topic, partition, until)
        except KafkaException as error:
            raise LogGap(
                f"{topic} partition {partition}: {error.args[0].str()}. To read older records, use --from s3"
            ) from error

    def schema_text(self, schema_id: int) -> str | None:
        if self._registry is not None:
            try:
                return self._registry.schema_text(schema_id)
            except (HTTPError, SchemaRegistryError):
                self._registry = None  # do not retry: the archive has all schemas
        if self._archive is None:
            self._archive = self._source.archive.open()
        try:
            return self._archive.find_schema(self._source.logs.topics.archived_logs, schema_id)
        except (LookupError, BotoCoreError, ClientError) as error:
            url = self._source.logs.registry_url
            raise LogGap(f"schema {schema_id}: the registry at {url} does not answer, and {error}") from error

    def answer_ends(self, topic: str) -> dict[int, int]:
        return self.ends(topic)

    def answers(self, topic: str, partition: int, until: int) -> Iterator[Answers]:
        value: bytes | None = None

        def lookup(schema_id: int) -> str | None:
            try:
                return self.schema_text(schema_id)
            except LogGap:  # the archive stores answers as a table, without their schema
                text = _guess_schema_text(DecisionsMade.__name__, value)
                if text is None:
                    raise
                return text

        decoder = Decoder(lookup, {"Scored": SCORED, "Duplicate": DUPLICATE})
        for batch in self.batches(topic, partition, until):
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                try:
                    name, made = decoder.decode(value)
                except UnreadableRecord as unreadable:
                    name, made = str(unreadable), {}
                if name == DecisionsMade.__name__:
                    yield made["partition"], made["scored"], made["duplicates"]
                else:
                    detail = f"{topic} partition {partition} offset {offset} is not a record of answers: {name}"
                    self.altered.append(Alteration(topic, partition, offset, detail))


def _guess_schema_text(name: str, value: bytes | None) -> str | None:
    """Return our newest schema of a record that decodes the value to its last byte, or None."""
    for schema in reversed([each for each in all_schemas() if each.name == name]):
        try:
            Decoder({0: schema.text}.get).decode(bytes(5) + (value or b"")[5:])
        except UnreadableRecord:
            continue
        return schema.text
    return None
