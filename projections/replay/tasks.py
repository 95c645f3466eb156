"""What one process of a replay does at a time: one partition of one log, from its first record to its end.

What goes back to the parent is small: digests by account, counts, the bytes of flags and case events. Of what there is
one for every payment, blocks of records are compared by their hash, and only rows of blocks that differ go back.
"""

import hashlib
import marshal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, Final, NamedTuple

from fastavro.schema import SchemaParseException

from domain.cases.events import CaseAnswer, CaseEvent
from domain.cases.fold import CaseFold
from domain.digest import canonical_bytes, canonical_json, place_of
from domain.payment import FIELDS, Refusal
from domain.record_types import Event, from_fields
from domain.risk.entity_fold import EntityFold
from domain.risk.events import DuplicateSeen, EntityPayment, Flag, RiskFlagged, RiskRestated, RiskScored, RulesActivated
from domain.risk.fold import RiskFold
from projections.archive.segments import Alteration
from projections.logs.log import ColumnBatch
from projections.replay.sources import ColumnLog, LogGap
from projections.views.case_view import CaseView, Item, event_item, project, view_item
from schemas.catalog import parse
from schemas.codec import Decoder, UnreadableRecord

BLOCK_BITS: Final = 10
"""Records of payments.inbound are compared 1,024 at a time."""
MAX_DIFFERING: Final = 4
"""Blocks of a partition whose rows are compared one by one; of more it is known only that they differ."""
SENT: Final = EntityPayment.__struct_fields__
_sent_row: Final = attrgetter(*SENT)
_SENT_AT: Final = SENT.index("offset")
_MODULUS: Final = 1 << 256
_TAKEN: Final = (RiskFlagged, RiskRestated)

EventPlace = tuple[str, tuple[Any, ...]]
"""Account, and place in its history."""
Row = tuple[Any, ...]
BlockSum = tuple[int, int]
"""How many rows a block has, and a hash of them all."""
Block = tuple[int, int]
"""A partition of payments.inbound, and the number of a block in it."""
NONE: Final[BlockSum] = (0, 0)


class ComparedEvent(NamedTuple):
    """A flag or case event, as it is compared; where its record stands, -1 for one that is derived."""

    kind: str
    account_id: str
    place: tuple[Any, ...]
    encoded: bytes
    offset: int = -1
    timestamp_ms: int = -1


class DerivedItem(NamedTuple):
    """A derived case event as the case table has it."""

    event: ComparedEvent
    pk: str
    sk: str
    item: bytes


class BlockDifference(NamedTuple):
    """A block that was answered, or sent on, otherwise than it is derived: the derived rows."""

    number: int
    answers: list[Row]
    sent: list[Row]


@dataclass(slots=True, kw_only=True)
class TaskResult:
    """What every task says of what it read."""

    topic: str
    partition: int
    records: int = 0
    content: bytes = b""
    """SHA-256 over the records: values, offsets, timestamps."""
    schemas: dict[str, str] = field(default_factory=dict)
    """Writers' schemas that were met, by their texts: what record they are of."""
    altered: list[Alteration] = field(default_factory=list)
    found: list[ComparedEvent] = field(default_factory=list)
    """Flags or case events that are derived; of a log that only records, those that stand there."""


@dataclass(slots=True, kw_only=True)
class InboundResult(TaskResult):
    """What a partition of payments.inbound leads to."""

    chains: dict[int, "PaymentChains"] = field(default_factory=dict)
    """Of this one partition: as recorded answers have them by partition."""
    payments: int = 0
    duplicates: int = 0
    quarantined: int = 0
    packs: list[str] = field(default_factory=list)
    decisions: bytes = b""
    """SHA-256 over the decisions that say more than nothing."""
    differing: list[BlockDifference] = field(default_factory=list)
    more_differing: int = 0
    missing: int = 0
    """Answers, and payments sent on, that are not recorded yet, in blocks where nothing is."""


@dataclass(slots=True, kw_only=True)
class AnswersResult(TaskResult):
    """What the risk job has answered: a partition of risk.scored."""

    chains: dict[int, "PaymentChains"] = field(default_factory=dict)
    """By partition of payments.inbound."""
    payments: int = 0
    duplicates: int = 0
    blocks: dict[Block, BlockSum] = field(default_factory=dict)
    rows: dict[Block, list[Row]] = field(default_factory=dict)
    """Of the blocks that were asked for."""


@dataclass(slots=True, kw_only=True)
class EntitiesResult(TaskResult):
    """What a partition of entities.inbound leads to, and what had been sent on to it."""

    sums: dict[Block, BlockSum] = field(default_factory=dict)
    rows: dict[Block, list[tuple[int, Row]]] = field(default_factory=dict)
    """Of the blocks that were asked for, each with the offset of its record here."""


@dataclass(slots=True, kw_only=True)
class InboxResult(TaskResult):
    """What a partition of cases.inbox leads to."""

    flags: list[ComparedEvent] = field(default_factory=list)
    """Flags that stand there."""
    shown: list[DerivedItem] = field(default_factory=list)
    views: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """The items of the views by their keys."""


@dataclass(slots=True, kw_only=True)
class EventsResult(TaskResult):
    """The case events that stand in a partition of cases.events."""

    foreign: list[tuple[int, str]] = field(default_factory=list)
    """Offsets of what is no case event, and what it is."""


class PaymentChains:
    """The digests of accounts' payments: of each in log order, as `HistoryDigest.add_payment` makes them.

    `wanted` are accounts that other partitions have payments of too: their links are kept, to be chained as one.
    """

    def __init__(self, wanted: frozenset[str] = frozenset()) -> None:
        self.of: dict[str, bytes] = {}
        self.links: dict[str, list[bytes]] = {account: [] for account in sorted(wanted)}

    def add(self, rows: Iterable[Row], at: int = 0) -> None:
        """Payments that were decided: account, transaction id and content digest stand in each row from a place on."""
        links, add_link = self.links, self.add_link
        for row in rows:
            account_id, link = row[at], row[at + 2] + row[at + 1].encode()
            add_link(account_id, link)
            if account_id in links:
                links[account_id].append(link)

    def add_link(self, account_id: str, link: bytes) -> None:
        """What is chained of a payment."""
        self.of[account_id] = hashlib.sha256(self.of.get(account_id, b"") + link).digest()


class ContentDigest:
    """SHA-256 over records, however they come in batches."""

    def __init__(self) -> None:
        self._values, self._numbers = hashlib.sha256(), hashlib.sha256()

    def add(self, batch: ColumnBatch) -> None:
        """The next records."""
        self._values.update(b"".join([value for value in batch.values if value is not None]))
        lines = [
            f"{offset} {at_ms} {-1 if value is None else len(value)}\n"
            for offset, at_ms, value in zip(batch.offsets, batch.timestamps_ms, batch.values, strict=True)
        ]
        self._numbers.update("".join(lines).encode())

    def digest(self) -> bytes:
        """Of all that came."""
        return hashlib.sha256(self._values.digest() + self._numbers.digest()).digest()


class SchemaRecorder:
    """Looks writers' schemas up, and remembers which."""

    def __init__(self, log: ColumnLog) -> None:
        self._log = log
        self.texts: set[str] = set()

    def __call__(self, schema_id: int) -> str | None:
        text = self._log.schema_text(schema_id)
        if text is not None:
            self.texts.add(text)
        return text


ReadProgress = Callable[[int], None]
"""Is told how many more records were read."""


def read_gapless(log: ColumnLog, topic: str, partition: int, end: int, seen: ReadProgress) -> Iterator[ColumnBatch]:
    """The records, if none is missing: our producers are not transactional, so the offsets of these logs are dense."""
    expected = 0
    for batch in log.batches(topic, partition, end):
        offsets = batch.offsets
        if list(offsets) != list(range(expected, expected + len(offsets))):
            for offset in offsets:
                if offset != expected:
                    raise LogGap(f"{topic} partition {partition}: offset {offset} follows {expected - 1}")
                expected += 1
        expected += len(offsets)
        yield batch
        seen(len(offsets))
    if expected != end:
        raise LogGap(f"{topic} partition {partition}: it ends at {expected}, records up to {end} were promised")


def block_sum(scored: list[Row], duplicates: list[Row]) -> BlockSum:
    """A block of answers, column by column. For one run of a replay: `marshal` may differ between Pythons."""
    columns = tuple(zip(*scored, strict=True)), tuple(zip(*duplicates, strict=True))
    content = hashlib.sha256(marshal.dumps(columns, 0)).digest()  # version 0 writes equal values as equal bytes
    return len(scored) + len(duplicates), int.from_bytes(content, "big")


def sent_sum(rows: list[Row]) -> BlockSum:
    """Payments that were sent on, in whatever order they stand."""
    total = 0
    for row in rows:
        total += int.from_bytes(hashlib.sha256(marshal.dumps(row, 0)).digest(), "big")
    return len(rows), total % _MODULUS


def add_sums(one: BlockSum, other: BlockSum) -> BlockSum:
    """Those of two partitions of entities.inbound."""
    return one[0] + other[0], (one[1] + other[1]) % _MODULUS


def found(event: Event, offset: int = -1, timestamp_ms: int = -1) -> ComparedEvent:
    """A flag or case event as it is compared."""
    account_id, place = place_of(event)
    return ComparedEvent(type(event).__name__, account_id, place, canonical_bytes(event), offset, timestamp_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTask:
    """One partition to be read."""

    topic: str
    partition: int
    end: int

    weight: ClassVar[int] = 1
    """What a record costs, against others: the longest work goes first."""

    def run(self, log: ColumnLog, seen: ReadProgress) -> TaskResult:
        """Do it."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundTask(PartitionTask):
    """Fold a partition of payments.inbound. What was recorded is given by block; without it nothing is compared."""

    answered: Mapping[int, BlockSum] | None = None
    sent: Mapping[int, BlockSum] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()

    weight: ClassVar[int] = 4

    def run(self, log: ColumnLog, seen: ReadProgress) -> InboundResult:
        """Do it. Raises Gap."""
        result = InboundResult(topic=self.topic, partition=self.partition)
        result.chains[self.partition] = PaymentChains(self.wanted)
        fold, met, content = RiskFold(self.partition), SchemaRecorder(log), ContentDigest()
        decode = Decoder(met, {"Transaction": FIELDS}).decode
        read, answers = fold.read, _AnswerCollector(self, result)
        add, scored = answers.add, answers.scored
        for batch in read_gapless(log, self.topic, self.partition, self.end, seen):
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
                if len(outputs) == 1 and type(outputs[0]) is RiskScored:  # as nearly all are
                    scored.append(outputs[0])
                    continue
                for output in outputs:
                    add(output)
                if name == RulesActivated.__name__ and data["mode"] == "active":
                    result.packs.append(data["pack_id"])
        answers.finish(self.end)
        result.records, result.content, result.schemas = self.end, content.digest(), _schemas(met)
        result.altered = log.altered
        return result


class _AnswerCollector:
    """What a fold of payments says, taken in block by block."""

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
        """One output of the fold."""
        kind = type(output)
        if kind is RiskScored:
            self.scored.append(output)
        elif kind is DuplicateSeen:
            self._duplicates.append(output)
        elif kind is EntityPayment:
            self._sent.append(output)
        elif kind in _TAKEN:
            self._result.found.append(found(output))

    def flush(self, offset: int) -> None:
        """Take in the block that is over; the next one is that of an offset."""
        self._take_in()
        if self._task.answered is not None:
            self._compare()
        for taken in (self.scored, self._duplicates, self._sent):
            taken.clear()
        self._number = offset >> BLOCK_BITS
        self.ends_at = (self._number + 1) << BLOCK_BITS

    def _take_in(self) -> None:
        result = self._result
        result.chains[self._task.partition].add(self.scored)
        for scored in self.scored:
            if scored.score or scored.shadow:
                said = {name: getattr(scored, name) for name in ("offset", "score", "rules", "pack_id", "shadow")}
                self._decisions.update(canonical_json(said))
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
        """Whether the rows have to be looked at; where nothing is recorded, or too much differs, numbers must do."""
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
        """Take in the rest; what is recorded past it is not derived."""
        self.flush(end)
        if self._task.answered is None:
            return
        for number in sorted({*self._left[0], *self._left[1]}):
            self._number = number
            self._compare()


def _answer_rows(scored: list[RiskScored], duplicates: list[DuplicateSeen]) -> tuple[list[Row], list[Row]]:
    """With the offset first, as recorded answers are read."""
    fresh = list(zip(*scored, strict=True))
    rows = list(zip(fresh[14], *fresh[:13], strict=True)) if fresh else []
    return rows, [(each.offset, *each[:3]) for each in duplicates]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersTask(PartitionTask):
    """Read what the risk job has answered, those that were delivered again left out.

    `ends` are those of payments.inbound: what is answered past them is not looked at.
    """

    ends: Mapping[int, int]
    accounts: frozenset[str] = frozenset()
    wanted: frozenset[Block] = frozenset()

    weight: ClassVar[int] = 3

    def run(self, log: ColumnLog, seen: ReadProgress) -> AnswersResult:
        """Do it."""
        result = AnswersResult(topic=self.topic, partition=self.partition)
        waiting: dict[Block, tuple[list[Row], list[Row]]] = {}
        current: dict[int, int] = {}
        answered: dict[int, int] = {}
        for number, scored, duplicates in log.answers(self.topic, self.partition, self.end):
            last, end = answered.get(number, -1), self.ends.get(number, 0)
            fresh, twice = ([row for row in rows if last < row[0] < end] for rows in (scored, duplicates))
            for kind, rows in enumerate((fresh, twice)):
                for row in rows:
                    waiting.setdefault((number, row[0] >> BLOCK_BITS), ([], []))[kind].append(row)
            result.chains.setdefault(number, PaymentChains(self.accounts)).add(fresh, at=1)
            result.payments += len(fresh)
            result.duplicates += len(twice)
            answered[number] = max([last, *(row[0] for row in (*scored, *duplicates))])
            for done in range(current.get(number, 0), answered[number] >> BLOCK_BITS):
                self._close(result, (number, done), waiting)
            current[number] = answered[number] >> BLOCK_BITS
            seen(len(scored) + len(duplicates))
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
    """Fold a partition of entities.inbound, and sum up what was sent on to it.

    Each partition of payments.inbound writes in the order of its offsets, and of entities within one: what does not
    come after what came from there before was delivered again. `ends` are those of payments.inbound.
    """

    ends: Mapping[int, int]
    recorded: int = 0
    """Where the log itself ends: up to there, what was sent on may stand, though it is not folded."""
    wanted: frozenset[Block] = frozenset()

    weight: ClassVar[int] = 5

    def run(self, log: ColumnLog, seen: ReadProgress) -> EntitiesResult:
        """Do it. Raises Gap."""
        result = EntitiesResult(topic=self.topic, partition=self.partition)
        fold, met, content = EntityFold(self.partition), SchemaRecorder(log), ContentDigest()
        decode = Decoder(met).decode
        last: dict[int, tuple[int, str]] = {}
        for batch in read_gapless(log, self.topic, self.partition, self.end, seen):
            content.add(batch)
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                try:
                    name, data = decode(value)
                except UnreadableRecord:
                    continue  # somebody else's; the entity job has quarantined it
                flags = fold.read(name, data, offset)
                for flag in () if isinstance(flags, Refusal) else flags:
                    result.found.append(found(flag))
                self._sum(result, last, offset, name, data)
        for offset, _, name, data in read_later_records(log, self.topic, self.partition, self.end, self.recorded):
            self._sum(result, last, offset, name, data)
        result.records, result.content, result.schemas = self.end, content.digest(), _schemas(met)
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
    """Fold a partition of cases.inbox, into case events and their views; and collect the flags that stand there."""

    recorded: int = 0
    """Where the log itself ends: up to there, flags may stand, though they are not folded."""

    weight: ClassVar[int] = 20

    def run(self, log: ColumnLog, seen: ReadProgress) -> InboxResult:
        """Do it. Raises Gap."""
        result = InboxResult(topic=self.topic, partition=self.partition)
        fold, met, content, views = CaseFold(), SchemaRecorder(log), ContentDigest(), dict[str, CaseView]()
        decode = Decoder(met).decode
        for batch in read_gapless(log, self.topic, self.partition, self.end, seen):
            content.add(batch)
            for offset, at_ms, value in zip(*batch, strict=True):
                try:
                    name, data = decode(value)
                except UnreadableRecord:
                    continue
                flag = _event(name, data) if name in _FLAGS else None
                if isinstance(flag, Flag):
                    result.flags.append(found(flag, offset, at_ms))
                events = fold.read(name, data)
                for event in () if isinstance(events, Refusal) else events:
                    result.shown.append(_derived_item(event))
                    if not isinstance(event, CaseAnswer):
                        views[event.case_id] = project(views.get(event.case_id), event)
        for offset, at_ms, name, data in read_later_records(log, self.topic, self.partition, self.end, self.recorded):
            flag = _event(name, data) if name in _FLAGS else None
            if isinstance(flag, Flag):
                result.flags.append(found(flag, offset, at_ms))
        result.views = {(item := view_item(view))["pk"]: (item["sk"], _item_bytes(item)) for view in views.values()}
        result.found = [each.event for each in result.shown]
        result.records, result.content, result.schemas = self.end, content.digest(), _schemas(met)
        result.altered = log.altered
        return result


def read_later_records(
    log: ColumnLog, topic: str, partition: int, start: int, end: int
) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    """Offset, time, name and fields of the records that can be read from one offset up to another.

    What the logs lead to by a time may have been decided a little later.
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
    """Read the case events that were recorded, some perhaps twice."""

    until_ms: int | None = None

    weight: ClassVar[int] = 15

    def run(self, log: ColumnLog, seen: ReadProgress) -> EventsResult:
        """Do it."""
        result, met = EventsResult(topic=self.topic, partition=self.partition), SchemaRecorder(log)
        decode = Decoder(met).decode
        for batch in log.batches(self.topic, self.partition, self.end):
            for offset, at_ms, value in zip(*batch, strict=True):
                try:
                    event = from_fields(*decode(value))
                except (UnreadableRecord, KeyError, TypeError) as error:
                    result.foreign.append((offset, str(error)))
                    continue
                if isinstance(event, CaseEvent):
                    result.found.append(found(event, offset, at_ms))
            seen(len(batch.offsets))
        result.schemas, result.altered = _schemas(met), log.altered
        return result


def _event(name: str, data: dict[str, Any]) -> Event | None:
    try:
        return from_fields(name, data)
    except (KeyError, TypeError):
        return None


def _derived_item(event: CaseEvent) -> DerivedItem:
    """Its canonical bytes are made once: the item's body is the same."""
    item = event_item(event)
    account_id, place = place_of(event)
    derived = ComparedEvent(type(event).__name__, account_id, place, item["body"].encode())
    return DerivedItem(derived, item["pk"], item["sk"], _item_bytes(item))


def _item_bytes(item: Item) -> bytes:
    return canonical_json({name: value for name, value in item.items() if name != "known_at_ms"})


def _schemas(met: SchemaRecorder) -> dict[str, str]:
    """The texts of schemas, and the records that they are of; what is no schema of a record is left out."""
    named = {}
    for text in sorted(met.texts):
        try:
            named[text] = parse(text)[0]
        except (SchemaParseException, ValueError, TypeError, KeyError):
            continue  # its records were refused
    return named
