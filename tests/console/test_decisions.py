"""The results for the rows of an intake: scores below the threshold, and ids that were used before."""

from console.payments.decisions import AnsweredRow, DecisionLedger, Identity, TransactionIdReuse, backtest, reused_ids
from console.payments.files import IntakeRow
from console.rules.files import load_pack
from domain.risk.families.rule import Rule
from domain.risk.packs import RulePack
from tests.support.payments import payment


def answer(row: int, identity: Identity | None, *, is_duplicate: bool = False) -> AnsweredRow:
    return AnsweredRow((row, "run", row), "run", (0, row), identity, is_duplicate, identity is None, {})


def test_reused_id_with_different_content_is_reported() -> None:
    first, changed, elsewhere = ("anna", "tx", b"1"), ("anna", "tx", b"2"), ("bob", "tx", b"3")
    answers = [
        answer(0, first), answer(1, first, is_duplicate=True), answer(2, changed), answer(3, elsewhere),
        answer(4, None), answer(5, ("bob", "other", b"4")),
    ]  # fmt: skip
    assert reused_ids(answers) == {
        (0, 2): TransactionIdReuse(True, "transaction id 'tx' came before with other content"),
        (0, 3): TransactionIdReuse(False, "transaction id 'tx' came before on another account"),
    }


def test_score_below_the_threshold_is_shown_without_rules() -> None:
    three = load_pack("three")
    weak = RulePack(name="weak", version=1, flag_at=1000, rules=tuple[Rule, ...](three.rules))
    rows = [IntakeRow(payment(f"tx-{number}", event_time=1_750_000_000_000 + number), None) for number in range(5)]
    lines = list(backtest(rows, weak))
    assert [(line["score"], line["rules"], line["reasons"]) for line in lines] == [(0, [], [])] * 4 + [(600, [], [])]
    assert [line["rules"] for line in backtest(rows, three)] == [[]] * 4 + [["velocity"]]
    assert DecisionLedger().line(("anna", "tx", b""))["score"] == 0
