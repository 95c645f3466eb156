"""Decisions on payments, one line per row that came in: from a backtest, or from the running system's logs."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, Final, NamedTuple, TypeVar

from console.payments.files import IntakeRow
from console.payments.intake_writer import place_of
from domain.payment import Refusal
from domain.quarantine import Quarantined
from domain.reason import Reason
from domain.record_types import from_fields
from domain.risk.compiled_rules import combine_permille
from domain.risk.entity_fold import EntityFold
from domain.risk.events import (
    DuplicateSeen,
    EntityFlagged,
    EntityPayment,
    RiskFlagged,
    RiskRestated,
    RiskScored,
    RulesActivated,
)
from domain.risk.fold import RiskFold
from domain.risk.packs import RulePack
from projections.logs.log import KafkaLog, LogRecord, decode_answers
from schemas.codec import Decoder, UnreadableRecord
from schemas.topics import Topics

Identity = tuple[str, str, bytes]
"""Account id, transaction id and content digest of a payment."""
_NOTHING: Final = (0, (), ())
T = TypeVar("T")


@dataclass(slots=True)
class DecisionLedger:
    """Decisions collected from the folds' outputs: on arrival, and after restatements."""

    first: dict[Identity, list[str]] = field(default_factory=dict)
    standing: dict[Identity, tuple[int, tuple[str, ...], tuple[Reason, ...]]] = field(default_factory=dict)
    by_entity: dict[Identity, dict[str, EntityFlagged]] = field(default_factory=dict)
    """Flags of a payment's merchant, terminal and device; they are never restated."""

    def add(self, output: RiskScored | RiskFlagged | RiskRestated | EntityFlagged) -> None:
        """Add an output: of an account in the order of its sequence, of entities in any order."""
        if isinstance(output, RiskScored):
            identity = output.account_id, output.transaction_id, output.content_digest
            if output.rules:
                self.first[identity] = output.rules
            elif output.score:  # below the flag threshold; a late payment may restate it
                self.standing.setdefault(identity, (output.score, (), ()))
            return
        identity = output.account_id, output.transaction_id, bytes.fromhex(output.content_digest)
        if isinstance(output, EntityFlagged):
            self.by_entity.setdefault(identity, {})[output.entity] = output
            return
        rules = tuple(reason.rule for reason in output.reasons)
        self.standing[identity] = output.score, rules, output.reasons

    def line(self, identity: Identity) -> dict[str, Any]:
        """Return the line of a decided payment: the decision of its account's fold, then those of its entities'
        folds.
        """
        score, rules, reasons = self.standing.get(identity, _NOTHING)
        flags = [flag for _, flag in sorted(self.by_entity.get(identity, {}).items())]
        more = [reason for flag in flags for reason in flag.reasons]
        return {
            "transaction_id": identity[1],
            "score": reduce(combine_permille, (flag.score for flag in flags), score),
            "rules": [*rules, *(reason.rule for reason in more)],
            "first_rules": [*self.first.get(identity, []), *(reason.rule for reason in more)],
            "reasons": [describe(reason) for reason in (*reasons, *more)],
        }


def describe(reason: Reason) -> str:
    """Return a reason in words."""
    return f"{reason.rule}: {reason.value} {reason.measure}, from {reason.threshold}"


def refused_line(transaction_id: object, reason: str) -> dict[str, Any]:
    """Return the line of a row that was refused."""
    shown = transaction_id if isinstance(transaction_id, str) else ""
    return {
        "transaction_id": shown, "score": 0, "rules": [], "first_rules": [], "reasons": [f"quarantined: {reason}"],
    }  # fmt: skip


def backtest(rows: Iterable[IntakeRow], pack: RulePack) -> Iterator[dict[str, Any]]:
    """Return the decisions of a rule pack on rows, one line per row, made by the folds of the live jobs.

    All rows are read before the first line is returned, since late payments restate earlier decisions.
    """
    fold, entities, ledger = RiskFold(partition=0), EntityFold(partition=0), DecisionLedger()
    activation = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="backtest")
    fold.activate(activation)
    entities.activate(activation)
    answers: list[Identity | tuple[object, str]] = []
    for number, (fields, refusal) in enumerate(rows):
        outputs = refusal or fold.read("Transaction", fields, number, None)
        if isinstance(outputs, Refusal):
            answers.append((fields.get("transaction_id"), outputs.reason))
            continue
        answer = next(output for output in outputs if isinstance(output, RiskScored | DuplicateSeen))
        answers.append((answer.account_id, answer.transaction_id, answer.content_digest))
        for output in outputs:
            if isinstance(output, RiskScored | RiskFlagged | RiskRestated):
                ledger.add(output)
            elif isinstance(output, EntityPayment):
                flags = entities.step(output, number)
                for flag in () if isinstance(flags, Refusal) else flags:
                    ledger.add(flag)
    return (ledger.line(answer) if len(answer) == 3 else refused_line(*answer) for answer in answers)


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """A row of payments.inbound with its decision, as `flags` writes it and `ingest` counts it."""

    order: tuple[int, str, int]
    run: str | None
    where: tuple[int, int]
    identity: Identity | None
    is_duplicate: bool
    is_quarantined: bool
    line: dict[str, Any]


class InboundDecisions(NamedTuple):
    """Decisions on the records of payments.inbound, by partition and offset."""

    ledger: DecisionLedger
    identities: dict[tuple[int, int], tuple[Identity, bool]]
    """The payment of a record, and whether it is a duplicate."""
    quarantined: dict[tuple[int, int], str]


def answered_rows(
    log: KafkaLog, topics: Topics, decoder: Decoder, run: str | None = None, decisions: InboundDecisions | None = None
) -> list[AnsweredRow]:
    """Return every decided row of the intake, or of one run of it, in the order of arrival.

    `decisions` defaults to those that the running system recorded.
    """
    ledger, identities, quarantined = decisions or recorded_decisions(log, topics, decoder)
    found = []
    for record in _all_records(log, topics.payments_inbound):
        place = place_of(dict(record.headers))
        if run is not None and (place is None or place.run != run):
            continue
        identity: Identity | None = None
        where = record.partition, record.offset
        if where in identities:
            identity, is_duplicate = identities[where]
            line = ledger.line(identity)
        elif where in quarantined:
            is_duplicate, line = False, refused_line(_transaction_id(decoder, record), quarantined[where])
        else:
            continue  # an activation, or a row that is not answered yet
        order = record.timestamp_ms, place.run if place else "", place.row if place else record.offset
        run_of = place.run if place else None
        found.append(AnsweredRow(order, run_of, where, identity, is_duplicate, where in quarantined, line))
    return sorted(found, key=lambda answer: answer.order)


class TransactionIdReuse(NamedTuple):
    """A payment whose transaction id was used before with other content.

    The fold of an account reports a reuse on the same account. A reuse on another account is found only by reading the
    whole intake.
    """

    on_own_account: bool
    detail: str


def reused_ids(answers: Iterable[AnsweredRow]) -> dict[tuple[int, int], TransactionIdReuse]:
    """Return the payments that reuse a transaction id, by place. `answers` are those of the whole intake, in order."""
    known: dict[str, list[Identity]] = {}
    reused: dict[tuple[int, int], TransactionIdReuse] = {}
    for answer in answers:
        if answer.identity is None or answer.is_duplicate:
            continue
        earlier = known.setdefault(answer.identity[1], [])
        if earlier and answer.identity not in earlier:
            is_own = any(identity[0] == answer.identity[0] for identity in earlier)
            whose = "with other content" if is_own else "on another account"
            reused[answer.where] = TransactionIdReuse(
                is_own, f"transaction id {answer.identity[1]!r} came before {whose}"
            )
        earlier.append(answer.identity)
    return reused


def derived_decisions(log: KafkaLog, topics: Topics, decoder: Decoder) -> InboundDecisions:
    """Derive the decisions again from the input logs, with all activations and labels, by the folds."""
    decisions = InboundDecisions(DecisionLedger(), {}, {})
    for partition, end in log.ends(topics.payments_inbound).items():
        fold = RiskFold(partition)
        for record in log.read(topics.payments_inbound, partition, end):
            outputs = _read(decoder, record, partial(fold.read, offset=record.offset, received_ms=record.timestamp_ms))
            if isinstance(outputs, Refusal):
                decisions.quarantined[partition, record.offset] = outputs.reason
                continue
            for output in outputs:
                if isinstance(output, RiskScored | DuplicateSeen):
                    identity = output.account_id, output.transaction_id, output.content_digest
                    decisions.identities[partition, record.offset] = identity, isinstance(output, DuplicateSeen)
                if isinstance(output, RiskScored | RiskFlagged | RiskRestated):
                    decisions.ledger.add(output)
    for partition, end in log.ends(topics.entities_inbound).items():
        entities = EntityFold(partition)
        for record in log.read(topics.entities_inbound, partition, end):
            flags = _read(decoder, record, partial(entities.read, offset=record.offset))
            for flag in () if isinstance(flags, Refusal) else flags:
                decisions.ledger.add(flag)
    return decisions


def _read(decoder: Decoder, record: LogRecord, read: Callable[[str, dict[str, Any]], T | Refusal]) -> T | Refusal:
    try:
        return read(*decoder.decode(record.value))
    except UnreadableRecord as unreadable:
        return Refusal(unreadable.reason, str(unreadable))


def recorded_decisions(log: KafkaLog, topics: Topics, decoder: Decoder) -> InboundDecisions:
    """Return the decisions that the running system recorded."""
    ledger = DecisionLedger()
    identities: dict[tuple[int, int], tuple[Identity, bool]] = {}
    for answer in (
        answer for record in _all_records(log, topics.risk_scored) for answer in decode_answers(record, decoder)
    ):
        identity = answer.account_id, answer.transaction_id, answer.content_digest
        identities[answer.partition, answer.offset] = identity, isinstance(answer, DuplicateSeen)
        if isinstance(answer, RiskScored):
            ledger.add(answer)
    sequences: dict[str, int] = {}
    for record in _all_records(log, topics.cases_inbox):
        try:
            event = from_fields(*decoder.decode(record.value))
        except (UnreadableRecord, KeyError, TypeError):
            continue  # a foreign record; the case job has quarantined it
        if isinstance(event, RiskFlagged | RiskRestated) and event.sequence > sequences.get(event.account_id, 0):
            sequences[event.account_id] = event.sequence
            ledger.add(event)
        elif isinstance(event, EntityFlagged):
            ledger.add(event)
    return InboundDecisions(ledger, identities, _quarantine_reasons(log, topics, decoder))


def _quarantine_reasons(log: KafkaLog, topics: Topics, decoder: Decoder) -> dict[tuple[int, int], str]:
    return {(each.partition, each.offset): each.reason for each in _reports(log, topics, decoder) if not each.decided}


def _reports(log: KafkaLog, topics: Topics, decoder: Decoder) -> Iterator[Quarantined]:
    for record in _all_records(log, topics.quarantine):
        report = from_fields(*decoder.decode(record.value))
        if isinstance(report, Quarantined) and report.topic == topics.payments_inbound:
            yield report


def _transaction_id(decoder: Decoder, record: LogRecord) -> object:
    try:
        name, data = decoder.decode(record.value)
        return json.loads(data["body"]).get("transaction_id") if name == "IntakeRefused" else data["transaction_id"]
    except (UnreadableRecord, ValueError, TypeError, KeyError):
        return ""


def _all_records(log: KafkaLog, topic: str) -> Iterator[LogRecord]:
    for partition, end in log.ends(topic).items():
        yield from log.read(topic, partition, end)
