"""Records of the risk logs: activations, labels, decisions, flags and restatements."""

from typing import Final, NamedTuple, TypeAlias, TypedDict
from uuid import UUID, uuid5

from domain.reason import Reason
from domain.record import Record

FLAGS = UUID("a2c1d2b0-43a5-5a5e-9c51-6a1f0e8e7b10")


LABELS = UUID("3d0b6c55-8a3e-5f0b-9b0a-5f2d7c4e9a77")


class RulesActivated(Record, frozen=True, kw_only=True):
    """From here on this partition is decided by this rule pack (its canonical JSON).

    `mode` is "active"; or "shadow": every payment is scored by it too, and that is only recorded; or
    "retired-shadow": no longer.
    """

    pack_id: str
    pack: str
    activated_by: str
    mode: str = "active"


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


RiskEvent: TypeAlias = RiskFlagged | RiskRestated


RiskOutput: TypeAlias = RiskScored | DuplicateSeen | RiskFlagged | RiskRestated | EntityPayment


Flag: TypeAlias = RiskEvent | EntityFlagged


def flag_id(account_id: str, transaction_id: str, digest: bytes) -> str:
    """The id of the flag on a payment: equal in every replay, because it derives from its cause."""
    return str(uuid5(FLAGS, f"{account_id}\x1f{transaction_id}\x1f{digest.hex()}"))


def entity_flag_id(entity: str, account_id: str, transaction_id: str, digest: bytes) -> str:
    """The id of the flag that an entity's fold puts on a payment."""
    return str(uuid5(FLAGS, f"{entity}\x1f{account_id}\x1f{transaction_id}\x1f{digest.hex()}"))


def label_id(account_id: str, transaction_id: str, content_digest: str) -> str:
    """The id of the label on a payment: whoever says that it is fraud, and however often, it is one label."""
    return str(uuid5(LABELS, f"{account_id}\x1f{transaction_id}\x1f{content_digest}"))
