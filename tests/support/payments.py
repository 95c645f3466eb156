"""Builders of payments, labels, rule packs and risk folds."""

import json
from typing import Any

from domain.payment import Payment, admit
from domain.risk.default_packs import THREE
from domain.risk.events import RulesActivated
from domain.risk.fold import RiskFold
from domain.risk.packs import RulePack, parse_pack

NOON = 1_749_988_800_000
"""2025-06-15T12:00:00Z, a Sunday."""
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def payment(transaction_id: str, **changed: Any) -> dict[str, Any]:
    return {
        "transaction_id": transaction_id,
        "account_id": "acct-anna",
        "card_id": "card-1",
        "amount_minor": 1_000,
        "currency": "EUR",
        "event_time": NOON,
        "merchant_id": "bakery",
        "payment_method": "CARD",
        "channel": "POS",
        **changed,
    }


def admitted(raw: dict[str, Any]) -> Payment:
    result = admit(raw, None)
    assert isinstance(result, Payment), result
    return result


def activated(pack: RulePack, mode: str = "active") -> RulesActivated:
    return RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="test", mode=mode)


def new_fold(pack: RulePack = THREE) -> RiskFold:
    fold = RiskFold(0)
    fold.activate(activated(pack))
    return fold


def pack_of(*rules: dict[str, Any], **changed: Any) -> RulePack:
    """Build a pack of these rules. A rule without a name gets that of its family."""
    named = [{"name": rule["family"], "typology": "t", "points": 500, **rule} for rule in rules]
    return parse_pack(json.dumps({"name": "test", "version": 1, "rules": named, **changed}))


def label(transaction_id: str, **changed: Any) -> dict[str, Any]:
    return {
        "label_id": f"label-of-{transaction_id}", "account_id": "acct-eve", "transaction_id": transaction_id,
        "event_time": NOON, "merchant_id": "butcher", "terminal_id": None, "device_id": None, "card_id": None,
        "source": "file", "cause_id": "f", "actor": "ann", "confirmed_at_ms": NOON, **changed,
    }  # fmt: skip


def rules_of(raws: list[dict[str, Any]], pack: RulePack = THREE) -> dict[str, tuple[str, ...]]:
    """Return the rules that fire on each payment, after all of them have arrived."""
    fold = new_fold(pack)
    payments = [admitted(raw) for raw in raws]
    for offset, each in enumerate(payments):
        fold.step(each, offset)
    return {each.transaction_id: fold.decision(each).rules for each in payments if fold.decision(each).rules}


STEADY = [payment(f"old-{day}", event_time=NOON + day * DAY_MS, amount_minor=4_000 + day % 2) for day in range(6)]
BERLIN = {"latitude": 52.52, "longitude": 13.405}
LISBON = {"latitude": 38.722, "longitude": -9.139}  # 2,314 km from Berlin: 2 h 34 min at 900 km/h
RISKY = pack_of({"family": "entity_risk", "by": "merchant", "window_ms": 10 * DAY_MS, "at_least": 1})
COMMON = {"family": "entity_risk", "by": "merchant", "window_ms": 10 * DAY_MS, "at_least": 3, "minimum_accounts": 2}


def at(*moments: int, **fields: Any) -> list[dict[str, Any]]:
    """Build payments tx-0, tx-1, ... at these milliseconds after noon. A list among the fields gives one value to
    each.
    """
    return [
        payment(
            f"tx-{number}",
            event_time=NOON + moment,
            **{key: value[number] if isinstance(value, list) else value for key, value in fields.items()},
        )
        for number, moment in enumerate(moments)
    ]
