"""From a Kafka partition's records to what the jobs write: bytes in, the folds of domain/, bytes out."""

import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.case import CaseFold
from domain.events import Event, Quarantined, RiskScored, to_fields
from domain.payment import Refusal
from domain.risk import Conflict, RiskFold
from schemas.codec import MAX_BODY, Decoder, Encoder, Unreadable
from schemas.registry import Registry
from schemas.topics import Topics
from stream.microbatch import Emission, ProcessorFactory, Record, StateReader

HOT_ACCOUNTS = 50_000
"""Account histories that a partition keeps in memory; colder ones are read back from Flink's state."""


class _Output(Protocol):
    def __call__(self, topic: str, key: str, event: Event) -> None: ...


class RiskProcessor:
    """One partition of payments.inbound."""

    def __init__(self, partition: int, state: StateReader, codec: tuple[Decoder, Encoder], topics: Topics) -> None:
        self._partition = partition
        self._decoder, self._encoder = codec
        self._topics = topics
        self._fold = RiskFold(partition, state.get, HOT_ACCOUNTS)

    def process(self, records: Sequence[Record]) -> list[Emission]:
        """Decide on a batch in offset order; where the batch begins and ends changes nothing."""
        emissions: list[Emission] = []
        encode, decode, read = self._encoder.encode, self._decoder.decode, self._fold.read
        scored, inbox = self._topics.risk_scored.encode(), self._topics.cases_inbox.encode()
        for record in records:
            try:
                name, data = decode(record.value)
            except Unreadable as unreadable:
                emissions.append(self._quarantine(record, Refusal(unreadable.reason, str(unreadable))))
                continue
            outputs = read(name, data, record.offset, record.timestamp_ms)
            if isinstance(outputs, Refusal):
                emissions.append(self._quarantine(record, outputs))
                continue
            for output in outputs:
                if isinstance(output, RiskScored):
                    key = output.account_id.encode()
                    emissions.append(Emission(scored, key, encode("RiskScored", output._asdict())))
                elif isinstance(output, Conflict):
                    emissions.append(self._quarantine(record, Refusal("conflict", output.detail), decided=True))
                else:
                    kind = type(output).__name__
                    topic = scored if kind == "DuplicateSeen" else inbox
                    emissions.append(Emission(topic, output.account_id.encode(), encode(kind, to_fields(output))))
        return emissions

    def take_writes(self) -> dict[str, bytes | None]:
        """The state entries that changed since the last call; None removes one."""
        return self._fold.take_writes()

    def _quarantine(self, record: Record, refusal: Refusal, *, decided: bool = False) -> Emission:
        return quarantine(
            self._encoder, self._topics.quarantine, self._topics.payments_inbound, self._partition, record, refusal,
            decided=decided,
        )  # fmt: skip


class CaseProcessor:
    """One partition of cases.inbox."""

    def __init__(self, partition: int, state: StateReader, codec: tuple[Decoder, Encoder], topics: Topics) -> None:
        self._partition = partition
        self._decoder, self._encoder = codec
        self._topics = topics
        self._fold = CaseFold(state.get, lambda: iter(state.keys()))

    def process(self, records: Sequence[Record]) -> list[Emission]:
        """Decide on a batch in offset order; where the batch begins and ends changes nothing."""
        emissions: list[Emission] = []
        for record in records:
            try:
                name, data = self._decoder.decode(record.value)
                events = self._fold.read(name, data)
            except Unreadable as unreadable:
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
        """The state entries that changed since the last call."""
        return self._fold.take_writes()

    def _quarantine(self, record: Record, refusal: Refusal) -> Emission:
        return quarantine(
            self._encoder, self._topics.quarantine, self._topics.cases_inbox, self._partition, record, refusal
        )


def quarantine(
    encoder: Encoder, to: str, topic: str, partition: int, record: Record, refusal: Refusal, *, decided: bool = False
) -> Emission:
    """The report on a record that could not be decided on (or, with `decided`, that deserves a look all the same).

    The body goes along, unless it is too large for a report or holds a card number, which must not spread.
    """
    value = record.value or b""
    too_large, secret = len(value) > MAX_BODY, refusal.reason == "card_number"
    sha256 = hashlib.sha256(value).hexdigest()
    report = Quarantined(
        reason=refusal.reason,
        detail=refusal.detail,
        topic=topic,
        partition=partition,
        offset=record.offset,
        size=len(value),
        sha256=sha256,
        body=None if too_large or secret else value,
        stored_at=f"oversize/{sha256}" if too_large else None,
        decided=decided,
    )
    key = f"{topic}/{partition}/{record.offset}".encode()
    return Emission(to.encode(), key, encoder.encode("Quarantined", to_fields(report)))


@dataclass(frozen=True, slots=True)
class _Factory:
    """Builds a partition's processor where the operator runs; crosses to Flink's workers, so it holds plain data."""

    kind: Callable[[int, StateReader, tuple[Decoder, Encoder], Topics], RiskProcessor | CaseProcessor]
    topics: Topics
    registry_url: str

    def __call__(self, partition: int, state: StateReader) -> RiskProcessor | CaseProcessor:
        registry = Registry(self.registry_url)
        gc.set_threshold(200_000, 20, 50)  # histories are long-lived: looking through them often finds nothing
        return self.kind(partition, state, (Decoder(registry.schema_text), Encoder(registry.ids())), self.topics)


def risk_factory(topics: Topics, registry_url: str) -> ProcessorFactory:
    """Processors of payments.inbound."""
    return _Factory(RiskProcessor, topics, registry_url)


def case_factory(topics: Topics, registry_url: str) -> ProcessorFactory:
    """Processors of cases.inbox."""
    return _Factory(CaseProcessor, topics, registry_url)
