"""Payments and packs for what-if runs over a log in memory."""

from typing import Any, Final

from domain.risk.families.velocity import Velocity
from domain.risk.packs import RulePack
from projections.replay.whatif import WhatifOutcome, WhatifPeriod, run_whatif
from tests.support.logs import TOPICS, MemoryLog, decoder

WHOLE: Final = WhatifPeriod()
FAST: Final = Velocity(name="fast", typology="rapid_spending", points=600, window_ms=60_000, at_least=3)
PAYMENT: Final[dict[str, Any]] = {
    "amount_minor": 1_000, "currency": "EUR", "merchant_id": "bakery", "payment_method": "CARD", "channel": "ECOM",
    "card_id": "card", "country": "DE", "device_id": None, "terminal_id": None,
}  # fmt: skip


def pack(*rules: Any, name: str = "test", **changed: Any) -> RulePack:
    return RulePack(name=name, version=1, rules=rules or (FAST,), **changed)


def pay(log: MemoryLog, account: str, at_ms: int, number: int, **changed: Any) -> dict[str, Any]:
    transaction = {
        **PAYMENT, "account_id": account, "transaction_id": f"{account}-{number}", "event_time": at_ms, **changed,
    }  # fmt: skip
    log.pay(transaction, at_ms)
    return transaction


def burst(log: MemoryLog, account: str, at_ms: int, payments: int, **changed: Any) -> None:
    """Append this number of payments, one second apart."""
    for number in range(payments):
        pay(log, account, at_ms + number * 1_000, at_ms + number, **changed)


def run(log: MemoryLog, new: RulePack, stretch: WhatifPeriod = WHOLE) -> WhatifOutcome:
    return run_whatif(log, TOPICS, decoder(), new, stretch)
