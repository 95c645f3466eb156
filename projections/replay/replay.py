"""Derives everything again from the logs that decide, in fresh state, and compares it with what was recorded.

What is derived comes from payments.inbound, entities.inbound and cases.inbox alone, through the same folds that decided
when it was live; the recorded flags, answers and case events are read only to be compared. Partitions are read side by
side (`replay_work.py`); here what they come to is put together, in one order, however it arrived.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from projections.archive.bucket import Bucket
from projections.logs.log import LogRecord
from projections.replay.compare import compare_events, compare_rows, report_altered
from projections.replay.outcome import (
    Derived,
    Difference,
    Ends,
    History,
    Replayed,
    shown_place,
)
from projections.replay.sources import Gap, Source
from projections.replay.tasks import (
    NONE,
    Answered,
    Block,
    Cases,
    Chains,
    Decide,
    Decided,
    Found,
    Place,
    Read,
    ReadAnswers,
    ReadEvents,
    ReadInbox,
    ReadSent,
    Recorded,
    Sent,
    Sum,
    add_sums,
)
from projections.replay.workers import Workers
from schemas.topics import Topics

__all__ = ["Gap", "Log"]

Progress = Callable[[int], None]
Counts = Callable[[str, int, Found], bool]
"""Whether a recorded flag or case event, of this topic and partition, is compared."""
_SPOILT: Final[Sum] = (-1, 0)
"""Of a block whose answers stand in two partitions: no hash says whether they are right."""


class Log(Protocol):
    """Where records are read from one by one: Kafka, or the archive."""

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record, by partition."""

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """The records of a partition from its start up to an offset."""


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
        at_odds = compare_rows(pool, topics, (answers, folds), decided, ends)
    results += decided
    derived = _derived(results, topics)
    live = _live(results, _counting(before, until_ms, derived.history.digest.items()))
    deciding = (*_of(Decided, results), *_of(Sent, results), *_of(Cases, results))
    schemas = {text: name for result in deciding for text, name in result.schemas.items()}
    altered = [report_altered(each) for each in dict.fromkeys(each for result in results for each in result.altered)]
    return Replayed(live, derived, compare_events(topics, live, derived.history, at_odds), altered, ends, schemas)


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


def archived_schema_check(bucket: Bucket) -> list[str]:
    """The writers' schemas in the archive that are not what they were stored as."""
    altered = []
    for key in bucket.keys("schemas/"):
        name = key.removeprefix("schemas/").removesuffix(".avsc")
        if hashlib.sha256(bucket.get(key) or b"").hexdigest() != name:
            altered.append(f"{key} is not the schema that was stored there")
    return altered
