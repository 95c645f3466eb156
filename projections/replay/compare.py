"""Comparison of recorded events with derived ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from domain.digest import canonical_json
from domain.risk.events import EntityPayment
from projections.archive.segments import Alteration
from projections.replay.compare_views import shown_item
from projections.replay.outcome import CASE_VIEWS, DecisionHistory, Ends, ReplayComparison, ReplayMismatch, format_place
from projections.replay.results import SENT, AnswersResult, Block, BlockDifference, InboundResult, Row
from projections.replay.sources import DUPLICATE, SCORED
from projections.replay.tasks import AnswersTask, EntitiesTask, InboxTask
from projections.replay.workers import WorkerPool
from schemas.topics import Topics


def compare_rows(
    pool: WorkerPool,
    topics: Topics,
    tasks: tuple[Sequence[AnswersTask], Sequence[EntitiesTask | InboxTask]],
    decided: Sequence[InboundResult],
    ends: Ends,
) -> ReplayComparison:
    """Compare answers and forwarded payments row by row in the blocks that differ."""
    blocks = {(each.partition, one.number): one for each in decided for one in each.differing}
    missing, differences = sum(each.missing for each in decided), list[ReplayMismatch]()
    wanted, first = frozenset(blocks), None
    answers: dict[Block, list[Row]] = {}
    sent: dict[Block, list[tuple[int, int, Row]]] = {}
    if wanted:
        again = [
            *(AnswersTask(**_task_fields(task), ends=task.ends, wanted=wanted) for task in tasks[0]),
            *(
                EntitiesTask(**_task_fields(t), recorded=t.recorded, ends=t.ends, wanted=wanted)
                for t in tasks[1]
                if isinstance(t, EntitiesTask)
            ),
        ]
        for result in pool.run(again):
            for block, rows in result.rows.items():
                if isinstance(result, AnswersResult):
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
            text = f"{each.topic} partition {each.partition}: {each.more_differing} further blocks of answers differ"
            differences.append(ReplayMismatch(*where, None, (), None, None, text))
    return ReplayComparison(differences, missing, first)


def _task_fields(task: AnswersTask | EntitiesTask) -> dict[str, Any]:
    return {"topic": task.topic, "partition": task.partition, "end": task.end}


def _compare_answers(
    topics: Topics, partition: int, block: BlockDifference, rows: Sequence[Row]
) -> tuple[list[ReplayMismatch], list[ReplayMismatch]]:
    """Return the differing answers of a block, and those that are not recorded yet."""
    topic, found, left = topics.payments_inbound, list[ReplayMismatch](), list[ReplayMismatch]()
    recorded_rows, derived_rows = ({row[0]: row for row in each} for each in (rows, block.answers))
    for offset in sorted({*recorded_rows, *derived_rows}):
        recorded, expected = recorded_rows.get(offset), derived_rows.get(offset)
        if recorded == expected:
            continue
        row: Row = recorded or expected or ()
        texts = _answer_text(recorded), _answer_text(expected)
        text = _mismatch_text(f"{format_place(topic, partition, offset)}: the decision on this payment", *texts)
        difference = ReplayMismatch(topic, partition, offset, row[1], ("0-payment", row[2]), *texts, text)
        (found if recorded else left).append(difference)
    return found, left


def _answer_text(row: Row | None) -> bytes | None:
    if row is None:
        return None
    kind, names = ("RiskScored", SCORED) if len(row) == len(SCORED) else ("DuplicateSeen", DUPLICATE)
    return canonical_json({"type": kind, **dict(zip(names, row, strict=True))})


def _compare_sent(
    topics: Topics, partition: int, block: BlockDifference, rows: Sequence[tuple[int, int, Row]]
) -> tuple[list[ReplayMismatch], list[ReplayMismatch]]:
    """Return the differing forwarded payments of a block, and those that are not recorded yet."""
    entity, at = SENT.index("entity"), SENT.index("offset")
    derived_rows = {(row[at], row[entity]): row for row in block.sent}
    topic, found = topics.entities_inbound, list[ReplayMismatch]()
    for where, offset, row in sorted(rows, key=lambda each: each[:2]):
        expected = derived_rows.pop((row[at], row[entity]), None)
        if row != expected:
            texts = _sent_text(row), _sent_text(expected)
            text = _mismatch_text(format_place(topic, where, offset), *texts)
            found.append(ReplayMismatch(topic, where, offset, row[1], ("0-sent", row[entity]), *texts, text))
    left = [
        ReplayMismatch(
            topic, None, None, row[1], ("0-sent", row[entity]), None, _sent_text(row),
            _mismatch_text(
                f"{format_place(topics.payments_inbound, partition, row[at])}: forwarded", None, _sent_text(row)
            ),
        )
        for row in derived_rows.values()
    ]  # fmt: skip
    return found, left


def _sent_text(row: Row | None) -> bytes | None:
    if row is None:
        return None
    return canonical_json({"type": EntityPayment.__name__, **dict(zip(SENT, row, strict=True))})


def compare_events(
    topics: Topics, live: DecisionHistory, derived: DecisionHistory, rows: ReplayComparison
) -> ReplayComparison:
    """Compare flags and case events one by one.

    An event that is recorded only, or recorded differently, is a difference. An event that is derived only is missing.
    """
    recorded_items, derived_items = live.digest.items(), derived.digest.items()
    differences = [*rows.differences, *live.contradictions]
    for place, encoded in recorded_items.items():
        if encoded != derived_items.get(place):
            origin, expected = live.origins[place], derived_items.get(place)
            text = _mismatch_text(format_place(*origin), encoded, expected)
            differences.append(ReplayMismatch(*origin, *place, encoded, expected, text))
    left = sorted(derived_items.keys() - recorded_items.keys())
    missing, first = rows.missing + len(left), rows.first_missing
    if first is None and left:
        kind = topics.cases_inbox if left[0][1][0].startswith("1-") else topics.cases_events
        encoded = derived_items[left[0]]
        text = _mismatch_text(f"{kind}, account {left[0][0]}", None, encoded)
        first = ReplayMismatch(kind, None, None, *left[0], None, encoded, text)
    differences.sort(key=_order_by(topics))
    if not differences and not missing and live.digest.hexdigest() != derived.digest.hexdigest():
        text = "the recorded decisions are on other payments than those in the log"
        differences.append(ReplayMismatch(topics.payments_inbound, None, None, None, (), None, None, text))
    return ReplayComparison(differences, missing, first)


def sort_mismatches(topics: Topics, differences: Iterable[ReplayMismatch]) -> list[ReplayMismatch]:
    """Sort mismatches by topic, deciding logs first, then by partition and offset."""
    return sorted(differences, key=_order_by(topics))


def _order_by(topics: Topics) -> Callable[[ReplayMismatch], tuple[Any, ...]]:
    ranks = {name: number for number, name in enumerate([*topics.archived_logs, CASE_VIEWS])}

    def place(each: ReplayMismatch) -> tuple[Any, ...]:
        partition = -1 if each.partition is None else each.partition
        return ranks.get(each.topic, -1), partition, -1 if each.offset is None else each.offset, each.text

    return place


def report_altered(altered: Alteration) -> ReplayMismatch:
    """Return altered archive content as a mismatch."""
    where = altered.topic, altered.partition, altered.offset
    return ReplayMismatch(*where, None, (), None, None, altered.detail)


def _mismatch_text(where: str, recorded: bytes | None, expected: bytes | None) -> str:
    if recorded is None:
        return f"{where}: not recorded yet: {shown_item(expected or b'')}"
    if expected is None:
        return f"{where}: recorded, but not derived from the log: {shown_item(recorded)}"
    return f"{where}: altered, or decided differently: recorded {shown_item(recorded)}, derived {shown_item(expected)}"
