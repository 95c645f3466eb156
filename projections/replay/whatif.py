"""What-if replay: fold history twice, side by side, by the recorded rules and by another pack.

Both sides leave out analyst commands, because other rules open other cases. Labels and clock ticks do not depend on the
rules and replay on both sides. docs/whatif.md says how records are ordered and when the other pack becomes active.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from typing import Any, Final, NamedTuple, TypeAlias

from domain.cases.events import CaseEscalated, CaseOpened, ClockTicked, RiskLinked, RiskRevised, SequencedCaseEvent
from domain.cases.fold import CaseFold
from domain.payment import Payment, Refusal, admit_row
from domain.risk.entity_fold import EntityFold
from domain.risk.events import EntityPayment, Flag, FraudConfirmed, RiskFlagged, RiskOutput, RiskScored, RulesActivated
from domain.risk.fold import ActivePack, ContentConflict, RiskFold
from domain.risk.packs import RulePack
from projections.logs.log import LogRecord, RecordLog
from projections.replay.sources import LogGap
from schemas.codec import Decoder, UnreadableRecord
from schemas.topics import Topics

PAYMENTS, INBOX = 0, 1
"""Kinds of records. At equal times, payments are read first."""
PROGRESS_EVERY: Final = 2_000
"""Records between two progress reports."""
ACTIVATED_BY: Final = "what-if"
Identity: TypeAlias = tuple[str, str, str]
"""Account id, transaction id and content digest of a payment."""
PlacedRecord: TypeAlias = tuple[int, int, int, int, LogRecord]
"""A record after its sort key: log time in milliseconds, kind, partition, offset."""
Progress: TypeAlias = Callable[[int, int], None]
"""Receives the number of records read and the total."""


class WhatifPeriod(NamedTuple):
    """Period of a what-if in payment event time, from `from_ms` to before `to_ms`; None is open."""

    from_ms: int | None = None
    to_ms: int | None = None

    def has_begun_at(self, at_ms: int) -> bool:
        """Return whether a payment of this event time is in the period or after it."""
        return self.from_ms is None or at_ms >= self.from_ms

    def is_over_at(self, at_ms: int) -> bool:
        """Return whether a payment of this event time is after the period."""
        return self.to_ms is not None and at_ms >= self.to_ms


class TracedEvent(NamedTuple):
    """A case event with the log time at which it became known."""

    event: SequencedCaseEvent
    known_at_ms: int


class MoneyAmount(NamedTuple):
    """An amount of money in minor units."""

    amount_minor: int
    currency: str


@dataclass(slots=True)
class CaseTrace:
    """History of one case on one side."""

    case_id: str
    account_id: str
    typology: str
    opened_at_ms: int
    known_at_ms: int
    is_new: bool
    """Whether the case was opened within the period."""
    events: list[TracedEvent] = field(default_factory=list)
    payments: dict[Identity, MoneyAmount] = field(default_factory=dict)
    """The payments of its flags, including withdrawn ones."""
    escalation: CaseEscalated | None = None
    is_moved: bool = False
    """Whether the case has an event within the period."""

    def value_minor(self) -> dict[str, int]:
        """Return the total of the case's payments in minor units, by currency."""
        totals: dict[str, int] = {}
        for each in self.payments.values():
            totals[each.currency] = totals.get(each.currency, 0) + each.amount_minor
        return totals


class FlaggedTransaction(NamedTuple):
    """A payment flagged within the period, counted once for any number of flags."""

    event_time_ms: int
    sum: MoneyAmount


@dataclass(slots=True)
class WhatifSide:
    """One side of a what-if: its folds and their outputs."""

    risk: dict[int, RiskFold]
    cases: dict[int, CaseFold]
    entities: EntityFold = field(default_factory=lambda: EntityFold(0))
    sent: int = 0
    """Number of payments forwarded to entities, used as offsets of this side's entity log."""
    traces: dict[str, CaseTrace] = field(default_factory=dict)
    flagged: dict[Identity, FlaggedTransaction] = field(default_factory=dict)
    flags: int = 0
    """Flags raised within the period."""

    @classmethod
    def empty(cls, partitions: list[int]) -> "WhatifSide":
        """Return a side without history."""
        return cls({number: RiskFold(number) for number in partitions}, {number: CaseFold() for number in partitions})

    def activate(self, partition: int, record: RulesActivated) -> None:
        """Make a pack active in a partition, and in the entity fold, which receives the partition's payments."""
        self.risk[partition].activate(record)
        self.entities.activate(record)

    def flags_of(self, partition: int, payment: Payment, offset: int) -> tuple[list[Flag], bool]:
        """Return the flags that a payment results in, its own first, and whether the payment was decided."""
        outputs: list[RiskOutput | ContentConflict] | Refusal = self.risk[partition].step(payment, offset)
        if isinstance(outputs, Refusal):
            return [], False
        flags: list[Flag] = []
        is_decided = False
        sent: list[EntityPayment] = []
        for output in outputs:
            if isinstance(output, RiskScored):
                is_decided = True
            elif isinstance(output, EntityPayment):
                sent.append(output)
            elif isinstance(output, Flag):
                flags.append(output)
        for each in sent:
            found = self.entities.step(each, self.sent)
            self.sent += 1
            flags += () if isinstance(found, Refusal) else found
        return flags, is_decided

    def add_case_events(self, events: list[TracedEvent], *, is_inside: bool) -> None:
        """Add case events to the traces of their cases."""
        for each in events:
            event = each.event
            if isinstance(event, CaseOpened):
                self.traces[event.case_id] = CaseTrace(
                    event.case_id, event.account_id, event.typology, event.opened_at_ms, each.known_at_ms, is_inside
                )
            trace = self.traces[event.case_id]
            trace.events.append(each)
            trace.is_moved = trace.is_moved or is_inside
            if isinstance(event, CaseOpened | RiskLinked):
                identity = event.account_id, event.transaction_id, event.content_digest or ""
                trace.payments[identity] = MoneyAmount(event.amount_minor, event.currency)
            elif isinstance(event, CaseEscalated):
                trace.escalation = event

    def count_flags(self, flags: list[Flag]) -> None:
        """Count flags of the period as alerts. A restatement that withdraws or repeats a flag is not a new alert."""
        for flag in flags:
            if isinstance(flag, RiskFlagged) or (flag.reasons and not getattr(flag, "rules_before", ())):
                self.flags += 1
                identity = flag.account_id, flag.transaction_id, flag.content_digest
                self.flagged.setdefault(
                    identity, FlaggedTransaction(flag.event_time, MoneyAmount(flag.amount_minor, flag.currency))
                )


@dataclass(slots=True)
class LabelledFraud:
    """A payment labelled as fraud."""

    identity: Identity
    event_time_ms: int
    sum: MoneyAmount


@dataclass(slots=True)
class WhatifOutcome:
    """Result of a what-if: both sides."""

    pack: RulePack
    period: WhatifPeriod
    recorded: WhatifSide
    other: WhatifSide
    recorded_packs: dict[str, RulePack] = field(default_factory=dict)
    """Packs that decided live payments of the period, in the order of their first payment."""
    frauds: list[LabelledFraud] = field(default_factory=list)
    """Labelled payments of the period."""
    records: int = 0
    payments: int = 0
    """Payments that were decided within the period."""
    refused: int = 0
    """Payments of the period that could not be decided, on either side."""
    labels: int = 0
    unplaced_labels: int = 0
    """Labels whose payment is not in the log, or had left the fold's history before the label arrived."""
    ticks: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    """Event times of the first and the last decided payment."""


def run_whatif(
    log: RecordLog,
    topics: Topics,
    decoder: Decoder,
    pack: RulePack,
    period: WhatifPeriod,
    report_progress: Progress = lambda *_: None,
) -> WhatifOutcome:
    """Replay the logs by the recorded rules and by `pack` at once. Raises LogGap if records are missing.

    The decoder must return a Transaction as the tuple of `payment.FIELDS`.
    """
    ends = {PAYMENTS: log.ends(topics.payments_inbound), INBOX: log.ends(topics.cases_inbox)}
    total = sum(end for each in ends.values() for end in each.values())
    replay = _WhatifReplay(decoder, pack, period, sorted(ends[PAYMENTS]))
    sources = [
        _placed_records(log, topic, kind, partition, end)
        for kind, topic in ((PAYMENTS, topics.payments_inbound), (INBOX, topics.cases_inbox))
        for partition, end in ends[kind].items()
    ]
    outcome = replay.outcome
    for log_ms, kind, partition, _, record in merge(*sources):
        if kind == PAYMENTS:
            replay.read_payments(log_ms, partition, record)
        else:
            replay.read_inbox(log_ms, partition, record)
        outcome.records += 1
        if outcome.records % PROGRESS_EVERY == 0:
            report_progress(outcome.records, total)
    outcome.unplaced_labels = len(replay.waiting)
    report_progress(outcome.records, total)
    return outcome


def _placed_records(log: RecordLog, topic: str, kind: int, partition: int, end: int) -> Iterator[PlacedRecord]:
    """Yield the records of a partition, each with its log time: the largest Kafka timestamp up to it."""
    expected = log_ms = 0
    for record in log.read(topic, partition, end):
        if record.offset != expected:
            raise LogGap.before(topic, partition, record.offset, expected)
        expected += 1
        log_ms = max(log_ms, record.timestamp_ms)
        yield log_ms, kind, partition, record.offset, record
    if expected != end:
        raise LogGap.at_end(topic, partition, expected, end)


class _WhatifReplay:
    """One pass over the records, with its state."""

    def __init__(self, decoder: Decoder, pack: RulePack, period: WhatifPeriod, partitions: list[int]) -> None:
        self._decoder, self._period = decoder, period
        self._activation = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by=ACTIVATED_BY)
        self.outcome = WhatifOutcome(pack, period, WhatifSide.empty(partitions), WhatifSide.empty(partitions))
        self._sides = (self.outcome.recorded, self.outcome.other)
        self._inside: set[int] = set()
        """Partitions in which the period has begun: the other side decides them by the pack."""
        self._known: set[str] = set()
        self.waiting: dict[tuple[str, str, int], None] = {}
        """Labels whose payment has not been read yet: account id, transaction id, event time."""

    def read_payments(self, log_ms: int, partition: int, record: LogRecord) -> None:
        """Apply a record of payments.inbound to both sides."""
        try:
            name, data = self._decoder.decode(record.value)
            if name == "Transaction":
                admitted = admit_row(data, record.timestamp_ms)
                self._read_payment(log_ms, partition, record.offset, admitted)
            elif name == "RulesActivated":
                self._read_activation(partition, record, data)
            else:
                self._read_other(name, data, partition, record)
        except (UnreadableRecord, KeyError, TypeError):
            self.outcome.refused += 1  # the risk job has quarantined it

    def _read_payment(self, log_ms: int, partition: int, offset: int, payment: Payment | Refusal) -> None:
        if isinstance(payment, Refusal):
            self.outcome.refused += partition in self._inside
            return
        if self._period.is_over_at(payment.event_time_ms):
            return
        recorded, other = self._sides
        active = recorded.risk[partition].active
        if partition not in self._inside and active is not None and self._period.has_begun_at(payment.event_time_ms):
            self._inside.add(partition)
            other.activate(partition, self._activation)
        is_inside = partition in self._inside
        flags, is_decided = recorded.flags_of(partition, payment, offset)
        others, _ = other.flags_of(partition, payment, offset)
        if is_inside:
            self._count_decided(payment, active, is_decided=is_decided)
            recorded.count_flags(flags)
            other.count_flags(others)
        if self.waiting and (payment.account_id, payment.transaction_id, payment.event_time_ms) in self.waiting:
            del self.waiting[payment.account_id, payment.transaction_id, payment.event_time_ms]
            self._add_fraud(payment)
        if flags or others:
            same = flags == others
            events = _traced_events(recorded.cases[partition], flags, log_ms)
            recorded.add_case_events(events, is_inside=is_inside)
            other_events = _traced_events(other.cases[partition], others, log_ms)
            other.add_case_events(events if same and other_events == events else other_events, is_inside=is_inside)

    def _count_decided(self, payment: Payment, active: ActivePack | None, *, is_decided: bool) -> None:
        outcome = self.outcome
        if not is_decided or active is None:
            return
        outcome.payments += 1
        if active.pack_id not in outcome.recorded_packs:
            outcome.recorded_packs[active.pack_id] = active.pack
        if self._period.has_begun_at(payment.event_time_ms):
            at_ms = payment.event_time_ms
            outcome.first_ms = at_ms if outcome.first_ms is None else min(outcome.first_ms, at_ms)
            outcome.last_ms = at_ms if outcome.last_ms is None else max(outcome.last_ms, at_ms)

    def _read_activation(self, partition: int, record: LogRecord, data: dict[str, Any]) -> None:
        """Apply a recorded activation. Shadow activations decide nothing and are left out on both sides."""
        if data.get("mode", "active") != "active":
            return
        recorded, other = self._sides
        for side in (recorded,) if partition in self._inside else (recorded, other):
            if not isinstance(side.risk[partition].read("RulesActivated", data, record.offset, None), Refusal):
                side.entities.read("RulesActivated", data, record.offset)

    def _read_other(self, name: str, data: dict[str, Any], partition: int, record: LogRecord) -> None:
        for side in self._sides:
            side.risk[partition].read(name, data, record.offset, record.timestamp_ms)
        if name != "FraudConfirmed":
            return
        label = FraudConfirmed(**data)
        if label.label_id in self._known:
            return  # every partition has a copy
        self._known.add(label.label_id)
        self.outcome.labels += 1
        if self._period.is_over_at(label.event_time):
            return
        for fold in self.outcome.recorded.risk.values():
            payment = fold.find_payment(label.account_id, label.transaction_id, label.event_time)
            if payment is not None:
                self._add_fraud(payment)
                return
        self.waiting[label.account_id, label.transaction_id, label.event_time] = None

    def _add_fraud(self, payment: Payment) -> None:
        if self._period.has_begun_at(payment.event_time_ms):
            identity = payment.account_id, payment.transaction_id, payment.digest.hex()
            total = MoneyAmount(payment.amount_minor, payment.currency)
            self.outcome.frauds.append(LabelledFraud(identity, payment.event_time_ms, total))

    def read_inbox(self, log_ms: int, partition: int, record: LogRecord) -> None:
        """Apply a record of cases.inbox: clock ticks only. Flags are derived; commands are left out."""
        try:
            if not record.value or self._decoder.name_of(record.value) != "ClockTicked":
                return
            tick = ClockTicked(**self._decoder.decode(record.value)[1])
        except (UnreadableRecord, TypeError):
            return
        if self._period.is_over_at(tick.now_ms) or partition not in self.outcome.recorded.cases:
            return
        self.outcome.ticks += 1
        is_inside = partition in self._inside
        for side in self._sides:
            events = side.cases[partition].step(tick)
            traced = [TracedEvent(event, log_ms) for event in events if isinstance(event, SequencedCaseEvent)]
            side.add_case_events(traced, is_inside=is_inside)


def _traced_events(fold: CaseFold, flags: list[Flag], log_ms: int) -> list[TracedEvent]:
    traced: list[TracedEvent] = []
    for flag in flags:
        events = fold.step(flag)
        assert not isinstance(events, Refusal), events  # the flags of this side have consecutive numbers
        traced += [TracedEvent(event, log_ms) for event in events if isinstance(event, SequencedCaseEvent)]
    return traced


def count_valid_flags(trace: CaseTrace) -> int:
    """Return the number of flags of a case that no late payment has withdrawn."""
    is_valid: dict[str, bool] = {}
    for event, _ in trace.events:
        if isinstance(event, CaseOpened | RiskLinked):
            is_valid[event.flag_id] = True
        elif isinstance(event, RiskRevised):
            is_valid[event.flag_id] = bool(event.rules)
    return sum(is_valid.values())
