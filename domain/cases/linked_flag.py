"""Flags of a case as its state remembers them."""

from domain.cases.commands import MergedFlag
from domain.cases.events import CaseOpened, FlaggedPayment, RiskLinked
from domain.record import Record


class LinkedFlag(Record, frozen=True):
    """Flag of a case, and its payment with all fields that a label needs.

    `score` is 0 for a withdrawn flag. `account_id` is set only if the flag came with a case that was merged into this
    one. A flag from before labels existed has no content digest and no merchant.
    """

    score: int
    transaction_id: str
    content_digest: str | None
    event_time: int
    merchant_id: str | None
    terminal_id: str | None
    device_id: str | None
    card_id: str | None
    account_id: str | None = None


def flag_of_event(event: CaseOpened | RiskLinked) -> LinkedFlag:
    """Return the flag that an event brings into its case."""
    return LinkedFlag(
        event.score,
        event.transaction_id,
        event.content_digest,
        event.event_time,
        event.merchant_id,
        event.terminal_id,
        event.device_id,
        event.card_id,
    )


def flag_of_merged_case(flag: MergedFlag) -> LinkedFlag:
    """Return the flag that a merged case hands over."""
    return LinkedFlag(
        score=flag.score,
        transaction_id=flag.transaction_id,
        content_digest=flag.content_digest,
        event_time=flag.event_time,
        merchant_id=flag.merchant_id,
        terminal_id=flag.terminal_id,
        device_id=flag.device_id,
        card_id=flag.card_id,
        account_id=flag.account_id,
    )


def payment_of_flag(flag: LinkedFlag) -> FlaggedPayment | None:
    """Return the payment of a flag, or None for a flag from before labels existed."""
    if flag.content_digest is None or flag.merchant_id is None:
        return None
    return FlaggedPayment(
        transaction_id=flag.transaction_id,
        content_digest=flag.content_digest,
        event_time=flag.event_time,
        merchant_id=flag.merchant_id,
        terminal_id=flag.terminal_id,
        device_id=flag.device_id,
        card_id=flag.card_id,
        account_id=flag.account_id,
    )
