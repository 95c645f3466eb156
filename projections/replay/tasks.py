"""Tasks of a replay: each reads one partition of one log from its first record to its end, in a worker process."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, Final

from fastavro.schema import SchemaParseException

from domain.cases.events import CaseAnswer, CaseEvent
from domain.cases.fold import CaseFold
from domain.digest import canonical_json, place_of
from domain.payment import FIELDS, Refusal
from domain.record_types import Event, from_fields
from domain.risk.entity_fold import EntityFold
from domain.risk.events import DuplicateSeen, EntityPayment, Flag, RiskFlagged, RiskRestated, RiskScored, RulesActivated
from domain.risk.fold import RiskFold
from projections.logs.log import ColumnBatch
from projections.replay.results import (
    BLOCK_BITS,
    NONE,
    SENT,
    AnswersResult,
    Block,
    BlockDifference,
    BlockSum,
    ComparedEvent,
    ContentDigest,
    DerivedItem,
    EntitiesResult,
    EventsResult,
    InboundResult,
    InboxResult,
    PaymentChains,
    Row,
    TaskResult,
    add_sums,
    block_sum,
    compared_event,
    sent_sum,
)
from projections.replay.sources import ColumnLog, LogGap
from projections.views.case_view import CaseView, Item, event_item, project, view_item
from schemas.catalog import parse
from schemas.codec import Decoder, UnreadableRecord

MAX_DIFFERING: Final = 4
"""Differing blocks of a partition that are compared row by row; further ones are only counted."""
_sent_row: Final = attrgetter(*SENT)
_SENT_AT: Final = SENT.index("offset")
_PAYMENT_FLAGS: Final = (RiskFlagged, RiskRestated)


class SchemaRecorder:
    """Lookup of writers' schemas that remembers the texts it returned."""

    def __init__(self, log: ColumnLog) -> None:
        self._log = log
        self.texts: set[str] = set()

    def __call__(self, schema_id: int) -> str | None:
        text = self._log.schema_text(schema_id)
        if text is not None:
            self.texts.add(text)
        return text


ReadProgress = Callable[[int], None]
"""Receives the number of records read since its last call."""


def read_gapless(
    log: ColumnLog, topic: str, partition: int, end: int, report_progress: ReadProgress
) -> Iterator[ColumnBatch]:
    """Yield the records of a partition. Raises LogGap if one is missing.

    Our producers are not transactional, so the offsets of these logs are consecutive.
    """
    expected = 0
    for batch in log.batches(topic, partition, end):
        offsets = batch.offsets
        if list(offsets) != list(range(expected, expected + len(offsets))):
            for offset in offsets:
                if offset != expected:
                    raise LogGap.before(topic, partition, offset, expected)
                expected += 1
        expected += len(offsets)
        yield batch
        report_progress(len(offsets))
    if expected != end:
        raise LogGap.at_end(topic, partition, expected, end)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTask:
    """A task that reads one partition up to offset `end`."""

    topic: str
    partition: int
    end: int

    weight: ClassVar[int] = 1
    """Relative cost of a record; the task with the most work starts first."""

    def run(self, log: ColumnLog, report_progress: ReadProgress) -> TaskResult:
        """Read the partition and return the result."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundTask(PartitionTask):
    """Fold of a partition of payments.inbound. Recorded sums are given by block; if None, nothing is compared."""

    answered: Mapping[int, BlockSum] | None = None
    sent: Mapping[int, BlockSum] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()

    weight: ClassVar[int] = 4

    def run(self, log: ColumnLog, report_progress: ReadProgress) -> InboundResult:
        """Fold the partition. Raises LogGap."""
        result = InboundResult(topic=self.topic, partition=self.partition)
        result.chains[self.partition] = PaymentChains(self.wanted)
        fold, schemas, content = RiskFold(self.partition), SchemaRecorder(log), ContentDigest()
        decode = Decoder(schemas, {"Transaction": FIELDS}).decode
        read, answers = fold.read, _AnswerCollector(self, result)
        add, scored = answers.add, answers.scored
        for batch in read_gapless(log, self.topic, self.partition, self.end, report_progress):
            content.add(batch)
            for offset, at_ms, value in zip(*batch, strict=True):
                if offset >= answers.ends_at:
                    answers.flush(offset)
                try:
                    name, data = decode(value)
                except UnreadableRecord:
                    result.quarantined += 1
                    continue
                outputs = read(name, data, offset, at_ms)
                if type(outputs) is Refusal:
                    result.quarantined += 1
                    continue
                if len(outputs) == 1 and type(outputs[0]) is RiskScored:  # the usual case
                    scored.append(outputs[0])
                    continue
                for output in outputs:
                    add(output)
                if name == RulesActivated.__name__ and data["mode"] == "active":
                    result.packs.append(data["pack_id"])
        answers.finish(self.end)
        result.records, result.content, result.schemas = self.end, content.digest(), _named_schemas(schemas)
        result.altered = log.altered
        return result


class _AnswerCollector:
    """Outputs of a payment fold, collected and compared block by block."""

    def __init__(self, task: InboundTask, result: InboundResult) -> None:
        self._task, self._result = task, result
        self.scored: list[RiskScored] = []
        self._duplicates: list[DuplicateSeen] = []
        self._sent: list[EntityPayment] = []
        self._decisions = hashlib.sha256()
        self._number = 0
        self._left = dict(task.answered or {}), dict(task.sent)
        self.ends_at = 1 << BLOCK_BITS

    def add(self, output: Any) -> None:
        """Add one output of the fold."""
        kind = type(output)
        if kind is RiskScored:
            self.scored.append(output)
        elif kind is DuplicateSeen:
            self._duplicates.append(output)
        elif kind is EntityPayment:
            self._sent.append(output)
        elif kind in _PAYMENT_FLAGS:
            self._result.events.append(compared_event(output))

    def flush(self, offset: int) -> None:
        """Finish the current block; the next one is the block of `offset`."""
        self._add_block()
        if self._task.answered is not None:
            self._compare()
        for taken in (self.scored, self._duplicates, self._sent):
            taken.clear()
        self._number = offset >> BLOCK_BITS
        self.ends_at = (self._number + 1) << BLOCK_BITS

    def _add_block(self) -> None:
        result = self._result
        result.chains[self._task.partition].add(self.scored)
        for scored in self.scored:
            if scored.score or scored.shadow:
                fields = {name: getattr(scored, name) for name in ("offset", "score", "rules", "pack_id", "shadow")}
                self._decisions.update(canonical_json(fields))
        result.payments += len(self.scored)
        result.duplicates += len(self._duplicates)
        result.decisions = self._decisions.digest()

    def _compare(self) -> None:
        answered, sent = self._left[0].pop(self._number, NONE), self._left[1].pop(self._number, NONE)
        answers, on = _answer_rows(self.scored, self._duplicates), [_sent_row(each) for each in self._sent]
        derived = block_sum(*answers) if answers[0] or answers[1] else NONE
        differs = [self._differs(derived, answered), self._differs(sent_sum(on), sent)]
        if any(differs):
            self._result.differing.append(BlockDifference(self._number, [*answers[0], *answers[1]], on))

    def _differs(self, derived: BlockSum, recorded: BlockSum) -> bool:
        """Return whether the rows must be compared; count the rest as missing or as differing blocks."""
        if derived == recorded:
            return False
        if recorded != NONE and len(self._result.differing) < MAX_DIFFERING:
            return True
        if recorded[0] < derived[0]:
            self._result.missing += derived[0] - recorded[0]
        else:
            self._result.more_differing += 1
        return False

    def finish(self, end: int) -> None:
        """Finish the last block; compare recorded blocks for which nothing is derived."""
        self.flush(end)
        if self._task.answered is None:
            return
        for number in sorted({*self._left[0], *self._left[1]}):
            self._number = number
            self._compare()


def _answer_rows(scored: list[RiskScored], duplicates: list[DuplicateSeen]) -> tuple[list[Row], list[Row]]:
    """Return decisions and duplicates as rows in the format of recorded answers, with their offset first."""
    fresh = list(zip(*scored, strict=True))
    rows = list(zip(fresh[14], *fresh[:13], strict=True)) if fresh else []
    return rows, [(each.offset, *each[:3]) for each in duplicates]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersTask(PartitionTask):
    """Reading of recorded risk answers without redelivered ones.

    `ends` are those of payments.inbound; answers to later payments are ignored.
    """

    ends: Mapping[int, int]
    accounts: frozenset[str] = frozenset()
    wanted: frozenset[Block] = frozenset()

    weight: ClassVar[int] = 3

    def run(self, log: ColumnLog, report_progress: ReadProgress) -> AnswersResult:
        """Read the partition."""
        result = AnswersResult(topic=self.topic, partition=self.partition)
        waiting: dict[Block, tuple[list[Row], list[Row]]] = {}
        current: dict[int, int] = {}
        answered: dict[int, int] = {}
        for number, scored, duplicates in log.answers(self.topic, self.partition, self.end):
            last, end = answered.get(number, -1), self.ends.get(number, 0)
            new_scored, new_duplicates = ([row for row in rows if last < row[0] < end] for rows in (scored, duplicates))
            for kind, rows in enumerate((new_scored, new_duplicates)):
                for row in rows:
                    waiting.setdefault((number, row[0] >> BLOCK_BITS), ([], []))[kind].append(row)
            result.chains.setdefault(number, PaymentChains(self.accounts)).add(new_scored, at=1)
            result.payments += len(new_scored)
            result.duplicates += len(new_duplicates)
            answered[number] = max([last, *(row[0] for row in (*scored, *duplicates))])
            for done in range(current.get(number, 0), answered[number] >> BLOCK_BITS):
                self._close(result, (number, done), waiting)
            current[number] = answered[number] >> BLOCK_BITS
            report_progress(len(scored) + len(duplicates))
        for block in sorted(waiting):
            self._close(result, block, waiting)
        result.altered = log.altered
        return result

    def _close(self, result: AnswersResult, block: Block, waiting: dict[Block, tuple[list[Row], list[Row]]]) -> None:
        rows = waiting.pop(block, None)
        if rows is None:
            return
        result.blocks[block] = block_sum(*rows)
        if block in self.wanted:
            result.rows[block] = [*rows[0], *rows[1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitiesTask(PartitionTask):
    """Fold of a partition of entities.inbound, with sums of the payments forwarded to it.

    Each partition of payments.inbound forwards payments in the order of their offsets, then by entity. A payment that
    is not after the last one of its partition was redelivered. `ends` are those of payments.inbound.
    """

    ends: Mapping[int, int]
    recorded: int = 0
    """End of the log: payments forwarded up to there are read, although they are not folded."""
    wanted: frozenset[Block] = frozenset()

    weight: ClassVar[int] = 5

    def run(self, log: ColumnLog, report_progress: ReadProgress) -> EntitiesResult:
        """Fold the partition. Raises LogGap."""
        result = EntitiesResult(topic=self.topic, partition=self.partition)
        fold, schemas, content = EntityFold(self.partition), SchemaRecorder(log), ContentDigest()
        decode = Decoder(schemas).decode
        last: dict[int, tuple[int, str]] = {}
        for batch in read_gapless(log, self.topic, self.partition, self.end, report_progress):
            content.add(batch)
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                try:
                    name, data = decode(value)
                except UnreadableRecord:
                    continue  # the entity job has quarantined it
                flags = fold.read(name, data, offset)
                for flag in () if isinstance(flags, Refusal) else flags:
                    result.events.append(compared_event(flag))
                self._sum(result, last, offset, name, data)
        for offset, _, name, data in read_later_records(log, self.topic, self.partition, self.end, self.recorded):
            self._sum(result, last, offset, name, data)
        result.records, result.content, result.schemas = self.end, content.digest(), _named_schemas(schemas)
        result.altered = log.altered
        return result

    def _sum(
        self, result: EntitiesResult, last: dict[int, tuple[int, str]], offset: int, name: str, data: Mapping[str, Any]
    ) -> None:
        if name != EntityPayment.__name__:
            return
        row: Row = tuple(map(data.get, SENT))
        number, at = data["partition"], (data["offset"], data["entity"])
        if at <= last.get(number, (-1, "")):
            return
        last[number] = at
        if row[_SENT_AT] >= self.ends.get(number, 0):
            return
        block = number, row[_SENT_AT] >> BLOCK_BITS
        result.sums[block] = add_sums(result.sums.get(block, NONE), sent_sum([row]))
        if block in self.wanted:
            result.rows.setdefault(block, []).append((offset, row))


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxTask(PartitionTask):
    """Fold of a partition of cases.inbox into case events and views, with the flags recorded there."""

    recorded: int = 0
    """End of the log: flags up to there are read, although they are not folded."""

    weight: ClassVar[int] = 20

    def run(self, log: ColumnLog, report_progress: ReadProgress) -> InboxResult:
        """Fold the partition. Raises LogGap."""
        result = InboxResult(topic=self.topic, partition=self.partition)
        fold, schemas, content, views = CaseFold(), SchemaRecorder(log), ContentDigest(), dict[str, CaseView]()
        decode = Decoder(schemas).decode
        for batch in read_gapless(log, self.topic, self.partition, self.end, report_progress):
            content.add(batch)
            for offset, at_ms, value in zip(*batch, strict=True):
                try:
                    name, data = decode(value)
                except UnreadableRecord:
                    continue
                flag = _read_event(name, data) if name in _FLAGS else None
                if isinstance(flag, Flag):
                    result.flags.append(compared_event(flag, offset, at_ms))
                events = fold.read(name, data)
                for event in () if isinstance(events, Refusal) else events:
                    result.case_events.append(_derived_item(event))
                    if not isinstance(event, CaseAnswer):
                        views[event.case_id] = project(views.get(event.case_id), event)
        for offset, at_ms, name, data in read_later_records(log, self.topic, self.partition, self.end, self.recorded):
            flag = _read_event(name, data) if name in _FLAGS else None
            if isinstance(flag, Flag):
                result.flags.append(compared_event(flag, offset, at_ms))
        result.views = {(item := view_item(view))["pk"]: (item["sk"], _item_bytes(item)) for view in views.values()}
        result.events = [each.event for each in result.case_events]
        result.records, result.content, result.schemas = self.end, content.digest(), _named_schemas(schemas)
        result.altered = log.altered
        return result


def read_later_records(
    log: ColumnLog, topic: str, partition: int, start: int, end: int
) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    """Yield offset, time, name and fields of the readable records from offset `start` up to `end`.

    A replay up to a time needs them: a record that follows from a payment before that time may be written a little
    later.
    """
    decode = Decoder(SchemaRecorder(log)).decode
    for batch in log.batches(topic, partition, end) if start < end else ():
        for offset, at_ms, value in zip(*batch, strict=True):
            if offset >= start:
                try:
                    yield offset, at_ms, *decode(value)
                except UnreadableRecord:
                    continue


_FLAGS: Final = frozenset(kind.__name__ for kind in Flag.__args__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsTask(PartitionTask):
    """Reading of recorded case events, including redelivered ones."""

    until_ms: int | None = None

    weight: ClassVar[int] = 15

    def run(self, log: ColumnLog, report_progress: ReadProgress) -> EventsResult:
        """Read the partition."""
        result, schemas = EventsResult(topic=self.topic, partition=self.partition), SchemaRecorder(log)
        decode = Decoder(schemas).decode
        for batch in log.batches(self.topic, self.partition, self.end):
            for offset, at_ms, value in zip(*batch, strict=True):
                try:
                    event = from_fields(*decode(value))
                except (UnreadableRecord, KeyError, TypeError) as error:
                    result.foreign.append((offset, str(error)))
                    continue
                if isinstance(event, CaseEvent):
                    result.events.append(compared_event(event, offset, at_ms))
            report_progress(len(batch.offsets))
        result.schemas, result.altered = _named_schemas(schemas), log.altered
        return result


def _read_event(name: str, data: dict[str, Any]) -> Event | None:
    try:
        return from_fields(name, data)
    except (KeyError, TypeError):
        return None


def _derived_item(event: CaseEvent) -> DerivedItem:
    """Return a derived case event with its item. The canonical bytes are made once, for the item's body."""
    item = event_item(event)
    account_id, place = place_of(event)
    derived = ComparedEvent(type(event).__name__, account_id, place, item["body"].encode())
    return DerivedItem(derived, item["pk"], item["sk"], _item_bytes(item))


def _item_bytes(item: Item) -> bytes:
    return canonical_json({name: value for name, value in item.items() if name != "known_at_ms"})


def _named_schemas(schemas: SchemaRecorder) -> dict[str, str]:
    """Return the record name of each schema text, without texts that are not the schema of a record."""
    named = {}
    for text in sorted(schemas.texts):
        try:
            named[text] = parse(text)[0]
        except (SchemaParseException, ValueError, TypeError, KeyError):
            continue  # the folds refused its records
    return named
