"""One line for every row that came in: what was decided on it. From a backtest, or from the running system's logs."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from console.files import Row
from domain.events import (
    DuplicateSeen,
    Quarantined,
    Reason,
    RiskFlagged,
    RiskRestated,
    RiskScored,
    RulesActivated,
    from_fields,
)
from domain.payment import Refusal
from domain.risk import RiskFold
from domain.rules import RulePack
from generator.producer import place_of
from projections.log import KafkaLog, LogRecord, answers_in
from schemas.codec import Decoder, Unreadable
from schemas.topics import Topics

Identity = tuple[str, str, bytes]
"""Account, transaction id, content digest."""
_NOTHING: Final = (0, (), ())


@dataclass(slots=True)
class Ledger:
    """What was decided, as the folds' outputs come by: first on arrival, and what stands now."""

    first: dict[Identity, list[str]] = field(default_factory=dict)
    standing: dict[Identity, tuple[int, tuple[str, ...], tuple[Reason, ...]]] = field(default_factory=dict)

    def add(self, output: RiskScored | RiskFlagged | RiskRestated) -> None:
        """Take in an output, in the order of the account's sequence."""
        if isinstance(output, RiskScored):
            identity = output.account_id, output.transaction_id, output.content_digest
            if output.rules:
                self.first[identity] = output.rules
            elif output.score:  # too weak to flag: it stands until a late payment makes it a flag
                self.standing[identity] = output.score, (), ()
            return
        identity = output.account_id, output.transaction_id, bytes.fromhex(output.content_digest)
        rules = tuple(reason.rule for reason in output.reasons)
        self.standing[identity] = output.score, rules, output.reasons

    def line(self, identity: Identity) -> dict[str, Any]:
        """The row of a payment that was decided on."""
        score, rules, reasons = self.standing.get(identity, _NOTHING)
        return {
            "transaction_id": identity[1],
            "score": score,
            "rules": list(rules),
            "first_rules": self.first.get(identity, []),
            "reasons": [describe(reason) for reason in reasons],
        }


def describe(reason: Reason) -> str:
    """A reason as people read it."""
    return f"{reason.rule}: {reason.value} {reason.measure}, from {reason.threshold}"


def refused_line(transaction_id: object, reason: str) -> dict[str, Any]:
    """The row of something that was not decided on."""
    shown = transaction_id if isinstance(transaction_id, str) else ""
    return {
        "transaction_id": shown, "score": 0, "rules": [], "first_rules": [], "reasons": [f"quarantined: {reason}"],
    }  # fmt: skip


def backtest(rows: Iterable[Row], pack: RulePack) -> Iterator[dict[str, Any]]:
    """The decisions of a rule pack on rows, by the fold that the live job runs; one line a row, once all are in."""
    fold, ledger = RiskFold(partition=0), Ledger()
    fold.activate(RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="backtest"))
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
    return (ledger.line(answer) if len(answer) == 3 else refused_line(*answer) for answer in answers)


@dataclass(frozen=True, slots=True)
class Answered:
    """A row of payments.inbound with its answer: what `flags` writes and `ingest` counts."""

    order: tuple[int, str, int]
    run: str | None
    is_duplicate: bool
    is_quarantined: bool
    line: dict[str, Any]


def answered(log: KafkaLog, topics: Topics, decoder: Decoder, run: str | None = None) -> list[Answered]:
    """Every row of the intake, or of one run of it, in the order in which rows came in."""
    ledger, identities, quarantined = _recorded(log, topics, decoder)
    found = []
    for record in _all(log, topics.payments_inbound):
        place = place_of(dict(record.headers))
        if run is not None and (place is None or place.run != run):
            continue
        where = record.partition, record.offset
        if where in identities:
            identity, is_duplicate = identities[where]
            line = ledger.line(identity)
        elif where in quarantined:
            is_duplicate, line = False, refused_line(_transaction_id(decoder, record), quarantined[where])
        else:
            continue  # not a row: a rule pack's activation; or one that is not answered yet
        order = record.timestamp_ms, place.run if place else "", place.row if place else record.offset
        found.append(Answered(order, place.run if place else None, is_duplicate, where in quarantined, line))
    return sorted(found, key=lambda answer: answer.order)


def _recorded(
    log: KafkaLog, topics: Topics, decoder: Decoder
) -> tuple[Ledger, dict[tuple[int, int], tuple[Identity, bool]], dict[tuple[int, int], str]]:
    ledger = Ledger()
    identities: dict[tuple[int, int], tuple[Identity, bool]] = {}
    for answer in (answer for record in _all(log, topics.risk_scored) for answer in answers_in(record, decoder)):
        identity = answer.account_id, answer.transaction_id, answer.content_digest
        identities[answer.partition, answer.offset] = identity, isinstance(answer, DuplicateSeen)
        if isinstance(answer, RiskScored):
            ledger.add(answer)
    sequences: dict[str, int] = {}
    for record in _all(log, topics.cases_inbox):
        try:
            event = from_fields(*decoder.decode(record.value))
        except (Unreadable, KeyError, TypeError):
            continue  # somebody else's; the case job has quarantined it
        if isinstance(event, RiskFlagged | RiskRestated) and event.sequence > sequences.get(event.account_id, 0):
            sequences[event.account_id] = event.sequence
            ledger.add(event)
    return ledger, identities, _quarantined(log, topics, decoder)


def _quarantined(log: KafkaLog, topics: Topics, decoder: Decoder) -> dict[tuple[int, int], str]:
    reports = (from_fields(*decoder.decode(record.value)) for record in _all(log, topics.quarantine))
    return {
        (report.partition, report.offset): report.reason
        for report in reports
        if isinstance(report, Quarantined) and not report.decided and report.topic == topics.payments_inbound
    }


def _transaction_id(decoder: Decoder, record: LogRecord) -> object:
    try:
        name, data = decoder.decode(record.value)
        return json.loads(data["body"]).get("transaction_id") if name == "IntakeRefused" else data["transaction_id"]
    except (Unreadable, ValueError, TypeError, KeyError):
        return ""


def _all(log: KafkaLog, topic: str) -> Iterator[LogRecord]:
    for partition, end in log.ends(topic).items():
        yield from log.read(topic, partition, end)
