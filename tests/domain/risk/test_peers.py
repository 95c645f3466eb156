"""Published cases of other systems under our rules: Flink's fraud detection tutorial, and Tazama's rule 901.

Their files are not part of the project, and without them these tests are skipped. tests/domain/risk/test_families.py
has the same thresholds.
"""

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.risk.packs import RulePack
from tests.support.payments import DAY_MS, NOON, admitted, new_fold, pack_of, payment, rules_of

DATA = Path(__file__).parents[4] / "shared" / "data"
WALKTHROUGH, RULE_901 = DATA / "flink" / "walkthrough_transactions.json", DATA / "tazama" / "rule_901_cases.json"


def walkthrough() -> list[dict[str, Any]]:
    """Return the tutorial's payments. One has three decimals; dollars have two, so the intake would refuse it."""
    raws = []
    for each in json.loads(WALKTHROUGH.read_text(encoding="utf-8"))["transactions"]:
        cents = Decimal(each["amount"]) * 100
        at = datetime.fromisoformat(each["event_time"])
        if cents == cents.to_integral_value():
            raws.append(
                payment(
                    f"index-{each['index']}",
                    account_id=f"account-{each['account_id']}",
                    amount_minor=int(cents),
                    currency="USD",
                    event_time=int(at.timestamp()) * 1000,
                )
            )
    return raws


def small_then_large(*, within: str = "") -> RulePack:
    value = f"previous_amount_minor >= 0 and previous_amount_minor < 100 and amount_minor > 50_000{within}"
    return pack_of({"family": "expression", "value": value})


@pytest.mark.skipif(not WALKTHROUGH.exists(), reason="the tutorial's payments are not here")
def test_flink_tutorial_raises_its_one_alert() -> None:
    assert len(walkthrough()) == 49
    assert rules_of(walkthrough(), small_then_large()) == {"index-27": ("expression",)}


@pytest.mark.skipif(not WALKTHROUGH.exists(), reason="the tutorial's payments are not here")
def test_flink_second_version_is_silent_in_event_time() -> None:
    """Its payments lie half an hour apart: only an engine that reads the wall clock finds two within a minute."""
    assert rules_of(walkthrough(), small_then_large(within=" and since_previous_ms <= 60_000")) == {}


def cases() -> list[Any]:
    if not RULE_901.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason="Tazama's cases are not here"))]
    return [pytest.param(each, id=each["case"]) for each in json.loads(RULE_901.read_text(encoding="utf-8"))["cases"]]


@pytest.mark.parametrize("case", cases())
def test_tazama_rule_901_counts_the_payments_of_a_day(case: dict[str, Any]) -> None:
    """A tenant's debtor is the account; the payment's status is stored as its payment method."""
    rule = {"family": "velocity", "window_ms": DAY_MS, "at_least": 1, "when": 'payment_method == "ACCC"'}
    fold = new_fold(pack_of(rule))
    for number, each in enumerate(case["transactions"]):
        raw = payment(
            f"tx-{number}",
            account_id=f"{each['tenant']}/{each['debtor']}",
            event_time=NOON + each["offset_s"] * 1000,
            payment_method=each["status"],
        )
        fold.step(admitted(raw), number)
        if each["evaluated"]:
            evaluated = admitted(raw)
    (finding,) = fold.findings(evaluated)
    counted = finding.measured.value if finding.is_open else 0
    assert counted == case["expected"]["count"]
    assert (case["expected"]["sub_rule"] == ".x00") is not finding.is_open
