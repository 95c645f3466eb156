"""Rule packs: content-addressed, read back as written, and refused with an error that names the cure."""

import json
from dataclasses import MISSING, fields
from typing import Any

import pytest

from domain.payment import Refusal
from domain.risk.default_packs import DEFAULT
from domain.risk.families.registry import FAMILIES
from domain.risk.fold import RiskFold
from domain.risk.packs import BadRulePack, parse_pack


def document(**changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(DEFAULT.canonical)
    made["rules"] = [{**made["rules"][0], **changed}, *made["rules"][1:]]
    return made


def test_pack_is_read_back_as_written() -> None:
    assert parse_pack(DEFAULT.canonical) == DEFAULT
    assert parse_pack(json.dumps(json.loads(DEFAULT.canonical), indent=4)).pack_id == DEFAULT.pack_id


def test_different_content_has_a_different_id() -> None:
    assert parse_pack(json.dumps(document(at_least=6))).pack_id != DEFAULT.pack_id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a rule pack"),
        ("[]", "not a rule pack"),
        ("{}", "not a rule pack"),
        (json.dumps(document(family="astrology")), "rule family 'astrology' is unknown. Cure: write one of velocity"),
        (json.dumps(document(colour="red")), "colour"),
        (json.dumps(document(points=0)), "points must be between 1 and 1000"),
        (json.dumps(document(points=1.5)), "points must be a whole number"),
        (json.dumps(document(points=True)), "points must be a whole number"),
        (json.dumps(document(typology="")), "typology must be a text"),
        (json.dumps(document(window_ms=0)), "window_ms must be between 1 and"),
        (json.dumps(document(at_least=1_001)), "at_least must be between 1 and 1000"),
        (json.dumps(document(name="amount_spike")), "each rule needs a name of its own"),
        (json.dumps(document(points="")), "rule 'velocity': points: column 1: found the end. Cure: write a value"),
    ],
)
def test_a_bad_pack_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadRulePack, match=message):
        parse_pack(text)


@pytest.mark.parametrize("pack", ["{}", json.dumps(document(points=""))])
def test_bad_pack_in_the_log_is_refused(pack: str) -> None:
    fold = RiskFold(0)
    refusal = fold.read("RulesActivated", {"pack_id": "x", "pack": pack, "activated_by": "eve"}, 0, None)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "bad_rule_pack"


def test_a_payment_is_restated_by_the_pack_that_decided_it() -> None:
    """Three payments in a minute under a pack that needs five; a later pack needs three, but not for these payments."""
    stricter = parse_pack(json.dumps({**document(at_least=3), "version": 2}))
    fold = RiskFold(0)
    noon = 1_750_000_000_000

    def pay(transaction_id: str, at: int) -> list[str]:
        data = {
            "transaction_id": transaction_id, "account_id": "a", "amount_minor": 5, "currency": "EUR",
            "event_time": noon + at, "merchant_id": "m", "payment_method": "CARD", "channel": "POS",
        }  # fmt: skip
        outputs = fold.read("Transaction", data, at, None)
        assert isinstance(outputs, list)
        return [type(output).__name__ for output in outputs]

    for pack in (DEFAULT, DEFAULT):
        fold.read("RulesActivated", {"pack_id": pack.pack_id, "pack": pack.canonical, "activated_by": "ann"}, 0, None)
    assert pay("tx-1", 10) == ["RiskScored"]
    assert pay("tx-2", 20) == ["RiskScored"]
    fold.read(
        "RulesActivated", {"pack_id": stricter.pack_id, "pack": stricter.canonical, "activated_by": "ann"}, 0, None
    )
    assert pay("tx-0", 0) == ["RiskScored"]  # tx-2 is now the third in a minute; its pack needs five
    assert pay("tx-3", 30) == ["RiskScored", "RiskFlagged"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("Transaction", {}, "bad_fields"),
        ("CaseOpened", {}, "unexpected_type"),
        ("IntakeRefused", {"reason": "bad_row", "source": "x.csv", "detail": "line 3"}, "bad_row"),
    ],
)
def test_malformed_payment_is_refused(name: str, data: dict[str, Any], reason: str) -> None:
    refusal = RiskFold(0).read(name, data, 0, None)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason


COMMON_DEFAULTS: dict[str, Any] = {"severity": "medium", "reason_code": "", "when": ""}
DEFAULTS: dict[str, dict[str, Any]] = {
    "velocity": {"by": "account", "measure": "count"},
    "amount_spike": {},
    "impossible_travel": {},
    "far_from_home": {"channels": ()},
    "card_testing": {"by": "card"},
    "new_device": {},
    "new_country": {},
    "entity_risk": {"minimum_accounts": 1},
    "account_emptying": {"minimum_span_ms": 0},
    "unusual_hour": {},
    "blocklist": {},
    "allowlist": {"points": 0},
    "expression": {"at_least": 1},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_default_of_a_parameter_never_changes(family: str) -> None:
    """A recorded pack omits default values, so another default would give it another meaning under the same id.

    A family or parameter that is new gets its line here once.
    """
    found = {each.name: each.default for each in fields(FAMILIES[family]) if each.default is not MISSING}
    assert found == COMMON_DEFAULTS | DEFAULTS[family]
