"""Records of the risk logs: activations, labels, decisions, flags and restatements."""

from typing import Final, NamedTuple, TypeAlias, TypedDict
from uuid import UUID, uuid5

from domain.reason import Reason
from domain.record import Record

FLAGS = UUID("a2c1d2b0-43a5-5a5e-9c51-6a1f0e8e7b10")
"""Namespace of the ids of flags."""
LABELS = UUID("3d0b6c55-8a3e-5f0b-9b0a-5f2d7c4e9a77")
"""Namespace of the ids of labels."""


class RulesActivated(Record, frozen=True, kw_only=True):
    """The record that activates a rule pack (`pack` is its canonical JSON) in one partition.

    `mode` is "active": the pack decides the payments that follow; "shadow": the pack also scores them, and its scores
    are only recorded; or "retired-shadow": its shadow ends.
    """

    pack_id: str
    pack: str
    activated_by: str
    mode: str = "active"


class FraudConfirmed(Record, frozen=True, kw_only=True):
    """The label of a payment that is known to be fraud, from a case or a file; written once into each partition.

    It raises the risk of the merchant, terminal, device, card and account of that payment. `cause_id` is the id of the
    command that closed the case, or the SHA-256 of the file.
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
    """A decided payment on its way to the entity fold of its merchant, terminal or device.

    `entity` is "merchant:ID", "terminal:ID" or "device:ID". `pack_id` is the pack that decided the payment in its
    account's fold; the entity fold decides it by the same pack. `is_allowed` is whether an allowlist of that pack
    holds: then the payment counts, and is not flagged. `partition` and `offset` are those of the payment in
    payments.inbound.
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
    """The score of one payment by a shadow pack, and the rules that would have flagged it."""

    pack_id: str
    score: int
    rules: list[str]


NO_SHADOW: Final[list[ShadowScore]] = []
"""Shadow scores where there is no shadow pack: one list for all payments, which must not be changed."""


class RiskScored(NamedTuple):
    """The decision on one payment on its arrival. A tuple, because one is made for every payment.

    `rules` is empty if the score is below the pack's `flag_at`.
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
    """A record that the same content arrived again and changed nothing.

    With it, every payment of the intake has an answer.
    """

    account_id: str
    transaction_id: str
    content_digest: bytes
    partition: int
    offset: int


class DecisionsMade(Record, frozen=True, kw_only=True):
    """The answers to the payments of one batch, as they are in risk.scored; one record, because each record costs.

    The batches have no meaning: each answer names the offset of its payment.
    """

    partition: int
    scored: tuple[RiskScored, ...]
    duplicates: tuple[DuplicateSeen, ...]

    def answers(self) -> list[RiskScored | DuplicateSeen]:
        """Return all answers in the order of the log."""
        return sorted((*self.scored, *self.duplicates), key=_offset)


TUPLES: Final = {"Scored": RiskScored._fields, "Duplicate": DuplicateSeen._fields}
"""Fields of the tuples nested in DecisionsMade, by the name of their Avro record, for the encoder."""


def _offset(answer: RiskScored | DuplicateSeen) -> int:
    return answer.offset


class RiskFlagged(Record, frozen=True, kw_only=True):
    """The flag on a payment that fired rules when it arrived.

    `sequence` counts the flags and restatements of the account, without gaps.
    """

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
    """A correction of the decision on an earlier payment, made because another payment arrived late.

    The earlier event stays in the log as it was.
    """

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
    """The flag on a payment by a rule that counts the payments of a merchant, terminal or device, of all accounts.

    `partition` and `offset` are those of the EntityPayment in entities.inbound. It is decided once, on arrival.
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
    """Return the id of the flag on a payment. It derives from the payment alone, so every replay gives the same id."""
    return str(uuid5(FLAGS, f"{account_id}\x1f{transaction_id}\x1f{digest.hex()}"))


def entity_flag_id(entity: str, account_id: str, transaction_id: str, digest: bytes) -> str:
    """Return the id of the flag that an entity's fold puts on a payment."""
    return str(uuid5(FLAGS, f"{entity}\x1f{account_id}\x1f{transaction_id}\x1f{digest.hex()}"))


def label_id(account_id: str, transaction_id: str, content_digest: str) -> str:
    """Return the id of the label on a payment. All labels on one payment have one id, whatever their source."""
    return str(uuid5(LABELS, f"{account_id}\x1f{transaction_id}\x1f{content_digest}"))
