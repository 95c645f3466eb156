"""The records of one account that explain a decision."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from domain.payment import Payment, Refusal, admit
from domain.risk.events import DuplicateSeen, FraudConfirmed, RiskFlagged, RiskRestated, RiskScored
from domain.risk.fold import ActivePack, RiskFold, decide
from domain.risk.history import Decision, History
from domain.risk.labels import FraudLabel, LabelIndex, specs_by_key

FIELDS: Final = ("device_id", "country", "merchant_id", "channel", "card_id")


MICRODEGREES: Final = 1_000_000


class InboundRecord(NamedTuple):
    """A record of payments.inbound, in the form that the fold reads."""

    name: str
    data: Mapping[str, Any]
    offset: int
    received_ms: int | None


Log = Callable[[], Iterable[InboundRecord]]
"""Opens one partition, or a file, at its start; it is read several times."""


class ExplanationError(Exception):
    """A payment that cannot be explained: unknown, ambiguous, or not decided on; the message says how to cure it."""


@dataclass(slots=True)
class DecisionDossier:
    """A payment, with all records and settings that its decision depends on."""

    data: Mapping[str, Any]
    received_ms: int | None
    payment: Payment
    pack: ActivePack
    labels: LabelIndex
    latest_ms: int
    """The latest event time of the account when the payment arrived."""
    first: Decision
    others: list[Payment] = field(default_factory=list)
    """Every other payment of the account that was decided on, in event-time order."""

    def placed(self, payment: Payment) -> tuple[History, int]:
        """Return the history with `payment` in place of the explained payment, and its position there."""
        end = bisect_left(self.others, payment.order, key=event_order)
        oldest_ms = payment.event_time_ms - self.pack.window_ms
        start = min(max(0, end - self.pack.rows), bisect_left(self.others, (oldest_ms, "", b""), key=event_order))
        history = History(payment.account_id)
        for other in self.others[start:end]:
            history.insert(other, 0)
        return history, history.insert(payment, 0, self.labels.facts(payment, specs_by_key(self.pack.confirmed)))

    def decision(self, payment: Payment) -> Decision:
        """Decide on this payment in the place of the explained one."""
        return decide(*self.placed(payment), self.pack)


def event_order(payment: Payment) -> tuple[int, str, bytes]:
    return payment.order


def find_accounts(log: Log, transaction_id: str) -> list[str]:
    """Return the accounts that have a payment of this id, in the order of the log."""
    found = (line.data["account_id"] for line in log() if _is_payment(line, transaction_id))
    return list(dict.fromkeys(found))


def _is_payment(line: InboundRecord, transaction_id: str) -> bool:
    return line.name == "Transaction" and line.data.get("transaction_id") == transaction_id


def read_dossier(log: Log, account_id: str, transaction_id: str, digest: str = "") -> DecisionDossier:
    """Read the dossier of a payment from the log. Of several contents under one id, `digest` selects by its first
    digits.

    Raises ExplanationError.
    """
    fold, labels = RiskFold(0), LabelIndex(lambda _: None)
    dossier: DecisionDossier | None = None
    others: list[Payment] = []
    latest_ms, refusal = -1, ""
    for line in account_records(log, account_id):
        outputs = fold.read(line.name, line.data, line.offset, line.received_ms)
        is_wanted = dossier is None and _is_payment(line, transaction_id)
        if line.name == "FraudConfirmed" and dossier is None:
            labels.add(_label(line.data))
        if isinstance(outputs, Refusal):
            refusal = f"{outputs.reason}: {outputs.detail}" if is_wanted else refusal
            continue
        if line.name != "Transaction" or any(isinstance(output, DuplicateSeen) for output in outputs):
            continue
        payment = admit(line.data, line.received_ms)
        assert isinstance(payment, Payment)  # the fold took it
        if is_wanted and payment.digest.hex().startswith(digest):
            assert fold.active is not None
            first = fold.decision(payment)
            dossier = DecisionDossier(line.data, line.received_ms, payment, fold.active, labels, latest_ms, first)
        else:
            others.append(payment)
        latest_ms = max(latest_ms, payment.event_time_ms)
    if dossier is None:
        raise ExplanationError(refusal or f"no payment {transaction_id!r} of this account has this digest")
    dossier.others = sorted(others, key=event_order)
    return dossier


def account_records(log: Log, account_id: str) -> Iterator[InboundRecord]:
    """Yield the records that can change a decision on an account: its payments, and the records without an account."""
    return (line for line in log() if line.name != "Transaction" or line.data.get("account_id") == account_id)


def _label(data: Mapping[str, Any]) -> FraudLabel:
    record = FraudConfirmed(**data)
    return FraudLabel(
        record.label_id, record.transaction_id, record.event_time, record.merchant_id, record.terminal_id,
        record.device_id, record.card_id, record.account_id,
    )  # fmt: skip


def decide_changed_payment(log: Log, dossier: DecisionDossier, data: Mapping[str, Any]) -> Decision | None:
    """Fold the whole log with `data` in place of the payment. Return the final decision on it, or None if it is
    refused.
    """
    changed = admit(data, dossier.received_ms)
    if isinstance(changed, Refusal):
        return None
    fold = RiskFold(0)
    found: Decision | None = None
    for line in account_records(log, dossier.payment.account_id):
        is_it = line.name == "Transaction" and line.data == dossier.data
        outputs = fold.read(line.name, data if is_it else line.data, line.offset, line.received_ms)
        for output in () if isinstance(outputs, Refusal) else outputs:
            if isinstance(output, RiskScored) and output.content_digest == changed.digest:
                found = fold.decision(changed)
            elif isinstance(output, RiskFlagged | RiskRestated) and output.content_digest == changed.digest.hex():
                found = Decision(output.score, output.reasons)
    return found
