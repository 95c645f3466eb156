"""The entity fold: the recorded payments of many accounts at one merchant, terminal or device, added up."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.payments.decisions import backtest
from console.payments.files import IntakeRow
from domain.payment import Refusal
from domain.record_types import to_fields
from domain.risk.entity_fold import MAX_PACKS, EntityFold
from domain.risk.events import EntityFlagged, EntityPayment
from domain.risk.families.allowlist import Allowlist
from domain.risk.families.velocity import Velocity
from domain.risk.fold import ContentConflict, RiskFold
from domain.risk.history import MAX_PAYMENTS
from domain.risk.packs import RulePack
from tests.support.cases import kinds
from tests.support.entities import PACK, SHOP, activation, crowd, sent
from tests.support.payments import NOON, admitted, payment

MINUTE_MS = 60_000


def new_fold(pack: RulePack = PACK, **options: Any) -> EntityFold:
    fold = EntityFold(1, **options)
    fold.activate(activation(pack))
    return fold


def flags(raws: Iterable[dict[str, Any]], pack: RulePack = PACK) -> list[EntityFlagged]:
    fold, found = new_fold(pack), []
    for offset, record in enumerate(sent(raws, pack)):
        outputs = fold.step(record, offset)
        assert not isinstance(outputs, Refusal), outputs
        found += outputs
    return found


def test_payment_is_sent_to_each_entity_that_has_rules() -> None:
    records = sent([payment("a", terminal_id="till-1", device_id="phone"), payment("b", event_time=NOON + 1)])
    assert [(record.entity, record.transaction_id) for record in records] == [
        ("merchant:bakery", "a"),
        ("terminal:till-1", "a"),
        ("merchant:bakery", "b"),
    ]
    first = records[0]
    assert (first.partition, first.offset, first.pack_id, first.is_allowed) == (2, 0, PACK.pack_id, False)
    assert first.content_digest == admitted(payment("a", terminal_id="till-1", device_id="phone")).digest


def test_duplicate_is_not_sent_again_but_other_content_is() -> None:
    records = sent([payment("a"), payment("a"), payment("a", amount_minor=7)])
    assert [record.amount_minor for record in records] == [1_000, 7]


def test_pack_without_entity_rules_sends_nothing() -> None:
    by_account = replace(SHOP, by="account")
    assert sent([payment("a", terminal_id="t")], replace(PACK, rules=(by_account,))) == []


def test_payments_of_many_accounts_at_one_merchant_add_up() -> None:
    (flag,) = flags(crowd([0, 1, MINUTE_MS]))
    assert to_fields(flag) == {
        "account_id": "acct-2",
        "flag_id": flag.flag_id,
        "entity": "merchant:bakery",
        "transaction_id": "tx-2",
        "content_digest": flag.content_digest,
        "event_time": NOON + MINUTE_MS,
        "amount_minor": 1_000,
        "currency": "EUR",
        "merchant_id": "bakery",
        "terminal_id": None,
        "device_id": None,
        "card_id": "card-1",
        "typology": "shop_attack",
        "score": 500,
        "reasons": [
            {
                "rule": "shop", "measure": "payments", "value": 3, "threshold": 3, "points": 500,
                "contributing": ["tx-0", "tx-1", "tx-2"], "severity": "high", "reason_code": "M1",
            }
        ],
        "pack_id": PACK.pack_id,
        "partition": 1,
        "offset": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raws", "flagged"),
    [
        pytest.param(crowd([0, 1, MINUTE_MS + 1]), [], id="a millisecond past the window is outside"),
        pytest.param(crowd([0, 1, 2, 3]), ["tx-2", "tx-3"], id="every further payment is flagged too"),
        pytest.param(crowd([5, 5, 5]), ["tx-2"], id="payments of one time count in the order of ids"),
        pytest.param(crowd([10, 0, 1]), [], id="later payments do not count for earlier ones"),
        pytest.param(crowd([0, 10, 5, 11]), ["tx-3"], id="a late payment counts from then on"),
        pytest.param([*crowd([0, 1]), payment("x", merchant_id="butcher", event_time=NOON + 2)], [], id="elsewhere"),
        pytest.param(
            crowd([0, 1], terminal_id="t", amount_minor=2_500), ["tx-1"], id="a sum reaches its threshold"
        ),
        pytest.param(crowd([0, 1], terminal_id="t", amount_minor=2_499), [], id="a sum a cent below its threshold"),
        pytest.param(
            [*crowd([0], terminal_id="t", amount_minor=2_500),
             payment("x", terminal_id="t", amount_minor=2_500, currency="USD", event_time=NOON + 1)],
            [],
            id="two currencies do not add up",
        ),
    ],
)  # fmt: skip
def test_windows(raws: list[dict[str, Any]], flagged: list[str]) -> None:
    assert [flag.transaction_id for flag in flags(raws)] == flagged


def test_score_below_the_threshold_of_the_pack_is_not_flagged() -> None:
    assert flags(crowd([0, 1, 2]), replace(PACK, flag_at=501)) == []
    assert len(flags(crowd([0, 1, 2]), replace(PACK, flag_at=500))) == 1


def test_guard_and_points_expressions_read_the_payment() -> None:
    guarded = replace(SHOP, when="amount_minor > 1000", points="if(amount_minor > 2000, 900, 300)")
    pack = replace(PACK, rules=(guarded,))
    raws = [
        *crowd([0, 1]),
        payment("small", event_time=NOON + 2, account_id="c"),
        payment("more", event_time=NOON + 3, account_id="d", amount_minor=1_001),
        payment("most", event_time=NOON + 4, account_id="e", amount_minor=2_001),
    ]
    assert [(flag.transaction_id, flag.score) for flag in flags(raws, pack)] == [("more", 300), ("most", 900)]


def test_allowlisted_payment_counts_and_is_not_flagged() -> None:
    allow = Allowlist(name="staff", typology="none", points=0, field="account", list="staff")
    pack = RulePack(name="entities", version=1, rules=(SHOP, allow), lists={"staff": ("acct-2",)})
    assert [flag.transaction_id for flag in flags(crowd([0, 1, 2, 3]), pack)] == ["tx-3"]


def test_redelivery_adds_nothing() -> None:
    records = sent(crowd([0, 1, 2, 3]))
    fold = new_fold()
    once = [fold.step(record, offset) for offset, record in enumerate(records)]
    assert [len(flagged) for flagged in once] == [0, 0, 1, 1]
    assert [fold.step(record, 10 + offset) for offset, record in enumerate(records)] == [[]] * 4
    after = sent([*crowd([0, 1, 2, 3]), payment("new", event_time=NOON + MINUTE_MS + 2)])[-1]
    (flag,) = [flag for flag in fold.step(after, 20) if isinstance(flag, EntityFlagged)]
    assert flag.reasons[0].value == 3


def test_the_history_of_an_entity_is_bounded_and_still_exact_for_counts() -> None:
    raws = (payment(f"tx-{n:05}", account_id=f"a{n}", event_time=NOON + n) for n in range(MAX_PAYMENTS + 100))
    records, fold = sent(raws), new_fold()
    for offset, record in enumerate(records):
        fold.step(record, offset)
    assert len(fold._histories.loaded["merchant:bakery"].payments) < MAX_PAYMENTS + 32
    assert fold.step(records[0], 9_999) == []  # evicted long ago, and redelivered


def test_entity_decides_by_the_pack_that_decided_in_the_account() -> None:
    """Two partitions of payments read an activation at different times: each payment names the pack that decided it."""
    strict = replace(PACK, version=2, rules=(replace(SHOP, at_least=2),))
    fold = new_fold()
    fold.activate(activation(strict))
    by_old, by_new = sent(crowd([0, 1, 2])), sent(crowd([0, 1, 2]), strict)
    assert fold.step(by_old[0], 0) == []
    assert fold.step(by_old[1], 1) == []
    assert kinds(fold.step(by_new[2], 2)) == ["EntityFlagged"]  # type: ignore[arg-type]


def test_payment_of_a_pack_never_activated_here_is_quarantined() -> None:
    fold = EntityFold(0)
    refusal = fold.step(sent([payment("a")])[0], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "unknown_pack"
    fold.activate(activation(PACK, mode="shadow"))
    assert isinstance(fold.step(sent([payment("a")])[0], 0), Refusal)


def test_number_of_known_packs_is_bounded() -> None:
    fold = new_fold()
    fold.activate(activation(PACK))
    for version in range(2, MAX_PACKS + 2):
        fold.activate(activation(replace(PACK, version=version)))
    assert isinstance(fold.step(sent([payment("a")])[0], 0), Refusal)
    fold.activate(activation(PACK))
    assert fold.step(sent([payment("a")])[0], 0) == []


def test_read_refuses_unknown_and_malformed_records() -> None:
    fold = new_fold()
    for name, data, reason in (
        ("Transaction", {}, "unexpected_type"),
        ("EntityPayment", {"entity": "merchant:x"}, "bad_fields"),
        ("RulesActivated", {"pack_id": "x", "pack": "{}", "activated_by": "x"}, "bad_rule_pack"),
    ):
        refusal = fold.read(name, data, 0)
        assert isinstance(refusal, Refusal)
        assert refusal.reason == reason
    record = sent([payment("a")])[0]
    assert fold.read("EntityPayment", to_fields(record), 0) == []


PAYMENTS = st.builds(
    lambda number, account, merchant, terminal, at, amount, currency: payment(
        f"tx-{number}", account_id=account, merchant_id=merchant, terminal_id=terminal,
        event_time=NOON + at * 10_000, amount_minor=amount, currency=currency,
    ),
    number=st.integers(0, 12),
    account=st.sampled_from(["a", "b"]),
    merchant=st.sampled_from(["bakery", "butcher"]),
    terminal=st.sampled_from([None, "t1", "t2"]),
    at=st.integers(0, 14),
    amount=st.integers(1, 4) .map(lambda thousands: thousands * 1_000),
    currency=st.sampled_from(["EUR", "EUR", "EUR", "USD"]),
)  # fmt: skip


def naive_count_and_sum(arrived: list[EntityPayment]) -> tuple[int, int]:
    """Return number and sum of the entity's payments in the minute before the last one, itself included."""
    last = arrived[-1]

    def place(record: EntityPayment) -> tuple[int, str, bytes]:
        return record.event_time, record.transaction_id, record.content_digest

    near = [
        record
        for record in arrived
        if record.entity == last.entity
        and last.event_time - MINUTE_MS <= record.event_time
        and place(record) <= place(last)
    ]
    return len(near), sum(record.amount_minor for record in near if record.currency == last.currency)


@settings(max_examples=150, deadline=None)
@given(
    raws=st.lists(PAYMENTS, max_size=40),
    again=st.lists(st.integers(0, 10**6), max_size=8),
    batches=st.integers(1, 7),
)
def test_the_fold_equals_a_naive_count_hot_or_cold(raws: list[dict[str, Any]], again: list[int], batches: int) -> None:
    """Payments in any order, redelivered anywhere, with the state packed and read back between any batches."""
    records = sent(raws)
    delivered = list(records)
    for position in again:
        if records:
            first = position % len(records)
            at = next(index for index in range(len(delivered)) if delivered[index] is records[first])
            delivered.insert(at + 1 + position % (len(delivered) - at), records[first])
    store: dict[str, bytes] = {}
    fold = new_fold(load=store.get, hot_entities=1)
    arrived: list[EntityPayment] = []
    for offset, record in enumerate(delivered):
        flagged = fold.step(record, offset)
        assert isinstance(flagged, list)
        if record in arrived:
            assert flagged == []
        else:
            arrived.append(record)
            count, total = naive_count_and_sum(arrived)
            is_shop = record.entity.startswith("merchant:")
            expected = [count] if is_shop and count >= 3 else [total] if not is_shop and total >= 5_000 else []
            assert [reason.value for flag in flagged for reason in flag.reasons] == expected
        if offset % batches == 0:
            for key, entry in fold.take_writes().items():
                if entry is None:
                    store.pop(key, None)
                else:
                    store[key] = entry
            if offset % (2 * batches) == 0:
                fold = EntityFold(1, store.get, hot_entities=1)


def test_backtest_of_a_file_applies_entity_rules() -> None:
    pack = replace(
        PACK, rules=(SHOP, Velocity(name="own", typology="own", points=400, window_ms=MINUTE_MS, at_least=2))
    )
    raws = [*crowd([0, 1]), payment("first", event_time=NOON + 2), payment("second", event_time=NOON + 3)]
    lines = list(backtest([IntakeRow({**raw, "attributes": {}}, None) for raw in raws], pack))
    assert [(line["score"], line["rules"], line["first_rules"]) for line in lines] == [
        (0, [], []),
        (0, [], []),
        (500, ["shop"], ["shop"]),
        (800, ["own", "shop"], ["own", "shop"]),  # 666 points at four of three, and 400: 1000 - 600 * 334 / 1000
    ]
    assert lines[3]["reasons"] == ["own: 2 payments, from 2", "shop: 4 payments, from 3"]


def test_entity_rules_do_not_change_conflicts_and_flags_of_the_account() -> None:
    """The account's fold ignores rules by entity."""
    fold = RiskFold(0)
    fold.activate(activation(PACK))
    outputs = [fold.step(admitted(raw), offset) for offset, raw in enumerate(crowd([0, 1, 2]))]
    names = [[type(output).__name__ for output in each if not isinstance(output, ContentConflict)] for each in outputs]
    assert names == [["RiskScored", "EntityPayment"]] * 3
