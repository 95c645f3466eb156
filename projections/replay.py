"""Derives everything again from the logs that decide, in fresh state, and compares it with what was recorded.

What is derived comes from payments.inbound, entities.inbound and cases.inbox alone, through the same folds that decided
when it was live; the recorded flags and case events are read only to be compared.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from domain.case_fold import CaseFold
from domain.digest import HistoryDigest, canonical, canonical_json, place_of
from domain.entity import EntityFold
from domain.events import (
    CaseAnswer,
    CaseEvent,
    CaseOpened,
    DuplicateSeen,
    EntityFlagged,
    EntityPayment,
    Flag,
    RiskFlagged,
    RiskRestated,
    RiskScored,
    from_fields,
)
from domain.payment import Refusal
from domain.risk import RiskFold
from projections.archive import Bucket
from projections.case_view import CaseView, Item, event_item, project, view_item
from projections.log import LogRecord, answers_in
from schemas.codec import Decoder, Unreadable
from schemas.topics import Topics

Place = tuple[str, tuple[Any, ...]]
"""Account, and place in its history."""
Items = dict[tuple[str, str], Item]
"""Items of the case table by their keys."""
Progress = Callable[[int], None]
_MODULUS = 1 << 256


class Log(Protocol):
    """Where records are read from: Kafka, or the archive."""

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record, by partition."""

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """The records of a partition from its start up to an offset."""


class Gap(Exception):
    """Records of a log that decides are missing: what follows cannot be derived. The message says where."""


@dataclass(slots=True)
class History:
    """Everything that was decided, to be hashed and compared."""

    digest: HistoryDigest = field(default_factory=HistoryDigest)
    origins: dict[Place, str] = field(default_factory=dict)
    """Where each recorded event stands; derived ones stand nowhere."""
    known_at_ms: dict[Place, int] = field(default_factory=dict)
    """When each recorded case event became known: the Kafka timestamp of its first record."""
    contradictions: list[str] = field(default_factory=list)
    payments: int = 0
    duplicates: int = 0
    quarantined: int = 0
    flags: int = 0
    entity_flags: int = 0
    entity_payments: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By account: how many, and the sum of the SHA-256 of each. So the order, which is an accident, says nothing."""
    opened: int = 0
    escalated: int = 0
    case_events: int = 0

    def add_decision(self, output: RiskScored | DuplicateSeen) -> None:
        """Count the answer to a payment."""
        if isinstance(output, DuplicateSeen):
            self.duplicates += 1
            return
        self.payments += 1
        self.digest.add_payment(output.account_id, output.transaction_id, output.content_digest)

    def add_entity_payment(self, record: EntityPayment) -> None:
        """Count a payment that was sent on to an entity; the caller leaves out what was delivered again."""
        number, total = self.entity_payments.get(record.account_id, (0, 0))
        content = int.from_bytes(hashlib.sha256(canonical(record)).digest(), "big")
        self.entity_payments[record.account_id] = number + 1, (total + content) % _MODULUS

    def add_event(self, event: Flag | CaseEvent, origin: str | None = None) -> None:
        """Count an event; the same one again is no other."""
        try:
            is_new = self.digest.add_event(event)
        except ValueError as error:
            self.contradictions.append(f"{error}{f', the second at {origin}' if origin else ''}")
            return
        if not is_new:
            return
        if origin is not None:
            self.origins[place_of(event)] = origin
        self.flags += isinstance(event, RiskFlagged)
        self.entity_flags += isinstance(event, EntityFlagged)
        self.opened += isinstance(event, CaseOpened)
        self.escalated += type(event).__name__ == "CaseEscalated"
        self.case_events += isinstance(event, CaseEvent)


@dataclass(slots=True)
class Derived:
    """What the folds say that the logs lead to."""

    history: History = field(default_factory=History)
    views: dict[str, CaseView] = field(default_factory=dict)
    items: Items = field(default_factory=dict)
    _places: dict[Place, tuple[str, str]] = field(default_factory=dict)

    def add_case_event(self, event: CaseEvent) -> None:
        """Take in a case event: into the history, and into the view of its case."""
        self.history.add_event(event)
        item = event_item(event)
        self._put(item)
        self._places[place_of(event)] = item["pk"], item["sk"]
        if not isinstance(event, CaseAnswer):
            view = self.views[event.case_id] = project(self.views.get(event.case_id), event)
            self._put(view_item(view))

    def know(self, known_at_ms: Mapping[Place, int]) -> None:
        """Take in when events became known: no fold derives that, it is what the broker wrote."""
        for place, item in self._places.items():
            if place in known_at_ms:
                self.items[item]["known_at_ms"] = known_at_ms[place]

    def _put(self, item: Item) -> None:
        self.items[item["pk"], item["sk"]] = item


def derive(log: Log, topics: Topics, decoder: Decoder, seen: Progress = lambda _: None) -> Derived:
    """Run the folds over the logs that decide. Raises Gap where records are missing."""
    derived, done = Derived(), 0
    for partition, end in log.ends(topics.payments_inbound).items():
        fold = RiskFold(partition)
        for record in _gapless(log, topics.payments_inbound, partition, end):
            outputs = _read(record, decoder, fold)
            if isinstance(outputs, Refusal):
                derived.history.quarantined += 1
            else:
                for output in outputs:
                    if isinstance(output, RiskScored | DuplicateSeen):
                        derived.history.add_decision(output)
                    elif isinstance(output, RiskFlagged | RiskRestated):
                        derived.history.add_event(output)
                    elif isinstance(output, EntityPayment):
                        derived.history.add_entity_payment(output)
            done += 1
            if done % 1000 == 0:
                seen(done)
    for partition, end in log.ends(topics.entities_inbound).items():
        entities = EntityFold(partition)
        for record in _gapless(log, topics.entities_inbound, partition, end):
            flags = _read(record, decoder, entities)
            for flag in () if isinstance(flags, Refusal) else flags:
                derived.history.add_event(flag)
            done += 1
            if done % 1000 == 0:
                seen(done)
    for partition, end in log.ends(topics.cases_inbox).items():
        cases = CaseFold()
        for record in _gapless(log, topics.cases_inbox, partition, end):
            events = _read(record, decoder, cases)
            for event in () if isinstance(events, Refusal) else events:
                derived.add_case_event(event)
            done += 1
            seen(done)
    return derived


def _read(record: LogRecord, decoder: Decoder, fold: RiskFold | EntityFold | CaseFold) -> Any:
    try:
        name, data = decoder.decode(record.value)
    except Unreadable as unreadable:
        return Refusal(unreadable.reason, str(unreadable))
    if isinstance(fold, RiskFold):
        return fold.read(name, data, record.offset, record.timestamp_ms)
    if isinstance(fold, EntityFold):
        return fold.read(name, data, record.offset)
    return fold.read(name, data)


def _gapless(log: Log, topic: str, partition: int, end: int) -> Iterator[LogRecord]:
    """The records, if none is missing: our producers are not transactional, so the offsets of these logs are dense."""
    expected = 0
    for record in log.read(topic, partition, end):
        if record.offset != expected:
            raise Gap(f"{topic} partition {partition}: offset {record.offset} follows {expected - 1}")
        expected += 1
        yield record
    if expected != end:
        raise Gap(f"{topic} partition {partition}: it ends at {expected}, records up to {end} were promised")


def recorded(
    log: Log, topics: Topics, decoder: Decoder, decisions: Iterator[RiskScored | DuplicateSeen], seen: Progress
) -> History:
    """What was decided when it was live, as it stands in the logs."""
    history, done = History(), 0
    for decision in decisions:
        history.add_decision(decision)
    for sent in entity_payments_in(log, topics, decoder):
        history.add_entity_payment(sent)
    for topic, kinds in ((topics.cases_inbox, Flag), (topics.cases_events, CaseEvent)):
        for partition, end in log.ends(topic).items():
            for record in log.read(topic, partition, end):
                origin = f"{topic} partition {partition} offset {record.offset}"
                try:
                    event = from_fields(*decoder.decode(record.value))
                except (Unreadable, KeyError, TypeError) as error:
                    if topic == topics.cases_events:
                        history.contradictions.append(f"{origin} is no case event: {error}")
                    continue
                if isinstance(event, kinds):
                    history.add_event(event, origin)
                    if topic == topics.cases_events:
                        history.known_at_ms.setdefault(place_of(event), record.timestamp_ms)
                done += 1
                seen(done)
    return history


def entity_payments_in(log: Log, topics: Topics, decoder: Decoder) -> Iterator[EntityPayment]:
    """What the risk job has sent on to entities, those that were delivered again left out.

    Each partition of payments.inbound writes in the order of its offsets, and of entities within one: what does not
    come after what came from there before was delivered again.
    """
    for partition, end in log.ends(topics.entities_inbound).items():
        last: dict[int, tuple[int, str]] = {}
        for record in log.read(topics.entities_inbound, partition, end):
            try:
                event = from_fields(*decoder.decode(record.value))
            except (Unreadable, KeyError, TypeError):
                continue  # somebody else's; the entity job has quarantined it
            if isinstance(event, EntityPayment) and (event.offset, event.entity) > last.get(event.partition, (-1, "")):
                last[event.partition] = event.offset, event.entity
                yield event


def decisions_in(log: Log, topics: Topics, decoder: Decoder) -> Iterator[RiskScored | DuplicateSeen]:
    """The answers in risk.scored, those that were delivered again left out."""
    for partition, end in log.ends(topics.risk_scored).items():
        answered: dict[int, int] = {}
        for record in log.read(topics.risk_scored, partition, end):
            for answer in answers_in(record, decoder):
                if answer.offset > answered.get(answer.partition, -1):
                    answered[answer.partition] = answer.offset
                    yield answer


def decisions_of(table: pa.Table) -> Iterator[RiskScored | DuplicateSeen]:
    """The answers in the analytics table."""
    wanted = [name for name in RiskScored._fields if name in table.column_names and name != "event_time"]
    plain = table.append_column("event_time_ms", table["event_time"].cast(pa.int64()))
    for batch in plain.to_batches():
        for row in batch.to_pylist():
            if row["is_duplicate"]:
                yield DuplicateSeen(**{name: row[name] for name in DuplicateSeen._fields})
            else:
                yield RiskScored(event_time=row["event_time_ms"], **{name: row[name] for name in wanted})


def views_digest(items: Items) -> str:
    """SHA-256 over all items of the case table by their keys, each as canonical JSON preceded by its length.

    Without `known_at_ms`: when a record was written is the one thing that differs where the same payments are decided
    again. `compare_views` looks at it.
    """
    digest = hashlib.sha256()
    for key in sorted(items):
        encoded = canonical_json({name: value for name, value in items[key].items() if name != "known_at_ms"})
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Comparison:
    """How what was recorded differs from what is derived; `missing` may only be on its way."""

    differences: list[str]
    missing: int

    @property
    def is_lag(self) -> bool:
        """Nothing contradicts, something is not there yet."""
        return not self.differences and self.missing > 0


def compare(live: History, derived: History) -> Comparison:
    """Event by event. Only recorded, or recorded differently: a difference. Only derived: missing."""
    recorded_items, derived_items = live.digest.items(), derived.digest.items()
    differences = list(live.contradictions)
    for place in sorted(recorded_items):
        origin = live.origins.get(place, "?")
        if place not in derived_items:
            differences.append(f"{origin}: recorded, but the log does not lead to it: {_shown(recorded_items[place])}")
        elif recorded_items[place] != derived_items[place]:
            shown = f"recorded {_shown(recorded_items[place])}, derived {_shown(derived_items[place])}"
            differences.append(f"{origin}: altered, or decided otherwise: {shown}")
    if live.payments > derived.payments or live.duplicates > derived.duplicates:
        differences.append(f"{live.payments} payments were decided on, the log leads to {derived.payments}")
    sent, left = _compare_sent(live, derived)
    differences += sent
    missing = left + len(derived_items.keys() - recorded_items.keys())
    missing += max(0, derived.payments - live.payments) + max(0, derived.duplicates - live.duplicates)
    if not differences and not missing and live.digest.hexdigest() != derived.digest.hexdigest():
        differences.append("the payments that were decided on are not those in the log")
    return Comparison(differences, missing)


def _compare_sent(live: History, derived: History) -> tuple[list[str], int]:
    """What was sent on to entities, account by account: differences, and how many are not there yet."""
    differences, missing = [], 0
    for account_id in sorted({*live.entity_payments, *derived.entity_payments}):
        sent, wanted = (each.entity_payments.get(account_id, (0, 0)) for each in (live, derived))
        missing += max(0, wanted[0] - sent[0])
        if sent[0] > wanted[0] or (sent[0] == wanted[0] and sent != wanted):
            differences.append(
                f"account {account_id}: {sent[0]} payments were sent on to entities, the log leads to {wanted[0]}"
                f"{', of other content' if sent[0] == wanted[0] else ''}"
            )
    return differences, missing


def compare_views(stored: Items, derived: Items) -> Comparison:
    """Item by item."""
    differences: list[str] = []
    behind = sum(key not in stored for key in derived)
    for key in sorted(stored):
        item, wanted = stored[key], derived.get(key)
        if wanted is not None and _is_same(item, wanted):
            continue
        if wanted is not None and _is_behind(item, wanted):
            behind += 1
            continue
        shown = "nothing" if wanted is None else _shown(canonical_json(wanted))
        differences.append(f"view item {' '.join(key)}: stored {_shown(canonical_json(item))}, derived {shown}")
    return Comparison(differences, behind)


def _is_same(stored: Item, derived: Item) -> bool:
    """When a record was written is compared where the log was read as far: the table may have got ahead since."""
    if "known_at_ms" in derived:
        return stored == derived
    return {name: value for name, value in stored.items() if name != "known_at_ms"} == derived


def _is_behind(stored: Item, derived: Item) -> bool:
    return int(stored.get("sequence", 0)) < int(derived.get("sequence", 0))


def _shown(encoded: bytes) -> str:
    text = encoded.decode()
    return text if len(text) <= 400 else f"{text[:400]}…"


def stored_items(items: Iterator[Item]) -> Items:
    """The items of a case table by their keys."""
    return {(item["pk"], item["sk"]): item for item in items}


def archived_schema_check(bucket: Bucket) -> list[str]:
    """The writers' schemas in the archive that are not what they were stored as."""
    altered = []
    for key in bucket.keys("schemas/"):
        name = key.removeprefix("schemas/").removesuffix(".avsc")
        if hashlib.sha256(bucket.get(key) or b"").hexdigest() != name:
            altered.append(f"{key} is not the schema that was stored there")
    return altered
