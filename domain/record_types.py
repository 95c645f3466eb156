"""Everything that can stand in one of our logs, except a payment: facts in the past tense, and what is asked of a fold.

Each class has an Avro schema of the same name in `schemas/`; `to_fields` and `from_fields` are the bridge. A
field that a record lacks, because it was written before there was such a field, takes its default here: that is all
our upcasting.
"""

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias, TypedDict, get_args
from uuid import UUID, uuid5

from domain.cases.commands import (
    AbsorbCase as AbsorbCase,
)
from domain.cases.commands import (
    AddNote as AddNote,
)
from domain.cases.commands import (
    Amount as Amount,
)
from domain.cases.commands import (
    AnalystCommand as AnalystCommand,
)
from domain.cases.commands import (
    ApproveClosing as ApproveClosing,
)
from domain.cases.commands import (
    ApproveReopening as ApproveReopening,
)
from domain.cases.commands import (
    AssignCase as AssignCase,
)
from domain.cases.commands import (
    Attachment as Attachment,
)
from domain.cases.commands import (
    ChainCommand as ChainCommand,
)
from domain.cases.commands import (
    CloseCase as CloseCase,
)
from domain.cases.commands import (
    Command as Command,
)
from domain.cases.commands import (
    EscalateCase as EscalateCase,
)
from domain.cases.commands import (
    LinkBack as LinkBack,
)
from domain.cases.commands import (
    LinkCase as LinkCase,
)
from domain.cases.commands import (
    MergeCases as MergeCases,
)
from domain.cases.commands import (
    MergedFlag as MergedFlag,
)
from domain.cases.commands import (
    PartCase as PartCase,
)
from domain.cases.commands import (
    RefuseClosing as RefuseClosing,
)
from domain.cases.commands import (
    RefuseReopening as RefuseReopening,
)
from domain.cases.commands import (
    ReleaseCase as ReleaseCase,
)
from domain.cases.commands import (
    ReopenCase as ReopenCase,
)
from domain.cases.commands import (
    SnoozeCase as SnoozeCase,
)
from domain.cases.commands import (
    TakeCase as TakeCase,
)
from domain.cases.commands import (
    UndoMerge as UndoMerge,
)
from domain.cases.commands import (
    UnlinkBack as UnlinkBack,
)
from domain.cases.commands import (
    UnlinkCase as UnlinkCase,
)
from domain.cases.commands import (
    UnmergeCase as UnmergeCase,
)
from domain.cases.commands import (
    WakeCase as WakeCase,
)
from domain.cases.commands import (
    WithdrawClosing as WithdrawClosing,
)
from domain.cases.commands import (
    WithdrawReopening as WithdrawReopening,
)
from domain.cases.events import (
    CONFIRMED_FRAUD as CONFIRMED_FRAUD,
)
from domain.cases.events import (
    DISPOSITIONS as DISPOSITIONS,
)
from domain.cases.events import (
    REJECTIONS as REJECTIONS,
)
from domain.cases.events import (
    AbsorptionRefused as AbsorptionRefused,
)
from domain.cases.events import (
    CaseAbsorbed as CaseAbsorbed,
)
from domain.cases.events import (
    CaseAnswer as CaseAnswer,
)
from domain.cases.events import (
    CaseAssigned as CaseAssigned,
)
from domain.cases.events import (
    CaseClosed as CaseClosed,
)
from domain.cases.events import (
    CaseEscalated as CaseEscalated,
)
from domain.cases.events import (
    CaseEvent as CaseEvent,
)
from domain.cases.events import (
    CaseLinked as CaseLinked,
)
from domain.cases.events import (
    CaseMerged as CaseMerged,
)
from domain.cases.events import (
    CaseOpened as CaseOpened,
)
from domain.cases.events import (
    CaseParted as CaseParted,
)
from domain.cases.events import (
    CaseReleased as CaseReleased,
)
from domain.cases.events import (
    CaseReopened as CaseReopened,
)
from domain.cases.events import (
    CaseSnoozed as CaseSnoozed,
)
from domain.cases.events import (
    CaseUnlinked as CaseUnlinked,
)
from domain.cases.events import (
    CaseUnmerged as CaseUnmerged,
)
from domain.cases.events import (
    CaseWoken as CaseWoken,
)
from domain.cases.events import (
    ClosingRefused as ClosingRefused,
)
from domain.cases.events import (
    ClosingRequested as ClosingRequested,
)
from domain.cases.events import (
    ClosingWithdrawn as ClosingWithdrawn,
)
from domain.cases.events import (
    CommandRejected as CommandRejected,
)
from domain.cases.events import (
    FlaggedPayment as FlaggedPayment,
)
from domain.cases.events import (
    MissedEvent as MissedEvent,
)
from domain.cases.events import (
    NoteAdded as NoteAdded,
)
from domain.cases.events import (
    ReopeningRefused as ReopeningRefused,
)
from domain.cases.events import (
    ReopeningRequested as ReopeningRequested,
)
from domain.cases.events import (
    ReopeningWithdrawn as ReopeningWithdrawn,
)
from domain.cases.events import (
    RiskLinked as RiskLinked,
)
from domain.cases.events import (
    RiskRevised as RiskRevised,
)
from domain.cases.events import (
    SequencedCaseEvent as SequencedCaseEvent,
)
from domain.reason import Reason as Reason
from domain.record import Record, types_of

FLAGS = UUID("a2c1d2b0-43a5-5a5e-9c51-6a1f0e8e7b10")
CASES = UUID("8f6f5e0e-6f0c-5c1b-9d55-0d6d8f1f2a31")
LABELS = UUID("3d0b6c55-8a3e-5f0b-9b0a-5f2d7c4e9a77")


# -- payments.inbound, beside the payments --------------------------------------------------------


class RulesActivated(Record, frozen=True, kw_only=True):
    """From here on this partition is decided by this rule pack (its canonical JSON).

    `mode` is "active"; or "shadow": every payment is scored by it too, and that is only recorded; or
    "retired-shadow": no longer.
    """

    pack_id: str
    pack: str
    activated_by: str
    mode: str = "active"


class EngineActivated(Record, frozen=True, kw_only=True):
    """From here on this partition is decided by this version of the engine: also in entities.inbound and cases.inbox.

    `activation_id` derives from the engine, so that it is the same in every partition.
    """

    activation_id: str
    engine: int
    activated_by: str


class IntakeRefused(Record, frozen=True, kw_only=True):
    """A door could not make a Transaction of something; it enters the log all the same, so that nothing is lost."""

    reason: str
    detail: str
    source: str
    size: int
    sha256: str
    body: bytes | None


class FraudConfirmed(Record, frozen=True, kw_only=True):
    """A payment is known to be fraud, from a case or a file; written once into each partition.

    From here on it raises the risk of the merchant, terminal, device and card that it was made with. `cause_id` is
    the command that closed the case, or the SHA-256 of the file.
    """

    label_id: str
    account_id: str
    transaction_id: str
    event_time: int
    merchant_id: str
    terminal_id: str | None
    device_id: str | None
    card_id: str | None
    source: str
    cause_id: str
    actor: str
    confirmed_at_ms: int


# -- entities.inbound, beside the activations -----------------------------------------------------


class EntityPayment(Record, frozen=True):
    """A decided payment on its way to the fold of one of its merchant, terminal and device.

    `entity` is "merchant:ID" and so on, `pack_id` the pack that decided the payment in its account's fold and decides
    it here, `is_allowed` whether an allowlist of that pack let it pass: then it counts, and is not flagged.
    `partition` and `offset` are those of the payment in payments.inbound.
    """

    entity: str
    account_id: str
    transaction_id: str
    content_digest: bytes
    event_time: int
    amount_minor: int
    currency: str
    card_id: str | None
    merchant_id: str
    merchant_category: str | None
    terminal_id: str | None
    payment_method: str
    channel: str
    country: str | None
    latitude: int | None
    longitude: int | None
    home_latitude: int | None
    home_longitude: int | None
    device_id: str | None
    counterparty_id: str | None
    pack_id: str
    is_allowed: bool
    partition: int
    offset: int


# -- risk.scored ----------------------------------------------------------------------------------


class ShadowScore(TypedDict):
    """What a pack says that only looks on: its score, and the rules that would have flagged."""

    pack_id: str
    score: int
    rules: list[str]


NO_SHADOW: Final[list[ShadowScore]] = []
"""No pack looks on: one list for all payments, which nobody may change."""


class RiskScored(NamedTuple):
    """The decision on one payment, on arrival. A tuple because there is one for every payment.

    A score below the pack's `flag_at` has no rules.
    """

    account_id: str
    transaction_id: str
    content_digest: bytes
    event_time: int
    amount_minor: int
    currency: str
    merchant_id: str
    payment_method: str
    channel: str
    country: str | None
    score: int
    rules: list[str]
    pack_id: str
    partition: int
    offset: int
    shadow: list[ShadowScore] = NO_SHADOW


class DuplicateSeen(NamedTuple):
    """The same content came again and added nothing: the accounting of the intake stays exact."""

    account_id: str
    transaction_id: str
    content_digest: bytes
    partition: int
    offset: int


class DecisionsMade(Record, frozen=True, kw_only=True):
    """The answers to the payments of one batch, as they stand in risk.scored: a record a batch, since each costs.

    How payments were batched says nothing; each answer names the offset that it is about.
    """

    partition: int
    scored: tuple[RiskScored, ...]
    duplicates: tuple[DuplicateSeen, ...]

    def answers(self) -> list[RiskScored | DuplicateSeen]:
        """All of them, in the order of the log."""
        return sorted((*self.scored, *self.duplicates), key=_offset)


TUPLES: Final = {"Scored": RiskScored._fields, "Duplicate": DuplicateSeen._fields}
"""What is nested in DecisionsMade, as it is made: for an encoder that takes tuples."""


def _offset(answer: RiskScored | DuplicateSeen) -> int:
    return answer.offset


# -- cases.inbox ----------------------------------------------------------------------------------


class RiskFlagged(Record, frozen=True, kw_only=True):
    """A payment fired at least one rule when it arrived. `sequence` is gapless per account, with RiskRestated."""

    account_id: str
    sequence: int
    flag_id: str
    transaction_id: str
    content_digest: str
    event_time: int
    amount_minor: int
    currency: str
    merchant_id: str
    card_id: str | None
    payment_method: str
    channel: str
    country: str | None
    latitude: int | None
    longitude: int | None
    typology: str
    score: int
    reasons: tuple[Reason, ...]
    pack_id: str
    terminal_id: str | None = None
    device_id: str | None = None


class RiskRestated(Record, frozen=True, kw_only=True):
    """A payment that arrived late changed the decision on this one; nothing is rewritten, this is said instead."""

    account_id: str
    sequence: int
    flag_id: str
    transaction_id: str
    content_digest: str
    event_time: int
    amount_minor: int
    currency: str
    merchant_id: str
    card_id: str | None
    payment_method: str
    channel: str
    country: str | None
    latitude: int | None
    longitude: int | None
    typology: str
    score_before: int
    rules_before: tuple[str, ...]
    score: int
    reasons: tuple[Reason, ...]
    pack_id: str
    cause_transaction_id: str
    cause_digest: str
    terminal_id: str | None = None
    device_id: str | None = None


class EntityFlagged(Record, frozen=True, kw_only=True):
    """A payment fired a rule that counts the payments of its merchant, terminal or device, whosever they are.

    `partition` and `offset` are those of the record of entities.inbound that was decided on. Decided once, on arrival.
    """

    account_id: str
    flag_id: str
    entity: str
    transaction_id: str
    content_digest: str
    event_time: int
    amount_minor: int
    currency: str
    merchant_id: str
    terminal_id: str | None
    device_id: str | None
    card_id: str | None
    typology: str
    score: int
    reasons: tuple[Reason, ...]
    pack_id: str
    partition: int
    offset: int


class ClockTicked(Record, frozen=True, kw_only=True):
    """Time as far as cases are concerned: written once into each partition, so that deadlines replay."""

    tick_id: str
    now_ms: int


# -- quarantine -----------------------------------------------------------------------------------


class Quarantined(Record, frozen=True, kw_only=True):
    """A record that could not be decided on, whole, with why and where it stands.

    With `decided` the record *was* decided and this is a report only (a conflict). A body above the limit is not
    repeated: `stored_at` says where it lies, and `size` and `sha256` prove it.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    size: int
    sha256: str
    body: bytes | None
    stored_at: str | None
    decided: bool


RiskEvent: TypeAlias = RiskFlagged | RiskRestated
RiskOutput: TypeAlias = RiskScored | DuplicateSeen | RiskFlagged | RiskRestated | EntityPayment
Flag: TypeAlias = RiskEvent | EntityFlagged
InboxRecord: TypeAlias = Flag | ClockTicked | Command
InboundRecord: TypeAlias = RulesActivated | EngineActivated | IntakeRefused | FraudConfirmed
Event: TypeAlias = InboundRecord | EntityPayment | DecisionsMade | InboxRecord | CaseEvent | Quarantined

TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
"""Every event by the name that its schema bears."""


def flag_id(account_id: str, transaction_id: str, digest: bytes) -> str:
    """The id of the flag on a payment: equal in every replay, because it derives from its cause."""
    return str(uuid5(FLAGS, f"{account_id}\x1f{transaction_id}\x1f{digest.hex()}"))


def entity_flag_id(entity: str, account_id: str, transaction_id: str, digest: bytes) -> str:
    """The id of the flag that an entity's fold puts on a payment."""
    return str(uuid5(FLAGS, f"{entity}\x1f{account_id}\x1f{transaction_id}\x1f{digest.hex()}"))


def case_id(typology: str, first_flag_id: str, previous_case_id: str | None = None) -> str:
    """The id of the case that a flag opens. A flag that has opened a case before (closed since) opens another one."""
    after = f"\x1f{previous_case_id}" if previous_case_id else ""
    return str(uuid5(CASES, f"{typology}\x1f{first_flag_id}{after}"))


def label_id(account_id: str, transaction_id: str, content_digest: str) -> str:
    """The id of the label on a payment: whoever says that it is fraud, and however often, it is one label."""
    return str(uuid5(LABELS, f"{account_id}\x1f{transaction_id}\x1f{content_digest}"))


def to_fields(event: Event) -> dict[str, Any]:
    """The event as plain data, field by field, as its schema wants it."""
    return _record(event)


_PLAIN: Final = {str, int, bool, bytes, str | None, int | None, bytes | None}
"""What nearly every field holds."""


def _record(made: Any) -> dict[str, Any]:
    plan: _Plan = _plan(type(made))  # type: ignore[arg-type]  # a class is hashable, whatever it makes
    data = dict(zip(plan.names, plan.values(made), strict=True))
    for name in plan.nested:
        data[name] = _plain(data[name])
    return data


class _Plan(NamedTuple):
    """The fields of a class, what gets their values, and which of them hold more than one."""

    names: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]]
    nested: tuple[str, ...]


@cache
def _plan(kind: Any) -> _Plan:
    names = kind.__struct_fields__
    nested = tuple(name for name, holds in types_of(kind).items() if holds not in _PLAIN)
    return _Plan(names, attrgetter(*names), nested)  # each class has two fields at least


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # what most arrays hold
        return value
    if isinstance(value, RiskScored | DuplicateSeen):
        return value._asdict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _record(value) if isinstance(value, Record) else value


def from_fields(name: str, data: dict[str, Any]) -> Event:
    """The event that `to_fields` made these of. KeyError names a type that no fold knows."""
    kind = TYPES[name]
    known = dict(data)
    if kind is DecisionsMade:
        partition = known["partition"]
        known["scored"] = tuple(RiskScored(**scored, partition=partition) for scored in known["scored"])
        known["duplicates"] = tuple(DuplicateSeen(**each, partition=partition) for each in known["duplicates"])
    for key in _plan(kind).nested:
        if key in known:
            make = _MAKERS.get(key)
            known[key] = tuple(known[key]) if make is None else tuple([make(item) for item in known[key]])
    return kind(**known)


def _reason(data: dict[str, Any]) -> Reason:
    return Reason(**{**data, "contributing": tuple(data["contributing"])})


def _maker(kind: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda data: kind(**data)


_MAKERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "reasons": _reason,
    "payments": _maker(FlaggedPayment),
    "attachments": _maker(Attachment),
    "amounts": _maker(Amount),
    "flags": _maker(MergedFlag),
    "missed": _maker(MissedEvent),
}
"""What makes the records of the fields that hold arrays of them; other arrays are of texts."""
