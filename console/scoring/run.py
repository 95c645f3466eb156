"""Run of the folds over a file of payments, with fraud labels that arrive late, and the decision on each payment.

The folds are those of the live jobs and the what-if; only the delay of labels is simulated here.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from console.payments.files import IntakeRow
from console.payments.labels import label_record
from console.scoring.truth import GroundTruth, TruthLabel
from domain.payment import Payment, Refusal, admit
from domain.risk.compiled_rules import combine_permille
from domain.risk.entity_fold import EntityFold
from domain.risk.events import (
    DuplicateSeen,
    EntityFlagged,
    EntityPayment,
    FraudConfirmed,
    RiskFlagged,
    RiskOutput,
    RiskRestated,
    RiskScored,
    RulesActivated,
    label_id,
)
from domain.risk.fold import ContentConflict, RiskFold
from domain.risk.packs import RulePack

NEVER: Final = -1
Integers: TypeAlias = NDArray[np.int64]
Truths: TypeAlias = NDArray[np.bool_]
Texts: TypeAlias = NDArray[np.object_]
AdmittedRow: TypeAlias = tuple[Payment | Refusal, TruthLabel | None]
"""A payment after the admission check, or its refusal, with its label if it has one."""


@dataclass(slots=True)
class ScoringCounts:
    """Numbers of rows by outcome. Duplicates, quarantined and unlabelled rows are not scored."""

    rows: int = 0
    duplicates: int = 0
    quarantined: int = 0
    quarantined_fraud: int = 0
    unlabelled: int = 0
    conflicts: int = 0
    restated: int = 0
    labels_entered: int = 0


@dataclass(frozen=True, slots=True)
class ScoredPayments:
    """The decided and labelled payments in the order of their rows, one array per column.

    `score` and `flagged_first` are those on arrival. `flagged` is the state after all payments; a score below the
    pack's `flag_at` is never restated. `flagged_at_ms` is the stream's clock (the largest event time so far) at the
    payment's first flag, -1 without a flag.
    """

    time_ms: Integers
    account: Texts
    card: Texts
    """The card of each payment, or its account if it has no card."""
    fraud: Truths
    scenario: Texts
    score: Integers
    flagged: Truths
    flagged_first: Truths
    flagged_at_ms: Integers

    def where(self, kept: Truths) -> "ScoredPayments":
        """Return the payments that a mask selects."""
        return ScoredPayments(*(getattr(self, name)[kept] for name in self.__slots__))


class LabelFeedbackQueue:
    """Frauds whose labels are delayed: a label is due once the clock is `delay_ms` after its payment."""

    def __init__(self, delay_ms: int) -> None:
        self._delay_ms = delay_ms
        self._number = count()  # keeps the order of payments with equal times
        self._coming: list[tuple[int, int, Payment]] = []

    def add(self, payment: Payment) -> None:
        """Add a payment that is a fraud."""
        heapq.heappush(self._coming, (payment.event_time_ms + self._delay_ms, next(self._number), payment))

    def due(self, clock_ms: int) -> Iterator[FraudConfirmed]:
        """Remove and yield the labels due by this time, oldest first."""
        while self._coming and self._coming[0][0] <= clock_ms:
            due_ms, _, payment = heapq.heappop(self._coming)
            label = label_id(payment.account_id, payment.transaction_id, payment.digest.hex())
            yield label_record(label, payment, "score", "score", due_ms)


def admit_rows(rows: Iterable[IntakeRow], truth: GroundTruth) -> Iterator[AdmittedRow]:
    """Yield rows after the admission check of every payment, each with its label. Raises BadFile if labels do not
    fit.
    """
    for number, (fields, refusal) in enumerate(rows):
        label = truth.of(number, fields.get("transaction_id"))
        yield refusal or admit(fields, None), label


@dataclass(slots=True)
class _ScoreColumns:
    """Columns of ScoredPayments during the run, with the place of each payment."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in ScoredPayments.__slots__})
    places: dict[bytes, int] = field(default_factory=dict)
    """Place of each payment by its content digest, which covers account and transaction id."""
    by_entity: set[int] = field(default_factory=set)
    """Places of payments flagged by merchants, terminals or devices; these flags are never restated."""

    def add(self, payment: Payment, label: TruthLabel, answer: RiskScored, clock_ms: int) -> None:
        flagged = bool(answer.rules)
        self.places[payment.digest] = len(self.places)
        for column, value in zip(
            self.columns.values(),
            (
                payment.event_time_ms, payment.account_id, payment.card_id or payment.account_id, label.is_fraud,
                label.scenario, answer.score, flagged, flagged, clock_ms if flagged else NEVER,
            ),
            strict=True,
        ):  # fmt: skip
            column.append(value)

    def restate(self, output: RiskRestated, clock_ms: int) -> None:
        place = self.places.get(bytes.fromhex(output.content_digest))
        if place is None:
            return  # the payment has no label
        self.columns["flagged"][place] = bool(output.reasons) or place in self.by_entity
        if output.reasons and self.columns["flagged_at_ms"][place] == NEVER:
            self.columns["flagged_at_ms"][place] = clock_ms

    def flag(self, output: EntityFlagged, clock_ms: int) -> None:
        place = self.places.get(bytes.fromhex(output.content_digest))
        if place is None:
            return  # the payment has no label
        self.by_entity.add(place)
        columns = self.columns
        columns["score"][place] = combine_permille(columns["score"][place], output.score)
        columns["flagged"][place] = columns["flagged_first"][place] = True
        if columns["flagged_at_ms"][place] == NEVER:
            columns["flagged_at_ms"][place] = clock_ms

    def scored(self) -> ScoredPayments:
        kinds: dict[str, type] = dict.fromkeys(("account", "card", "scenario"), object)
        kinds |= dict.fromkeys(("fraud", "flagged", "flagged_first"), np.bool_)
        return ScoredPayments(*(np.array(values, kinds.get(name, np.int64)) for name, values in self.columns.items()))


def run(
    payments: Iterable[AdmittedRow],
    pack: RulePack,
    feedback_ms: int | None = None,
    report_progress: Callable[[int], None] = lambda _: None,
) -> tuple[ScoredPayments, ScoringCounts]:
    """Decide payments in this order by a pack. Frauds become known `feedback_ms` after their payment, or never if
    None.
    """
    fold, entities, counts, columns = RiskFold(partition=0), EntityFold(partition=0), ScoringCounts(), _ScoreColumns()
    activation = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="score")
    fold.activate(activation)
    entities.activate(activation)
    feedback = None if feedback_ms is None else LabelFeedbackQueue(feedback_ms)
    clock_ms, owners = NEVER, dict[str, str]()
    for payment, label in payments:
        counts.rows += 1
        if counts.rows % 1000 == 0:
            report_progress(counts.rows)
        outputs: list[RiskOutput | ContentConflict] | Refusal
        if isinstance(payment, Refusal):
            outputs = payment
        else:
            clock_ms = max(clock_ms, payment.event_time_ms)
            for known in feedback.due(clock_ms) if feedback else ():
                fold.confirm(known)
                counts.labels_entered += 1
            outputs = fold.step(payment, counts.rows - 1)
        if isinstance(outputs, Refusal) or isinstance(payment, Refusal):
            counts.quarantined += 1
            counts.quarantined_fraud += label is not None and label.is_fraud
            continue
        is_duplicate = isinstance(outputs[0], DuplicateSeen)
        if not is_duplicate:  # the fold knows the transaction ids of each account, but not across accounts
            is_another = owners.setdefault(payment.transaction_id, payment.account_id) != payment.account_id
            counts.conflicts += is_another or any(isinstance(each, ContentConflict) for each in outputs)
        _count_outputs(outputs, payment, label, columns, counts, clock_ms)
        _decide_entities(outputs, entities, columns, counts.rows - 1, clock_ms)
        if feedback and label is not None and label.is_fraud and not is_duplicate:
            feedback.add(payment)
    return columns.scored(), counts


def _count_outputs(
    outputs: list[RiskOutput | ContentConflict],
    payment: Payment,
    label: TruthLabel | None,
    columns: _ScoreColumns,
    counts: ScoringCounts,
    clock_ms: int,
) -> None:
    for output in outputs:
        match output:
            case RiskScored() if label is None:
                counts.unlabelled += 1
            case RiskScored():
                assert label is not None
                columns.add(payment, label, output, clock_ms)
            case RiskRestated():
                counts.restated += 1
                columns.restate(output, clock_ms)
            case DuplicateSeen():
                counts.duplicates += 1
            case RiskFlagged() | EntityPayment() | ContentConflict():
                pass  # included in RiskScored; handled by the entity fold; counted per payment


def _decide_entities(
    outputs: list[RiskOutput | ContentConflict],
    entities: EntityFold,
    columns: _ScoreColumns,
    offset: int,
    clock_ms: int,
) -> None:
    for output in outputs:
        if isinstance(output, EntityPayment):
            flags = entities.step(output, offset)
            for flag in () if isinstance(flags, Refusal) else flags:
                columns.flag(flag, clock_ms)
