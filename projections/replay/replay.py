"""Derives everything again from the logs that decide, in fresh state, and compares it with what was recorded.

What is derived comes from payments.inbound, entities.inbound and cases.inbox alone, through the same folds that decided
when it was live; the recorded flags, answers and case events are read only to be compared. Partitions are read side by
side (`replay_work.py`); here what they come to is put together, in one order, however it arrived.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeVar, get_args

from domain.digest import HistoryDigest, canonical_json
from domain.record_types import CaseEvent, EntityPayment
from projections.archive.segments import Altered, Bucket
from projections.logs.log import LogRecord
from projections.replay.sources import DUPLICATE, SCORED, Gap, Source
from projections.replay.tasks import (
    NONE,
    SENT,
    Answered,
    Block,
    Cases,
    Chains,
    Decide,
    Decided,
    Differing,
    Found,
    Place,
    Read,
    ReadAnswers,
    ReadEvents,
    ReadInbox,
    ReadSent,
    Recorded,
    Row,
    Sent,
    Shown,
    Sum,
    add_sums,
)
from projections.replay.workers import Workers
from projections.views.case_view import Item
from schemas.topics import Topics

__all__ = ["Gap", "Log"]

Items = dict[tuple[str, str], Item]
"""Items of the case table by their keys."""
Progress = Callable[[int], None]
Ends = dict[str, dict[int, int]]
"""The offset after the last record that counts, by topic and partition."""
Counts = Callable[[str, int, Found], bool]
"""Whether a recorded flag or case event, of this topic and partition, is compared."""
CASE_VIEWS: Final = "case views"
_SPOILT: Final[Sum] = (-1, 0)
"""Of a block whose answers stand in two partitions: no hash says whether they are right."""
_CASE_EVENTS: Final = frozenset(kind.__name__ for kind in get_args(CaseEvent))


class Log(Protocol):
    """Where records are read from one by one: Kafka, or the archive."""

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record, by partition."""

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """The records of a partition from its start up to an offset."""


class Difference(NamedTuple):
    """One thing that was recorded otherwise than the logs lead to; where it stands, as far as it stands anywhere."""

    topic: str
    partition: int | None
    offset: int | None
    account_id: str | None
    place: tuple[Any, ...]
    recorded: bytes | None
    derived: bytes | None
    text: str


@dataclass(slots=True)
class History:
    """Everything that was decided, to be hashed and compared."""

    digest: HistoryDigest = field(default_factory=HistoryDigest)
    origins: dict[Place, tuple[str, int, int]] = field(default_factory=dict)
    """Topic, partition and offset where each recorded event stands; derived ones stand nowhere."""
    known_at_ms: dict[Place, int] = field(default_factory=dict)
    """When each recorded case event became known: the Kafka timestamp of its first record."""
    contradictions: list[Difference] = field(default_factory=list)
    payments: int = 0
    duplicates: int = 0
    quarantined: int = 0
    flags: int = 0
    entity_flags: int = 0
    opened: int = 0
    escalated: int = 0
    case_events: int = 0

    def add(self, event: Found, topic: str, partition: int) -> None:
        """Count an event; the same one again is no other."""
        place = event.account_id, event.place
        origin = topic, partition, event.offset
        try:
            is_new = self.digest.add_encoded(*place, event.encoded)
        except ValueError as error:
            text = f"{error}, the second at {shown_place(*origin)}"
            self.contradictions.append(Difference(*origin, *place, event.encoded, None, text))
            return
        if event.kind in _CASE_EVENTS and event.offset >= 0:
            self.known_at_ms.setdefault(place, event.timestamp_ms)
        if not is_new:
            return
        if event.offset >= 0:
            self.origins[place] = origin
        self.flags += event.kind == "RiskFlagged"
        self.entity_flags += event.kind == "EntityFlagged"
        self.opened += event.kind == "CaseOpened"
        self.escalated += event.kind == "CaseEscalated"
        self.case_events += event.kind in _CASE_EVENTS


@dataclass(slots=True)
class Derived:
    """What the folds say that the logs lead to."""

    history: History = field(default_factory=History)
    encoded: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """The items of the case table, as canonical JSON without when they became known."""
    views: int = 0
    places: dict[Place, tuple[str, str]] = field(default_factory=dict)
    """The item of each case event."""
    packs: list[str] = field(default_factory=list)
    """Rule packs, in the order in which they were activated first."""
    decisions: str = ""
    inbound: str = ""
    """Digests of the decisions that say more than nothing, and of the records of payments.inbound."""
    records: int = 0

    def add_shown(self, shown: Shown, topic: str, partition: int) -> None:
        """Take in a case event: into the history, and as an item."""
        self.history.add(shown.event, topic, partition)
        self.encoded[shown.pk, shown.sk] = shown.item
        self.places[shown.event.account_id, shown.event.place] = shown.pk, shown.sk

    def items(self, known_at_ms: Mapping[Place, int]) -> Items:
        """The items; when events became known is no fold's to say, it is what the broker wrote."""
        items: Items = {key: json.loads(encoded) for key, encoded in self.encoded.items()}
        for place, key in self.places.items():
            if place in known_at_ms:
                items[key]["known_at_ms"] = known_at_ms[place]
        return items


@dataclass(frozen=True, slots=True)
class Comparison:
    """How what was recorded differs from what is derived; `missing` may only be on its way."""

    differences: list[Difference]
    missing: int
    first_missing: Difference | None = None

    @property
    def is_lag(self) -> bool:
        """Nothing contradicts, something is not there yet."""
        return not self.differences and self.missing > 0


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to, in the order of topics, partitions and offsets."""

    live: History
    derived: Derived
    comparison: Comparison
    altered: list[Difference]
    ranges: Ends
    schemas: dict[str, str]
    """Writers' schemas that were met in the logs that decide: their texts, and what record each is of."""


# -- reading ------------------------------------------------------------------------------------------------


def ends_of(source: Source, topics: Topics, until_ms: int | None = None) -> Ends:
    """How far each log goes that decides, or that case events stand in: with a time, up to the first later record."""
    log, ends = source.open(), Ends()
    for topic in topics.archived_logs:
        ends[topic] = log.ends(topic)
        if until_ms is not None:
            for partition, end in ends[topic].items():
                later = log.cut(topic, partition, until_ms) if end else None
                ends[topic][partition] = end if later is None else min(end, later)
    return ends


def derive(source: Source, topics: Topics, workers: int = 1, seen: Progress = lambda _: None) -> Derived:
    """Run the folds over the logs that decide, and compare nothing. Raises Gap where records are missing."""
    with Workers(source, workers, _running(seen)) as pool:
        ends, payments = ends_of(source, topics), topics.payments_inbound
        decide = [Decide(topic=payments, partition=p, end=end) for p, end in ends[payments].items()]
        results = pool.run([*_folds(topics, ends, ends), *decide])
        _chain_together(pool, decide, _of(Decided, results))
    return _derived(results, topics)


def recorded(source: Source, topics: Topics, workers: int = 1, seen: Progress = lambda _: None) -> History:
    """What was decided when it was live, as it stands in the logs."""
    with Workers(source, workers, _running(seen)) as pool:
        ends, topic = ends_of(source, topics), topics.cases_inbox
        answers = _answer_tasks(source, topics, ends)
        inbox = [ReadInbox(topic=topic, partition=p, end=end) for p, end in ends[topic].items()]
        results = pool.run([*answers, *inbox, *_event_tasks(source, topics)])
        _chain_together(pool, answers, _of(Answered, results))
    return _live(results, lambda *_: True)


def _counting(before: Ends, until_ms: int | None, derived: Mapping[Place, bytes]) -> Counts:
    """What of the recorded flags and case events is compared: what must be derived, and what is."""

    def counts(topic: str, partition: int, event: Found) -> bool:
        must_be = event.offset < before[topic].get(partition, 0) and (
            until_ms is None or event.timestamp_ms <= until_ms
        )
        return must_be or (event.account_id, event.place) in derived

    return counts


def replay(
    source: Source, topics: Topics, workers: int = 1, until_ms: int | None = None, seen: Progress = lambda _: None
) -> Replayed:
    """Derive everything, and compare it. Raises Gap where records of a log that decides are missing.

    The system may be at work meanwhile. What stood in a log before it was asked how far to fold must be derived; of
    what was written since, only what is derived is looked at: its cause may be past the end of the fold.
    """
    with Workers(source, workers, _running(seen)) as pool:
        before = ends_of(source, topics)
        ends = ends_of(source, topics, until_ms)
        answers, folds = _answer_tasks(source, topics, ends), _folds(topics, ends, ends_of(source, topics))
        results = pool.run([*answers, *folds, *_event_tasks(source, topics)])
        decide = _decide_tasks(topics, ends, _of(Answered, results), _of(Sent, results))
        decided: list[Decided] = pool.run(decide)
        _chain_together(pool, answers, _of(Answered, results))
        _chain_together(pool, decide, decided)
        at_odds = _compare_rows(pool, topics, (answers, folds), decided, ends)
    results += decided
    derived = _derived(results, topics)
    live = _live(results, _counting(before, until_ms, derived.history.digest.items()))
    deciding = (*_of(Decided, results), *_of(Sent, results), *_of(Cases, results))
    schemas = {text: name for result in deciding for text, name in result.schemas.items()}
    altered = [_altered(each) for each in dict.fromkeys(each for result in results for each in result.altered)]
    return Replayed(live, derived, _compare(topics, live, derived.history, at_odds), altered, ends, schemas)


def _running(seen: Progress) -> Progress:
    total = 0

    def more(records: int) -> None:
        nonlocal total
        total += records
        seen(total)

    return more


def _folds(topics: Topics, ends: Ends, recorded: Ends) -> list[ReadSent | ReadInbox]:
    """Fold up to some ends; what was recorded is looked for up to others."""
    payments, entities, inbox = topics.payments_inbound, topics.entities_inbound, topics.cases_inbox
    return [
        *(
            ReadSent(topic=entities, partition=p, end=end, recorded=recorded[entities][p], ends=ends[payments])
            for p, end in ends[entities].items()
        ),
        *(ReadInbox(topic=inbox, partition=p, end=end, recorded=recorded[inbox][p]) for p, end in ends[inbox].items()),
    ]


def _answer_tasks(source: Source, topics: Topics, ends: Ends) -> list[ReadAnswers]:
    topic = topics.risk_scored
    return [
        ReadAnswers(topic=topic, partition=p, end=end, ends=ends[topics.payments_inbound])
        for p, end in source.open().answer_ends(topic).items()
    ]


def _event_tasks(source: Source, topics: Topics) -> list[ReadEvents]:
    """All of them, whatever the time: what the logs lead to by then may have been decided later."""
    topic = topics.cases_events
    return [ReadEvents(topic=topic, partition=p, end=end) for p, end in source.open().ends(topic).items()]


def _decide_tasks(topics: Topics, ends: Ends, answered: list[Answered], sent: list[Sent]) -> list[Decide]:
    blocks, sums = dict[Block, Sum](), dict[Block, Sum]()
    for each in answered:
        for block, found in each.blocks.items():
            blocks[block] = _SPOILT if block in blocks else found
    for one in sent:
        for block, found in one.sums.items():
            sums[block] = add_sums(sums.get(block, NONE), found)
    topic = topics.payments_inbound
    return [
        Decide(topic=topic, partition=p, end=end, answered=_of_one(blocks, p), sent=_of_one(sums, p))
        for p, end in ends[topic].items()
    ]


def _of_one(sums: Mapping[Block, Sum], partition: int) -> dict[int, Sum]:
    return {number: found for (where, number), found in sums.items() if where == partition}


ReadT = TypeVar("ReadT", bound=Read)


def _of(kind: type[ReadT], results: Sequence[Read]) -> list[ReadT]:
    return [each for each in results if isinstance(each, kind)]


def _chain_together(
    pool: Workers, tasks: Sequence[Decide | ReadAnswers], results: Sequence[Decided | Answered]
) -> None:
    """Accounts with payments in several partitions (another producer, another partitioner): one chain after all.

    Their partitions are read once more for what was chained, which our own producers never make necessary.
    """
    counted: dict[str, int] = {}
    for result in results:
        for chains in result.chains.values():
            for account_id in chains.of:
                counted[account_id] = counted.get(account_id, 0) + 1
    several = frozenset(account_id for account_id, number in counted.items() if number > 1)
    if not several:
        return
    again = pool.run([_collecting(task, several) for task in tasks])
    chained = Chains()
    parts = [(partition, chains) for read in again for partition, chains in read.chains.items()]
    for _, chains in sorted(parts, key=lambda part: part[0]):
        for account_id, links in chains.links.items():
            for link in links:
                chained.add_link(account_id, link)
    whole = [chains for result in results for chains in result.chains.values()]
    for chains in whole:
        for account_id in several:
            chains.of.pop(account_id, None)
    whole[0].of.update(chained.of)


def _collecting(task: Decide | ReadAnswers, accounts: frozenset[str]) -> Decide | ReadAnswers:
    if isinstance(task, Decide):
        return Decide(topic=task.topic, partition=task.partition, end=task.end, wanted=accounts)
    return ReadAnswers(topic=task.topic, partition=task.partition, end=task.end, ends=task.ends, accounts=accounts)


# -- putting together ---------------------------------------------------------------------------------------


def _derived(results: Sequence[Read], topics: Topics) -> Derived:
    derived = Derived()
    history, decisions, inbound = derived.history, hashlib.sha256(), hashlib.sha256()
    for decided in _of(Decided, results):
        history.payments += decided.payments
        history.duplicates += decided.duplicates
        history.quarantined += decided.quarantined
        for chains in decided.chains.values():
            for account_id, chain in chains.of.items():
                history.digest.add_chain(account_id, chain)
        if decided.records:  # what is not there is not known of a partition in the archive
            decisions.update(decided.partition.to_bytes(4, "big") + decided.decisions)
            inbound.update(decided.partition.to_bytes(4, "big") + decided.content)
        derived.packs += (pack_id for pack_id in dict.fromkeys(decided.packs) if pack_id not in derived.packs)
    derived.decisions, derived.inbound = decisions.hexdigest(), inbound.hexdigest()
    for result in (*_of(Decided, results), *_of(Sent, results)):
        for event in result.found:
            history.add(event, result.topic, result.partition)
    for cases in _of(Cases, results):
        for shown in cases.shown:
            derived.add_shown(shown, topics.cases_inbox, cases.partition)
        derived.views += len(cases.views)
        derived.encoded.update({(pk, sk): item for pk, (sk, item) in cases.views.items()})
    derived.records = sum(result.records for result in results)
    return derived


def _live(results: Sequence[Read], counts: Counts) -> History:
    live = History()
    for answered in _of(Answered, results):
        live.payments += answered.payments
        live.duplicates += answered.duplicates
        for chains in answered.chains.values():
            for account_id, chain in chains.of.items():
                live.digest.add_chain(account_id, chain)
    for cases in _of(Cases, results):
        for event in cases.flags:
            if counts(cases.topic, cases.partition, event):
                live.add(event, cases.topic, cases.partition)
    for told in _of(Recorded, results):
        for offset, what in told.foreign:
            where = told.topic, told.partition, offset
            text = f"{shown_place(*where)} is no case event: {what}"
            live.contradictions.append(Difference(*where, None, (), None, None, text))
        for event in told.found:
            if counts(told.topic, told.partition, event):
                live.add(event, told.topic, told.partition)
    return live


# -- comparing ----------------------------------------------------------------------------------------------


def _compare_rows(
    pool: Workers,
    topics: Topics,
    tasks: tuple[Sequence[ReadAnswers], Sequence[ReadSent | ReadInbox]],
    decided: Sequence[Decided],
    ends: Ends,
) -> Comparison:
    """Answers and payments sent on, row by row where blocks of them differ."""
    blocks = {(each.partition, one.number): one for each in decided for one in each.differing}
    missing, differences = sum(each.missing for each in decided), list[Difference]()
    wanted, first = frozenset(blocks), None
    answers: dict[Block, list[Row]] = {}
    sent: dict[Block, list[tuple[int, int, Row]]] = {}
    if wanted:
        again = [
            *(ReadAnswers(**_plain(task), ends=task.ends, wanted=wanted) for task in tasks[0]),
            *(
                ReadSent(**_plain(t), recorded=t.recorded, ends=t.ends, wanted=wanted)
                for t in tasks[1]
                if isinstance(t, ReadSent)
            ),
        ]
        for result in pool.run(again):
            for block, rows in result.rows.items():
                if isinstance(result, Answered):
                    answers.setdefault(block, []).extend(rows)
                else:
                    sent.setdefault(block, []).extend((result.partition, *row) for row in rows)
    for block in sorted(blocks):
        found, left = _compare_answers(topics, block[0], blocks[block], answers.get(block, []))
        more, also_left = _compare_sent(topics, block[0], blocks[block], sent.get(block, []))
        differences += found + more
        missing += len(left) + len(also_left)
        first = first or next(iter([*left, *also_left]), None)
    for each in decided:
        if each.more_differing:
            where = topics.payments_inbound, each.partition, ends[topics.payments_inbound][each.partition]
            text = f"{each.topic} partition {each.partition}: {each.more_differing} more blocks of answers differ"
            differences.append(Difference(*where, None, (), None, None, text))
    return Comparison(differences, missing, first)


def _plain(task: ReadAnswers | ReadSent) -> dict[str, Any]:
    return {"topic": task.topic, "partition": task.partition, "end": task.end}


def _compare_answers(
    topics: Topics, partition: int, block: Differing, rows: Sequence[Row]
) -> tuple[list[Difference], list[Difference]]:
    """Differences, and what is not there yet."""
    topic, found, left = topics.payments_inbound, list[Difference](), list[Difference]()
    recorded_rows, derived_rows = ({row[0]: row for row in each} for each in (rows, block.answers))
    for offset in sorted({*recorded_rows, *derived_rows}):
        was, should = recorded_rows.get(offset), derived_rows.get(offset)
        if was == should:
            continue
        row: Row = was or should or ()
        texts = _answer_text(was), _answer_text(should)
        said = _said(f"{shown_place(topic, partition, offset)}: the decision on this payment", *texts)
        difference = Difference(topic, partition, offset, row[1], ("0-payment", row[2]), *texts, said)
        (found if was else left).append(difference)
    return found, left


def _answer_text(row: Row | None) -> bytes | None:
    if row is None:
        return None
    kind, names = ("RiskScored", SCORED) if len(row) == len(SCORED) else ("DuplicateSeen", DUPLICATE)
    return canonical_json({"type": kind, **dict(zip(names, row, strict=True))})


def _compare_sent(
    topics: Topics, partition: int, block: Differing, rows: Sequence[tuple[int, int, Row]]
) -> tuple[list[Difference], list[Difference]]:
    """The same of what was sent on to entities."""
    entity, at = SENT.index("entity"), SENT.index("offset")
    derived_rows = {(row[at], row[entity]): row for row in block.sent}
    topic, found = topics.entities_inbound, list[Difference]()
    for where, offset, row in sorted(rows, key=lambda each: each[:2]):
        should = derived_rows.pop((row[at], row[entity]), None)
        if row != should:
            texts = _sent_text(row), _sent_text(should)
            said = _said(shown_place(topic, where, offset), *texts)
            found.append(Difference(topic, where, offset, row[1], ("0-sent", row[entity]), *texts, said))
    left = [
        Difference(
            topic, None, None, row[1], ("0-sent", row[entity]), None, _sent_text(row),
            _said(f"{shown_place(topics.payments_inbound, partition, row[at])}: sent on", None, _sent_text(row)),
        )
        for row in derived_rows.values()
    ]  # fmt: skip
    return found, left


def _sent_text(row: Row | None) -> bytes | None:
    if row is None:
        return None
    return canonical_json({"type": EntityPayment.__name__, **dict(zip(SENT, row, strict=True))})


def _compare(topics: Topics, live: History, derived: History, rows: Comparison) -> Comparison:
    """Event by event. Only recorded, or recorded differently: a difference. Only derived: missing."""
    recorded_items, derived_items = live.digest.items(), derived.digest.items()
    differences = [*rows.differences, *live.contradictions]
    for place, encoded in recorded_items.items():
        if encoded != derived_items.get(place):
            origin, should = live.origins[place], derived_items.get(place)
            text = _said(shown_place(*origin), encoded, should)
            differences.append(Difference(*origin, *place, encoded, should, text))
    left = sorted(derived_items.keys() - recorded_items.keys())
    missing, first = rows.missing + len(left), rows.first_missing
    if first is None and left:
        kind = topics.cases_inbox if left[0][1][0].startswith("1-") else topics.cases_events
        encoded = derived_items[left[0]]
        text = _said(f"{kind}, account {left[0][0]}", None, encoded)
        first = Difference(kind, None, None, *left[0], None, encoded, text)
    differences.sort(key=_order_by(topics))
    if not differences and not missing and live.digest.hexdigest() != derived.digest.hexdigest():
        text = "the payments that were decided on are not those in the log"
        differences.append(Difference(topics.payments_inbound, None, None, None, (), None, None, text))
    return Comparison(differences, missing, first)


def in_order(topics: Topics, differences: Iterable[Difference]) -> list[Difference]:
    """By topic, from what decides to what follows, then by partition and offset."""
    return sorted(differences, key=_order_by(topics))


def _order_by(topics: Topics) -> Callable[[Difference], tuple[Any, ...]]:
    ranks = {name: number for number, name in enumerate([*topics.archived_logs, CASE_VIEWS])}

    def place(each: Difference) -> tuple[Any, ...]:
        partition = -1 if each.partition is None else each.partition
        return ranks.get(each.topic, -1), partition, -1 if each.offset is None else each.offset, each.text

    return place


def _altered(altered: Altered) -> Difference:
    where = altered.topic, altered.partition, altered.offset
    return Difference(*where, None, (), None, None, altered.detail)


def shown_place(topic: str, partition: int, offset: int) -> str:
    """Where a record stands, for people."""
    return f"{topic} partition {partition} offset {offset}"


def _said(where: str, was: bytes | None, should: bytes | None) -> str:
    if was is None:
        return f"{where}: not recorded yet: {_shown(should or b'')}"
    if should is None:
        return f"{where}: recorded, but the log does not lead to it: {_shown(was)}"
    return f"{where}: altered, or decided otherwise: recorded {_shown(was)}, derived {_shown(should)}"


def views_digest(items: Items) -> str:
    """SHA-256 over all items of the case table by their keys, each as canonical JSON preceded by its length.

    Without `known_at_ms`: when a record was written is the one thing that differs where the same payments are decided
    again. `compare_views` looks at it.
    """
    return encoded_digest(
        {
            key: canonical_json({name: value for name, value in item.items() if name != "known_at_ms"})
            for key, item in items.items()
        }
    )


def encoded_digest(encoded: Mapping[tuple[str, str], bytes]) -> str:
    """The same of items that are canonical JSON already."""
    digest = hashlib.sha256()
    for key in sorted(encoded):
        digest.update(len(encoded[key]).to_bytes(8, "big") + encoded[key])
    return digest.hexdigest()


def compare_views(stored: Items, derived: Items) -> Comparison:
    """Item by item."""
    differences: list[Difference] = []
    behind = sum(key not in stored for key in derived)
    for key in sorted(stored):
        item, wanted = stored[key], derived.get(key)
        if wanted is not None and _is_same(item, wanted):
            continue
        if wanted is not None and _is_behind(item, wanted):
            behind += 1
            continue
        was, should = canonical_json(item), None if wanted is None else canonical_json(wanted)
        text = f"view item {' '.join(key)}: stored {_shown(was)}, derived {_shown(should) if should else 'nothing'}"
        differences.append(Difference(CASE_VIEWS, None, None, item.get("account_id"), key, was, should, text))
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
