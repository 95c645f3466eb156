"""Replay: derive everything again from the deciding logs in fresh state, and compare it with the recorded history.

The deciding logs are payments.inbound, entities.inbound and cases.inbox. They run through the folds that decided live;
recorded flags, answers and case events are read for comparison only. Partitions are read in parallel (`tasks.py`); this
module combines their results in a fixed order.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from projections.archive.bucket import Bucket
from projections.replay.compare import compare_events, compare_rows, report_altered
from projections.replay.outcome import (
    DecisionHistory,
    DerivedState,
    Ends,
    ReplayMismatch,
    ReplayResult,
    format_place,
)
from projections.replay.results import (
    NONE,
    AnswersResult,
    Block,
    BlockSum,
    ComparedEvent,
    EntitiesResult,
    EventPlace,
    EventsResult,
    InboundResult,
    InboxResult,
    PaymentChains,
    TaskResult,
    add_sums,
)
from projections.replay.sources import LogSource
from projections.replay.tasks import AnswersTask, EntitiesTask, EventsTask, InboundTask, InboxTask
from projections.replay.workers import WorkerPool
from schemas.topics import Topics

Progress = Callable[[int], None]
RecordedEventFilter = Callable[[str, int, ComparedEvent], bool]
"""Decides whether a recorded flag or case event of this topic and partition is compared."""
_AMBIGUOUS: Final[BlockSum] = (-1, 0)
"""Sum of a block whose answers are in two partitions: it never matches, so that the rows are compared."""


# -- reading ------------------------------------------------------------------------------------------------


def ends_of(source: LogSource, topics: Topics, until_ms: int | None = None) -> Ends:
    """Return the end of each archived log; with `until_ms`, the offset of the first later record."""
    log, ends = source.open(), Ends()
    for topic in topics.archived_logs:
        ends[topic] = log.ends(topic)
        if until_ms is not None:
            for partition, end in ends[topic].items():
                later = log.offset_after(topic, partition, until_ms) if end else None
                ends[topic][partition] = end if later is None else min(end, later)
    return ends


def derive(
    source: LogSource, topics: Topics, workers: int = 1, report_progress: Progress = lambda _: None
) -> DerivedState:
    """Run the folds over the deciding logs without any comparison. Raises LogGap if records are missing."""
    with WorkerPool(source, workers, _running_total(report_progress)) as pool:
        ends, payments = ends_of(source, topics), topics.payments_inbound
        decide = [InboundTask(topic=payments, partition=p, end=end) for p, end in ends[payments].items()]
        results = pool.run([*_fold_tasks(topics, ends, ends), *decide])
        _chain_across_partitions(pool, decide, _results_of_type(InboundResult, results))
    return _collect_derived(results, topics)


def read_recorded_history(
    source: LogSource, topics: Topics, workers: int = 1, report_progress: Progress = lambda _: None
) -> DecisionHistory:
    """Return the history that was recorded live in the logs."""
    with WorkerPool(source, workers, _running_total(report_progress)) as pool:
        ends, topic = ends_of(source, topics), topics.cases_inbox
        answers = _answer_tasks(source, topics, ends)
        inbox = [InboxTask(topic=topic, partition=p, end=end) for p, end in ends[topic].items()]
        results = pool.run([*answers, *inbox, *_event_tasks(source, topics)])
        _chain_across_partitions(pool, answers, _results_of_type(AnswersResult, results))
    return _collect_recorded(results, lambda *_: True)


def _compared_event_filter(
    before: Ends, until_ms: int | None, derived: Mapping[EventPlace, bytes]
) -> RecordedEventFilter:
    """Return a filter of recorded flags and case events: those that must be derived, and those that are."""

    def is_compared(topic: str, partition: int, event: ComparedEvent) -> bool:
        must_be = event.offset < before[topic].get(partition, 0) and (
            until_ms is None or event.timestamp_ms <= until_ms
        )
        return must_be or (event.account_id, event.place) in derived

    return is_compared


def replay(
    source: LogSource,
    topics: Topics,
    workers: int = 1,
    until_ms: int | None = None,
    report_progress: Progress = lambda _: None,
) -> ReplayResult:
    """Derive everything and compare it with the recorded history. Raises LogGap if records of a deciding log are
    missing.

    The system may be running. Events recorded before the fold's end was fixed must be derived. Later ones are compared
    only if they are derived, because their cause may be after the end of the fold.
    """
    with WorkerPool(source, workers, _running_total(report_progress)) as pool:
        before = ends_of(source, topics)
        ends = ends_of(source, topics, until_ms)
        answers, folds = _answer_tasks(source, topics, ends), _fold_tasks(topics, ends, ends_of(source, topics))
        results = pool.run([*answers, *folds, *_event_tasks(source, topics)])
        decide = _inbound_tasks(
            topics, ends, _results_of_type(AnswersResult, results), _results_of_type(EntitiesResult, results)
        )
        decided: list[InboundResult] = pool.run(decide)
        _chain_across_partitions(pool, answers, _results_of_type(AnswersResult, results))
        _chain_across_partitions(pool, decide, decided)
        row_comparison = compare_rows(pool, topics, (answers, folds), decided, ends)
    results += decided
    derived = _collect_derived(results, topics)
    live = _collect_recorded(results, _compared_event_filter(before, until_ms, derived.history.digest.items()))
    deciding = (
        *_results_of_type(InboundResult, results),
        *_results_of_type(EntitiesResult, results),
        *_results_of_type(InboxResult, results),
    )
    schemas = {text: name for result in deciding for text, name in result.schemas.items()}
    altered = [report_altered(each) for each in dict.fromkeys(each for result in results for each in result.altered)]
    return ReplayResult(
        live, derived, compare_events(topics, live, derived.history, row_comparison), altered, ends, schemas
    )


def _running_total(report_progress: Progress) -> Progress:
    total = 0

    def add_records(records: int) -> None:
        nonlocal total
        total += records
        report_progress(total)

    return add_records


def _fold_tasks(topics: Topics, ends: Ends, recorded: Ends) -> list[EntitiesTask | InboxTask]:
    """Return the tasks that fold up to `ends` and read recorded flags and payments up to `recorded`."""
    payments, entities, inbox = topics.payments_inbound, topics.entities_inbound, topics.cases_inbox
    return [
        *(
            EntitiesTask(topic=entities, partition=p, end=end, recorded=recorded[entities][p], ends=ends[payments])
            for p, end in ends[entities].items()
        ),
        *(InboxTask(topic=inbox, partition=p, end=end, recorded=recorded[inbox][p]) for p, end in ends[inbox].items()),
    ]


def _answer_tasks(source: LogSource, topics: Topics, ends: Ends) -> list[AnswersTask]:
    topic = topics.risk_scored
    return [
        AnswersTask(topic=topic, partition=p, end=end, ends=ends[topics.payments_inbound])
        for p, end in source.open().answer_ends(topic).items()
    ]


def _event_tasks(source: LogSource, topics: Topics) -> list[EventsTask]:
    """Return tasks for all case events, because an event of a payment before `until_ms` may be recorded later."""
    topic = topics.cases_events
    return [EventsTask(topic=topic, partition=p, end=end) for p, end in source.open().ends(topic).items()]


def _inbound_tasks(
    topics: Topics, ends: Ends, answered: list[AnswersResult], sent: list[EntitiesResult]
) -> list[InboundTask]:
    blocks, sums = dict[Block, BlockSum](), dict[Block, BlockSum]()
    for each in answered:
        for block, found in each.blocks.items():
            blocks[block] = _AMBIGUOUS if block in blocks else found
    for one in sent:
        for block, found in one.sums.items():
            sums[block] = add_sums(sums.get(block, NONE), found)
    topic = topics.payments_inbound
    return [
        InboundTask(
            topic=topic, partition=p, end=end, answered=_partition_sums(blocks, p), sent=_partition_sums(sums, p)
        )
        for p, end in ends[topic].items()
    ]


def _partition_sums(sums: Mapping[Block, BlockSum], partition: int) -> dict[int, BlockSum]:
    return {number: found for (where, number), found in sums.items() if where == partition}


ReadT = TypeVar("ReadT", bound=TaskResult)


def _results_of_type(kind: type[ReadT], results: Sequence[TaskResult]) -> list[ReadT]:
    return [each for each in results if isinstance(each, kind)]


def _chain_across_partitions(
    pool: WorkerPool, tasks: Sequence[InboundTask | AnswersTask], results: Sequence[InboundResult | AnswersResult]
) -> None:
    """Rebuild the digest chain of accounts with payments in several partitions (other producers or partitioners).

    Reads these partitions once more. Our own producers never make this necessary.
    """
    counted: dict[str, int] = {}
    for result in results:
        for chains in result.chains.values():
            for account_id in chains.digests:
                counted[account_id] = counted.get(account_id, 0) + 1
    several = frozenset(account_id for account_id, number in counted.items() if number > 1)
    if not several:
        return
    again = pool.run([_with_collected_rows(task, several) for task in tasks])
    chained = PaymentChains()
    parts = [(partition, chains) for read in again for partition, chains in read.chains.items()]
    for _, chains in sorted(parts, key=lambda part: part[0]):
        for account_id, links in chains.links.items():
            for link in links:
                chained.add_link(account_id, link)
    whole = [chains for result in results for chains in result.chains.values()]
    for chains in whole:
        for account_id in several:
            chains.digests.pop(account_id, None)
    whole[0].digests.update(chained.digests)


def _with_collected_rows(task: InboundTask | AnswersTask, accounts: frozenset[str]) -> InboundTask | AnswersTask:
    if isinstance(task, InboundTask):
        return InboundTask(topic=task.topic, partition=task.partition, end=task.end, wanted=accounts)
    return AnswersTask(topic=task.topic, partition=task.partition, end=task.end, ends=task.ends, accounts=accounts)


# -- combining ----------------------------------------------------------------------------------------------


def _collect_derived(results: Sequence[TaskResult], topics: Topics) -> DerivedState:
    derived = DerivedState()
    history, decisions, inbound = derived.history, hashlib.sha256(), hashlib.sha256()
    for decided in _results_of_type(InboundResult, results):
        history.payments += decided.payments
        history.duplicates += decided.duplicates
        history.quarantined += decided.quarantined
        for chains in decided.chains.values():
            for account_id, chain in chains.digests.items():
                history.digest.add_chain(account_id, chain)
        if decided.records:  # the archive does not know of empty partitions, so they do not count
            decisions.update(decided.partition.to_bytes(4, "big") + decided.decisions)
            inbound.update(decided.partition.to_bytes(4, "big") + decided.content)
        derived.packs += (pack_id for pack_id in dict.fromkeys(decided.packs) if pack_id not in derived.packs)
    derived.decisions, derived.inbound = decisions.hexdigest(), inbound.hexdigest()
    for result in (*_results_of_type(InboundResult, results), *_results_of_type(EntitiesResult, results)):
        for event in result.events:
            history.add(event, result.topic, result.partition)
    for cases in _results_of_type(InboxResult, results):
        for case_events in cases.case_events:
            derived.add_case_event(case_events, topics.cases_inbox, cases.partition)
        derived.views += len(cases.views)
        derived.encoded.update({(pk, sk): item for pk, (sk, item) in cases.views.items()})
    derived.records = sum(result.records for result in results)
    return derived


def _collect_recorded(results: Sequence[TaskResult], is_compared: RecordedEventFilter) -> DecisionHistory:
    live = DecisionHistory()
    for answered in _results_of_type(AnswersResult, results):
        live.payments += answered.payments
        live.duplicates += answered.duplicates
        for chains in answered.chains.values():
            for account_id, chain in chains.digests.items():
                live.digest.add_chain(account_id, chain)
    for cases in _results_of_type(InboxResult, results):
        for event in cases.flags:
            if is_compared(cases.topic, cases.partition, event):
                live.add(event, cases.topic, cases.partition)
    for result in _results_of_type(EventsResult, results):
        for offset, what in result.foreign:
            where = result.topic, result.partition, offset
            text = f"{format_place(*where)} is not a case event: {what}"
            live.contradictions.append(ReplayMismatch(*where, None, (), None, None, text))
        for event in result.events:
            if is_compared(result.topic, result.partition, event):
                live.add(event, result.topic, result.partition)
    return live


# -- schemas ------------------------------------------------------------------------------------------------


def archived_schema_check(bucket: Bucket) -> list[str]:
    """Return a message for each archived writer's schema that does not match its SHA-256."""
    altered = []
    for key in bucket.keys("schemas/"):
        name = key.removeprefix("schemas/").removesuffix(".avsc")
        if hashlib.sha256(bucket.get(key) or b"").hexdigest() != name:
            altered.append(f"{key} was altered: its content does not match its SHA-256")
    return altered
