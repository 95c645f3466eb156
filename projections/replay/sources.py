"""Where a replay reads from. A source crosses to worker processes, so it holds plain data; each opens its own."""

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
"""A decision as a row to compare, its offset in payments.inbound first; the analytics table has no shadow scores."""
DUPLICATE = ("offset", *(name for name in DuplicateSeen._fields if name not in ("partition", "offset")))


class LogGap(Exception):
    """Records of a log that decides are missing: what follows cannot be derived. The message says where."""

    altered: tuple[str, ...] = ()
    """What was found altered before."""


class ColumnLog(Protocol):
    """The logs, by column."""

    altered: list[Alteration]
    """What is not as it was written, so far."""

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record, by partition."""

    def offset_after(self, topic: str, partition: int, until_ms: int) -> int | None:
        """The offset of the first record that is later than a time, None where there is none."""

    def batches(self, topic: str, partition: int, until: int) -> Iterator[ColumnBatch]:
        """The records of a partition from its start up to an offset."""

    def schema_text(self, schema_id: int) -> str | None:
        """The writer's schema of an id, None if it is unknown."""

    def answer_ends(self, topic: str) -> dict[int, int]:
        """Where the answers of the risk job end, by partition."""

    def answers(self, topic: str, partition: int, until: int) -> Iterator[Answers]:
        """What the risk job answered, perhaps more than once."""


class LogSource(Protocol):
    """Opens the logs; equal sources open the same."""

    def open(self) -> ColumnLog:
        """Connect."""


@dataclass(frozen=True, slots=True)
class BucketSource:
    """The archive, and nothing else."""

    store: StoreOptions
    bucket: str
    prefix: str

    def objects(self) -> Bucket:
        """The objects of the system."""
        return Bucket(s3_client(self.store), self.bucket, self.prefix)

    def open(self) -> ArchiveColumns:
        """Connect."""
        return ArchiveColumns(self.objects())


class FallbackSource(Protocol):
    """Where writers' schemas lie when the registry is away."""

    def open(self) -> ArchiveColumns:
        """Connect."""


@dataclass(frozen=True, slots=True)
class KafkaSource:
    """The broker. Writers' schemas come from the registry, or, when that is away, from the archive."""

    logs: KafkaLogs
    archive: FallbackSource

    def open(self) -> "_KafkaColumns":
        """Connect."""
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
            raise LogGap(f"{topic} partition {partition}: {error.args[0].str()}. Older records: --from s3") from error

    def schema_text(self, schema_id: int) -> str | None:
        if self._registry is not None:
            try:
                return self._registry.schema_text(schema_id)
            except (HTTPError, SchemaRegistryError):
                self._registry = None  # once is enough: the archive has them all
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
            except LogGap:  # answers are in the archive as a table, so their schema is not
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
                    detail = f"{topic} partition {partition} offset {offset} holds no answers: {name}"
                    self.altered.append(Alteration(topic, partition, offset, detail))


def _guess_schema_text(name: str, value: bytes | None) -> str | None:
    """The newest of our schemas of a record that reads a value to its last byte."""
    for schema in reversed([each for each in all_schemas() if each.name == name]):
        try:
            Decoder({0: schema.text}.get).decode(bytes(5) + (value or b"")[5:])
        except UnreadableRecord:
            continue
        return schema.text
    return None
