"""Processors of a Kafka partition for each job: decode records, fold them, encode the results."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.cases.fold import CaseFold
from domain.payment import FIELDS, Payment, Refusal, admit_row
from domain.quarantine import key_of, report
from domain.record_types import to_fields
from domain.risk.entity_fold import EntityFold
from domain.risk.events import TUPLES, DuplicateSeen, EntityFlagged, EntityPayment, RiskOutput, RiskScored
from domain.risk.fold import ContentConflict, RiskFold
from schemas.codec import MAX_BODY, Decoder, Encoder, UnreadableRecord
from schemas.registry import SchemaRegistry
from schemas.topics import Topics
from stream.journal import MAX_RECORDS, PartitionRecord
from stream.microbatch import Emission, PartitionProcessor, ProcessorFactory, StateReader
from stream.snapshots import Snapshots

HOT_ACCOUNTS = 50_000
"""Account histories that a partition keeps in memory; the others are read from Flink's state."""
HOT_ENTITIES = 20_000
"""Entity histories that a partition keeps in memory; they are longer than account histories."""

MAX_DECISIONS = 1_000
"""Maximum number of decisions in one record of risk.scored. It keeps the record far below MAX_RECORD bytes."""


@dataclass(frozen=True, slots=True)
class PartitionContext:
    """Kafka partition that a processor folds, with its state, codecs and topics."""

    number: int
    state: StateReader
    decoder: Decoder
    encoder: Encoder
    topics: Topics
    snapshot_every: int = MAX_RECORDS
    """Number of records between two snapshots of its state."""


class RiskProcessor:
    """Processor of one partition of payments.inbound. Its decoder returns a Transaction as a tuple, as FIELDS lists."""

    def __init__(self, context: PartitionContext) -> None:
        self._partition, self._topics = context.number, context.topics
        self._decoder, self._encoder = context.decoder, context.encoder
        self._fold = RiskFold(context.number, context.state.get, HOT_ACCOUNTS, self._parse)
        self._snapshots = Snapshots(context.number, context.state.get, context.snapshot_every)
        for record in self._snapshots.read():
            self._read(record)

    def process(self, records: Sequence[PartitionRecord]) -> list[Emission]:
        """Fold a batch in offset order and return the records that result. The limits of batches affect no decision."""
        emissions: list[Emission] = []
        scored: list[RiskScored] = []
        duplicates: list[DuplicateSeen] = []
        for record in records:
            outputs = self._read(record)
            if isinstance(outputs, Refusal):
                emissions.append(self._quarantine(record, outputs))
                continue
            self._snapshots.note(record)
            for output in outputs:
                if isinstance(output, RiskScored):
                    scored.append(output)
                elif isinstance(output, DuplicateSeen):
                    duplicates.append(output)
                elif isinstance(output, ContentConflict):
                    emissions.append(self._quarantine(record, Refusal("conflict", output.detail), decided=True))
                elif isinstance(output, EntityPayment):
                    value = self._encoder.encode("EntityPayment", to_fields(output))
                    emissions.append(Emission(self._topics.entities_inbound.encode(), output.entity.encode(), value))
                else:
                    value = self._encoder.encode(type(output).__name__, to_fields(output))
                    emissions.append(Emission(self._topics.cases_inbox.encode(), output.account_id.encode(), value))
        return emissions + self._answers(scored, duplicates)

    def _read(self, record: PartitionRecord) -> list[RiskOutput | ContentConflict] | Refusal:
        try:
            name, data = self._decoder.decode(record.value)
        except UnreadableRecord as unreadable:
            return Refusal(unreadable.reason, str(unreadable))
        return self._fold.read(name, data, record.offset, record.timestamp_ms, record.value)

    def _parse(self, value: bytes) -> Payment:
        admitted = admit_row(self._decoder.decode(value)[1], None)
        assert isinstance(admitted, Payment), "a stored payment was admitted before"
        return admitted

    def _answers(self, scored: list[RiskScored], duplicates: list[DuplicateSeen]) -> list[Emission]:
        """Return the decisions and duplicates of a batch as records of risk.scored, keyed by partition for order."""
        topic, key = self._topics.risk_scored.encode(), str(self._partition).encode()
        return [
            Emission(topic, key, self._encoder.encode("DecisionsMade", {
                "partition": self._partition,
                "scored": scored[first : first + MAX_DECISIONS],
                "duplicates": duplicates[first : first + MAX_DECISIONS],
            }))
            for first in range(0, max(len(scored), len(duplicates)), MAX_DECISIONS)
        ]  # fmt: skip

    def take_writes(self) -> dict[str, bytes | None]:
        """Return the state entries that changed since the last call; None removes an entry."""
        return self._snapshots.take_writes(self._fold)

    def _quarantine(self, record: PartitionRecord, refusal: Refusal, *, decided: bool = False) -> Emission:
        return quarantine(
            self._encoder, self._topics.quarantine, self._topics.payments_inbound, self._partition, record, refusal,
            decided=decided,
        )  # fmt: skip


class EntityProcessor:
    """Processor of one partition of entities.inbound."""

    def __init__(self, context: PartitionContext) -> None:
        self._partition, self._topics = context.number, context.topics
        self._decoder, self._encoder = context.decoder, context.encoder
        self._fold = EntityFold(context.number, context.state.get, HOT_ENTITIES)
        self._snapshots = Snapshots(context.number, context.state.get, context.snapshot_every)
        for record in self._snapshots.read():
            self._read(record)

    def process(self, records: Sequence[PartitionRecord]) -> list[Emission]:
        """Fold a batch in offset order and return the records that result. The limits of batches affect no decision."""
        emissions: list[Emission] = []
        inbox = self._topics.cases_inbox.encode()
        for record in records:
            flags = self._read(record)
            if isinstance(flags, Refusal):
                target, source = self._topics.quarantine, self._topics.entities_inbound
                emissions.append(quarantine(self._encoder, target, source, self._partition, record, flags))
                continue
            self._snapshots.note(record)
            for flag in flags:
                value = self._encoder.encode("EntityFlagged", to_fields(flag))
                emissions.append(Emission(inbox, flag.account_id.encode(), value))
        return emissions

    def _read(self, record: PartitionRecord) -> list[EntityFlagged] | Refusal:
        try:
            name, data = self._decoder.decode(record.value)
        except UnreadableRecord as unreadable:
            return Refusal(unreadable.reason, str(unreadable))
        return self._fold.read(name, data, record.offset)

    def take_writes(self) -> dict[str, bytes | None]:
        """Return the state entries that changed since the last call; None removes an entry."""
        return self._snapshots.take_writes(self._fold)


class CaseProcessor:
    """Processor of one partition of cases.inbox. It writes its changed state with each batch, without snapshots."""

    def __init__(self, context: PartitionContext) -> None:
        self._partition, self._topics = context.number, context.topics
        self._decoder, self._encoder = context.decoder, context.encoder
        self._fold = CaseFold(context.state.get, lambda: iter(context.state.keys()))

    def process(self, records: Sequence[PartitionRecord]) -> list[Emission]:
        """Fold a batch in offset order and return the records that result. The limits of batches affect no decision."""
        emissions: list[Emission] = []
        for record in records:
            try:
                name, data = self._decoder.decode(record.value)
                events = self._fold.read(name, data)
            except UnreadableRecord as unreadable:
                events = Refusal(unreadable.reason, str(unreadable))
            if isinstance(events, Refusal):
                emissions.append(self._quarantine(record, events))
                continue
            emissions += [
                Emission(
                    self._topics.cases_events.encode(),
                    event.account_id.encode(),
                    self._encoder.encode(type(event).__name__, to_fields(event)),
                )
                for event in events
            ]
        return emissions

    def take_writes(self) -> dict[str, bytes | None]:
        """Return the state entries that changed since the last call."""
        return self._fold.take_writes()

    def _quarantine(self, record: PartitionRecord, refusal: Refusal) -> Emission:
        return quarantine(
            self._encoder, self._topics.quarantine, self._topics.cases_inbox, self._partition, record, refusal
        )


def quarantine(
    encoder: Encoder,
    quarantine_topic: str,
    topic: str,
    partition: int,
    record: PartitionRecord,
    refusal: Refusal,
    *,
    decided: bool = False,
) -> Emission:
    """Return the quarantine record that reports a refused record."""
    quarantined = report(
        refusal, record.value, topic=topic, partition=partition, offset=record.offset, most=MAX_BODY, decided=decided
    )
    return Emission(
        quarantine_topic.encode(), key_of(quarantined), encoder.encode("Quarantined", to_fields(quarantined))
    )


@dataclass(frozen=True, slots=True)
class _ProcessorBuilder:
    """Builder of a partition's processor. It is sent to Flink's workers, so it holds plain data."""

    kind: Callable[[PartitionContext], PartitionProcessor]
    topics: Topics
    registry_url: str

    def __call__(self, partition: int, state: StateReader, snapshot_every: int) -> PartitionProcessor:
        registry = SchemaRegistry(self.registry_url)
        gc.set_threshold(200_000, 20, 50)  # histories live long: frequent collections would find nothing
        decoder = Decoder(registry.schema_text, {"Transaction": FIELDS})
        encoder = Encoder(registry.ids(), TUPLES)
        return self.kind(PartitionContext(partition, state, decoder, encoder, self.topics, snapshot_every))


def risk_factory(topics: Topics, registry_url: str) -> ProcessorFactory:
    """Return a factory of processors for payments.inbound."""
    return _ProcessorBuilder(RiskProcessor, topics, registry_url)


def entity_factory(topics: Topics, registry_url: str) -> ProcessorFactory:
    """Return a factory of processors for entities.inbound."""
    return _ProcessorBuilder(EntityProcessor, topics, registry_url)


def case_factory(topics: Topics, registry_url: str) -> ProcessorFactory:
    """Return a factory of processors for cases.inbox."""
    return _ProcessorBuilder(CaseProcessor, topics, registry_url)
