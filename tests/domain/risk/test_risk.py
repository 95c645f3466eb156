"""The risk fold: each rule at its threshold, late payments against a naive oracle, and state that is packed and
restored.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.payment import Refusal
from domain.reason import Reason
from domain.record_types import to_fields
from domain.risk.default_packs import DEFAULT, THREE
from domain.risk.events import RiskFlagged, RiskRestated, RiskScored, RulesActivated
from domain.risk.fold import MAX_SHADOWS, ContentConflict, RiskFold
from domain.risk.history import CHUNK, NOTHING, Decision, History
from domain.risk.labels import FraudLabel, LabelIndex, specs_by_key
from domain.risk.packs import BadRulePack, RulePack
from tests.support.oracle import Meaning, Past, Standing, standing
from tests.support.payments import (
    BERLIN,
    COMMON,
    DAY_MS,
    HOUR_MS,
    LISBON,
    MINUTE_MS,
    NOON,
    RISKY,
    STEADY,
    activated,
    admitted,
    label,
    new_fold,
    pack_of,
    payment,
    rules_of,
)


def burst(times: list[int], **changed: Any) -> list[dict[str, Any]]:
    return [payment(f"tx-{number}", event_time=NOON + at, **changed) for number, at in enumerate(times)]


@pytest.mark.parametrize(
    ("payments", "flagged"),
    [
        pytest.param(burst([0, 1, 2, 60_000]), {}, id="four in a minute are no burst"),
        pytest.param(burst([0, 1, 2, 3, 60_000]), {"tx-4": ("velocity",)}, id="the window is closed at both ends"),
        pytest.param(burst([0, 1, 2, 3, 60_001]), {}, id="a millisecond past the window is outside"),
        pytest.param(burst([5, 5, 5, 5, 5]), {"tx-4": ("velocity",)}, id="equal times count in the order of ids"),
        pytest.param(
            [*burst([0, 1, 2, 3]), payment("other", account_id="acct-bob", event_time=NOON + 4)],
            {},
            id="another account's payment does not count",
        ),
        pytest.param(
            [*STEADY, payment("big", event_time=NOON + 7 * DAY_MS, amount_minor=12_002)],
            {"big": ("amount_spike",)},
            id="three times a steady mean is a spike",
        ),
        pytest.param(
            [*STEADY, payment("big", event_time=NOON + 7 * DAY_MS, amount_minor=12_001)],
            {},
            id="a cent less is no spike",
        ),
        pytest.param(
            [*STEADY[:4], payment("big", event_time=NOON + 7 * DAY_MS, amount_minor=90_000)],
            {},
            id="four payments are too little history",
        ),
        pytest.param(
            [payment("here", **BERLIN), payment("there", event_time=NOON + 9_000_000, **LISBON)],
            {"there": ("impossible_travel",)},
            id="Berlin to Lisbon in two and a half hours is impossible",
        ),
        pytest.param(
            [payment("here", **BERLIN), payment("there", event_time=NOON + 9_400_000, **LISBON)],
            {},
            id="Berlin to Lisbon in 2 h 37 min is possible",
        ),
        pytest.param(
            [payment("here", **BERLIN), payment("there", card_id="card-2", event_time=NOON + 1, **LISBON)],
            {},
            id="two cards of an account may be far apart",
        ),
        pytest.param(
            [payment("here", **BERLIN), payment("there", channel="ECOM", event_time=NOON + 1, **LISBON)],
            {},
            id="a remote payment is no journey",
        ),
    ],
)
def test_rule_fires_at_its_threshold(payments: list[dict[str, Any]], flagged: dict[str, tuple[str, ...]]) -> None:
    assert rules_of(payments) == flagged


def test_flag_gives_its_reasons() -> None:
    fold = new_fold()
    outputs = [fold.step(admitted(raw), offset) for offset, raw in enumerate(burst([0, 10, 20, 30, 40, 50]))]
    (flag,) = [output for output in outputs[5] if isinstance(output, RiskFlagged)]
    (reason,) = flag.reasons
    assert (reason.value, reason.threshold, reason.contributing) == (6, 5, tuple(f"tx-{n}" for n in range(6)))
    assert flag.sequence == 2
    assert (flag.score, reason.points) == (720, 720)  # 600 points at the threshold, 6/5 of them above it


def test_late_payment_restates_only_the_decisions_that_it_changes() -> None:
    fold = new_fold()
    for offset, raw in enumerate(burst([0, 10, 20, 40_000, 200_000])):
        fold.step(admitted(raw), offset)
    outputs = fold.step(admitted(payment("late", event_time=NOON + 15)), 5)
    assert [type(output) for output in outputs] == [RiskScored, RiskRestated]
    restated = outputs[1]
    assert isinstance(restated, RiskRestated)
    assert (restated.transaction_id, restated.rules_before, restated.score_before) == ("tx-3", (), 0)
    assert [reason.rule for reason in restated.reasons] == ["velocity"]
    assert restated.cause_transaction_id == "late"


def test_late_payment_can_withdraw_a_flag() -> None:
    fold = new_fold()
    steady = [*STEADY, payment("big", event_time=NOON + 7 * DAY_MS, amount_minor=12_002)]
    for offset, raw in enumerate(steady):
        fold.step(admitted(raw), offset)
    outputs = fold.step(admitted(payment("late", event_time=NOON + 6 * DAY_MS, amount_minor=9_000)), 7)
    restated = outputs[-1]
    assert isinstance(restated, RiskRestated)
    assert (restated.rules_before, restated.reasons, restated.score) == (("amount_spike",), (), 0)
    assert fold.decision(admitted(steady[-1])).rules == ()


def test_duplicate_adds_nothing_and_other_content_is_decided_and_reported() -> None:
    fold = new_fold()
    fold.step(admitted(payment("tx")), 0)
    assert [type(output).__name__ for output in fold.step(admitted(payment("tx")), 1)] == ["DuplicateSeen"]
    outputs = fold.step(admitted(payment("tx", amount_minor=5)), 2)
    assert [type(output) for output in outputs] == [RiskScored, ContentConflict]


def test_payment_older_than_the_horizon_is_refused() -> None:
    fold = new_fold()
    fold.step(admitted(payment("now")), 0)
    at_the_edge = admitted(payment("edge", event_time=NOON - 35 * DAY_MS))
    past_it = admitted(payment("past", event_time=NOON - 35 * DAY_MS - 1))
    assert isinstance(fold.step(at_the_edge, 1), list)
    refusal = fold.step(past_it, 2)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "beyond_horizon"


def test_without_rules_nothing_is_decided() -> None:
    refusal = RiskFold(0).step(admitted(payment("tx")), 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "no_rules_active"


def test_score_below_the_threshold_is_kept_and_flags_nothing() -> None:
    weak = {"family": "new_device", "lookback_ms": DAY_MS, "minimum_history": 1, "points": 300}
    strange = {"family": "new_country", "lookback_ms": DAY_MS, "minimum_history": 1, "points": 300}
    fold = new_fold(pack_of(weak, strange, flag_at=500))
    fold.step(admitted(payment("home", device_id="phone", country="DE")), 0)
    outputs = fold.step(admitted(payment("new", event_time=NOON + 1, device_id="tablet", country="DE")), 1)
    assert isinstance(outputs, list)
    (scored,) = outputs
    assert isinstance(scored, RiskScored)
    assert (scored.score, scored.rules) == (300, [])
    outputs = fold.step(admitted(payment("both", event_time=NOON + 2, device_id="watch", country="PT")), 2)
    assert isinstance(outputs, list)
    scored, flag = outputs
    assert isinstance(flag, RiskFlagged)
    assert flag.score == 300 + 300 - 90  # joined as if they were independent probabilities
    assert [reason.rule for reason in flag.reasons] == ["new_device", "new_country"]
    assert fold.decision(admitted(payment("home", device_id="phone", country="DE"))).score == 0


def test_score_at_the_threshold_flags() -> None:
    rule = {"family": "velocity", "window_ms": 1_000, "at_least": 1, "points": 500}
    tx = admitted(payment("tx"))
    for flag_at, rules in ((500, ("velocity",)), (501, ())):
        fold = new_fold(pack_of(rule, flag_at=flag_at))
        fold.step(tx, 0)
        assert (fold.decision(tx).score, fold.decision(tx).rules) == (500, rules)


def test_reason_has_severity_and_code_of_its_rule() -> None:
    rule = {"family": "velocity", "window_ms": 1_000, "at_least": 1, "severity": "critical", "reason_code": "V1"}
    outputs = new_fold(pack_of(rule)).step(admitted(payment("tx")), 0)
    assert isinstance(outputs, list)
    flag = outputs[1]
    assert isinstance(flag, RiskFlagged)
    assert [(reason.severity, reason.reason_code) for reason in flag.reasons] == [("critical", "V1")]


# -- labels ---------------------------------------------------------------------------------------------


def confirm(fold: RiskFold, *labels: dict[str, Any]) -> None:
    for each in labels:
        assert fold.read("FraudConfirmed", each, 0, None) == []


@pytest.mark.parametrize(
    ("labels", "at", "value"),
    [
        pytest.param([label("x")], 1, 1, id="a fraud at the merchant raises its risk"),
        pytest.param([label("x")], 10 * DAY_MS, 1, id="a fraud at the end of the window counts"),
        pytest.param([label("x")], 10 * DAY_MS + 1, None, id="a fraud after the window does not count"),
        pytest.param([label("x")], -1, None, id="a payment before that fraud is not suspect"),
        pytest.param([label("x"), label("x")], 1, 1, id="the same label again adds nothing"),
        pytest.param([label("x"), label("y")], 1, 2, id="two frauds count twice"),
        pytest.param([label("x", merchant_id="baker")], 1, None, id="another merchant's frauds do not count"),
    ],
)
def test_confirmed_fraud_raises_later_risk(labels: list[dict[str, Any]], at: int, value: int | None) -> None:
    fold = new_fold(RISKY)
    confirm(fold, *labels)
    tx = admitted(payment("tx", merchant_id="butcher", event_time=NOON + at))
    fold.step(tx, 0)
    assert [reason.value for reason in fold.decision(tx).reasons] == ([] if value is None else [value])


@pytest.mark.parametrize(
    ("robbed", "fires", "lacking"),
    [
        pytest.param("aaa", False, "of 1 accounts, 2 are needed", id="three frauds of one account"),
        pytest.param("aab", True, "", id="three frauds of two accounts"),
        pytest.param("ab", False, "", id="two frauds of two accounts"),
    ],
)
def test_frauds_of_several_accounts_raise_the_risk_of_their_merchant(robbed: str, fires: bool, lacking: str) -> None:
    fold = new_fold(pack_of(COMMON))
    confirm(fold, *(label(f"x-{number}", account_id=account) for number, account in enumerate(robbed)))
    tx = admitted(payment("tx", merchant_id="butcher", event_time=NOON + 1))
    fold.step(tx, 0)
    assert bool(fold.decision(tx).reasons) is fires
    (finding,) = fold.findings(tx)
    assert (finding.measured.value, finding.measured.lacking) == (len(robbed), lacking)


ELSEWHERE = {"merchant_id": "baker"}


@pytest.mark.parametrize(
    ("labels", "value"),
    [
        pytest.param(
            [label("x", account_id="a"), label("y", account_id="b")],
            2,
            id="two accounts with a fraud at this merchant only",
        ),
        pytest.param(
            [label("x"), label("y", **ELSEWHERE)], None, id="one account with a fraud at another merchant too"
        ),
        pytest.param(
            [label("x"), label("y", account_id="b"), label("z", **ELSEWHERE)], 1, id="one of each says it once"
        ),
        pytest.param(
            [label("x"), label("y", **ELSEWHERE, event_time=NOON - 10 * DAY_MS)],
            1,
            id="a fraud at another merchant, but long ago",
        ),
    ],
)
def test_frauds_of_accounts_without_a_fraud_elsewhere(labels: list[dict[str, Any]], value: int | None) -> None:
    fold = new_fold(pack_of({"family": "expression", "value": 'confirmed_only_here(merchant, "10d")'}))
    confirm(fold, *labels)
    tx = admitted(payment("tx", merchant_id="butcher", event_time=NOON + 1))
    fold.step(tx, 0)
    assert [reason.value for reason in fold.decision(tx).reasons] == ([] if value is None else [value])


def test_accounts_are_counted_up_to_twenty() -> None:
    fold = new_fold(pack_of({"family": "expression", "value": 'confirmed_accounts(merchant, "1d")', "at_least": 20}))
    confirm(fold, *(label(f"x-{number}", account_id=f"a-{number}") for number in range(30)))
    tx = admitted(payment("tx", merchant_id="butcher", event_time=NOON + 1))
    fold.step(tx, 0)
    assert [reason.value for reason in fold.decision(tx).reasons] == [20]


def test_label_changes_no_earlier_decision() -> None:
    """Nor when a late payment causes the decision to be taken again: the labels known at arrival are kept with the
    payment.
    """
    velocity = {"family": "velocity", "window_ms": HOUR_MS, "at_least": 2}
    risk = {"family": "entity_risk", "by": "merchant", "window_ms": 10 * DAY_MS, "at_least": 1}
    fold = new_fold(pack_of(velocity, risk))
    before, after, late = (
        admitted(payment(name, merchant_id="butcher", event_time=NOON + at))
        for name, at in (("before", 1_000), ("after", 2_000), ("late", 500))
    )
    fold.step(before, 0)
    confirm(fold, label("x"))
    fold.step(after, 1)
    assert (fold.decision(before).rules, fold.decision(after).rules) == ((), ("velocity", "entity_risk"))
    outputs = fold.step(late, 2)
    assert isinstance(outputs, list)
    assert [type(output) for output in outputs] == [RiskScored, RiskFlagged, RiskRestated, RiskRestated]
    assert fold.decision(before).rules == ("velocity",)


def test_a_label_of_the_future_is_refused() -> None:
    refusal = new_fold(RISKY).read("FraudConfirmed", label("x"), 0, NOON - 5 * MINUTE_MS - 1)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "future_dated"


def test_malformed_label_is_refused() -> None:
    refusal = new_fold(RISKY).read("FraudConfirmed", {"label_id": "x"}, 0, None)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "bad_fields"


# -- shadow packs ---------------------------------------------------------------------------------

STRICT = pack_of({"family": "velocity", "window_ms": MINUTE_MS, "at_least": 2}, name="strict")


def test_shadow_pack_is_only_recorded() -> None:
    fold = new_fold()
    fold.activate(activated(STRICT, "shadow"))
    fold.step(admitted(payment("tx-1")), 0)
    outputs = fold.step(admitted(payment("tx-2", event_time=NOON + 1)), 1)
    assert isinstance(outputs, list)
    (scored,) = outputs
    assert isinstance(scored, RiskScored)
    assert (scored.score, scored.rules) == (0, [])
    assert scored.shadow == [{"pack_id": STRICT.pack_id, "score": 500, "rules": ["velocity"]}]
    fold.activate(activated(STRICT, "retired-shadow"))
    outputs = fold.step(admitted(payment("tx-3", event_time=NOON + 2)), 2)
    assert isinstance(outputs, list)
    assert isinstance(outputs[0], RiskScored)
    assert outputs[0].shadow == []


def test_pack_that_becomes_active_is_no_shadow() -> None:
    fold = new_fold()
    fold.activate(activated(STRICT, "shadow"))
    fold.activate(activated(STRICT))
    outputs = fold.step(admitted(payment("tx-1")), 0)
    assert isinstance(outputs, list)
    assert isinstance(outputs[0], RiskScored)
    assert (outputs[0].pack_id, outputs[0].shadow) == (STRICT.pack_id, [])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (activated(STRICT, "sideways"), "mode 'sideways' is none of active, shadow, retired-shadow"),
        (RulesActivated(pack_id="other", pack=STRICT.canonical, activated_by="eve"), "the record says 'other'"),
    ],
)
def test_malformed_activation_is_refused(record: RulesActivated, message: str) -> None:
    fold = new_fold()
    refusal = fold.read("RulesActivated", to_fields(record), 0, None)
    assert isinstance(refusal, Refusal)
    assert message in refusal.detail


def test_number_of_shadow_packs_is_bounded() -> None:
    fold = new_fold()
    for number in range(MAX_SHADOWS):
        fold.activate(activated(pack_of(name=f"shadow-{number}"), "shadow"))
    with pytest.raises(BadRulePack, match=" packs look on already: retire one first"):
        fold.activate(activated(STRICT, "shadow"))


def test_packed_packs_and_labels_are_restored() -> None:
    store: dict[str, bytes] = {}
    fold = RiskFold(0, store.get, hot_accounts=0)
    for pack, mode in ((THREE, "active"), (RISKY, "active"), (STRICT, "shadow")):
        fold.activate(activated(pack, mode))
    confirm(fold, *(label(f"x-{number}") for number in range(300)))
    _save(fold, store)
    restored = RiskFold(0, store.get, hot_accounts=0)
    tx = admitted(payment("tx", merchant_id="butcher", event_time=NOON + 1))
    outputs = fold.step(tx, 0)
    assert outputs == restored.step(tx, 0)
    assert fold.decision(tx).reasons[0].value == 300


def test_labels_are_bounded_in_count_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages that were read first are evicted, and restored state decides like state that stayed in memory."""
    monkeypatch.setattr("domain.risk.labels.MAX_LABELS", 300)
    store: dict[str, bytes] = {}
    labels = LabelIndex(store.get)
    spec = ("merchant", 35 * DAY_MS)

    def known_of(merchant: str, at: int) -> list[int]:
        tx = admitted(payment("tx", merchant_id=merchant, event_time=at))
        facts = [each.facts(tx, specs_by_key([spec])) or {} for each in (labels, LabelIndex(store.get))]
        return [found[spec].number if spec in found else 0 for found in facts]

    def save() -> None:
        for key, value in labels.take_writes().items():
            store.pop(key, None)
            if value is not None:
                store[key] = value

    for number in range(700):
        merchant = "early" if number < 100 else "late"
        labels.add(FraudLabel(f"label-{number}", f"tx-{number}", NOON + number, merchant, None, None, None, "acct-eve"))
    save()
    assert known_of("early", NOON + 700) == [0, 0]
    assert 300 - 128 < len(labels.known) <= 300
    assert known_of("late", NOON + 700) == [len(labels.known)] * 2
    labels.add(FraudLabel("much-later", "tx", NOON + 71 * DAY_MS, "later", None, None, None, "acct-eve"))
    labels.add(FraudLabel("and-later", "tx", NOON + 71 * DAY_MS, "later", None, None, None, "acct-eve"))
    save()
    assert known_of("later", NOON + 71 * DAY_MS) == [2, 2]
    assert len(labels.known) < 128 + 2  # only the page that was started earlier is left


# -- any order --------------------------------------------------------------------------------------------


def _floor_mean(amounts: list[int]) -> int:
    return sum(amounts) // len(amounts) if amounts else -1


def _floor_deviation(amounts: list[int]) -> int:
    if not amounts:
        return -1
    mean = Fraction(sum(amounts), len(amounts))
    variance = sum((amount - mean) ** 2 for amount in amounts) / len(amounts)
    return next(root for root in range(max(amounts) + 1) if (root + 1) ** 2 > variance)


def _amounts(past: Past, others: Iterable[Any]) -> list[int]:
    return [other["amount_minor"] for other in past.of_currency(others)]


def _moment(past: Past) -> datetime:
    return datetime.fromtimestamp(past.payment["event_time"] // 1000, UTC)


EXPRESSIONS: list[tuple[dict[str, Any], dict[str, Meaning]]] = [
    (
        {"name": "busy_device", "value": 'count(device, "1h")', "at_least": 2},
        {"busy_device": lambda past: len(past.of_key(past.within(HOUR_MS), "device"))},
    ),
    (
        {"name": "large", "when": "count(account, 4) >= 2", "value": "amount_minor - 2 * mean(account, 4)"},
        {
            "large": lambda past: past.payment["amount_minor"] - 2 * _floor_mean(_amounts(past, past.earlier[-4:])),
            "large.when": lambda past: len(past.earlier[-4:]) >= 2,
        },
    ),
    (
        {"name": "deviant", "value": "amount_minor - mean(card, 6) - 2 * deviation(card, 6)", "at_least": 50},
        {
            "deviant": lambda past: (
                past.payment["amount_minor"]
                - _floor_mean(_amounts(past, past.of_key(past.earlier[-6:], "card")))
                - 2 * _floor_deviation(_amounts(past, past.of_key(past.earlier[-6:], "card")))
            )
        },
    ),
    (
        {"name": "day", "value": 'sum(card, "1d")', "at_least": 5_000, "points": 'sum(card, "1d") // 20'},
        {
            "day": lambda past: sum(_amounts(past, past.of_key(past.within(DAY_MS), "card"))),
            "day.points": lambda past: sum(_amounts(past, past.of_key(past.within(DAY_MS), "card"))) // 20,
        },
    ),
    (
        {"name": "highest", "value": 'highest(merchant, "2d") > amount_minor'},
        {
            "highest": lambda past: (
                max(_amounts(past, past.of_key(past.within(2 * DAY_MS), "merchant"))) > past.payment["amount_minor"]
            )
        },
    ),
    (
        {"name": "hopping", "value": 'distinct(merchant, card, "1h")', "at_least": 2},
        {"hopping": lambda past: len({other["merchant_id"] for other in past.of_key(past.within(HOUR_MS), "card")})},
    ),
    (
        {
            "name": "tested",
            "value": "previous_amount_minor <= 100 and previous_amount_minor >= 0 and amount_minor > 999",
        },
        {
            "tested": lambda past: (
                past.payment["amount_minor"] > 999
                and [other["amount_minor"] <= 100 for other in past.earlier[-1:]] == [True]
            )
        },
    ),
    (
        {"name": "night", "value": "hour < 6 or weekday == 6", "points": 40},
        {"night": lambda past: _moment(past).hour < 6 or _moment(past).isoweekday() == 7},
    ),
    (
        {"name": "soon", "value": "since_previous_ms >= 0 and since_previous_ms < 60_000"},
        {
            "soon": lambda past: (
                [past.payment["event_time"] - other["event_time"] < MINUTE_MS for other in past.earlier[-1:]] == [True]
            )
        },
    ),
    (
        {"name": "known", "value": 'confirmed(card, "10d") + confirmed(merchant, "1h")'},
        {"known": lambda past: past.confirmed("card", 10 * DAY_MS) + past.confirmed("merchant", HOUR_MS)},
    ),
    (
        {"name": "common", "value": 'confirmed_accounts(merchant, "10d")', "at_least": 2},
        {"common": lambda past: past.confirmed_accounts("merchant", 10 * DAY_MS)},
    ),
    (
        {"name": "lonely", "value": 'confirmed_only_here(merchant, "10d")'},
        {"lonely": lambda past: past.confirmed_only_here("merchant", 10 * DAY_MS)},
    ),
]
"""Expressions, each with the same computation in Python."""
PLACES = st.sampled_from([{}, BERLIN, LISBON, {"latitude": 52.1, "longitude": 12.9}])
ACCOUNT_KEYS = st.sampled_from(["account", "card", "account_device", "account_merchant", "account_terminal"])
LABEL_KEYS = st.sampled_from(["merchant", "terminal", "device", "card", "account"])
AMOUNTS = st.sampled_from([1, 100, 1_000, 5_000])
WINDOWS = st.sampled_from([MINUTE_MS, HOUR_MS, DAY_MS, 10 * DAY_MS])
SMALL = st.integers(1, 4)
FAMILIES: list[dict[str, Any]] = [
    {"family": "velocity", "window_ms": WINDOWS, "at_least": st.integers(2, 5), "by": ACCOUNT_KEYS},
    {"family": "velocity", "window_ms": WINDOWS, "at_least": AMOUNTS, "by": ACCOUNT_KEYS, "measure": st.just("sum")},
    {
        "family": "amount_spike", "history": st.integers(3, 8), "minimum_history": st.integers(1, 3),
        "sigmas": st.integers(0, 3), "minimum_minor": AMOUNTS, "ratio_percent": st.sampled_from([0, 110, 300]),
    },
    {
        "family": "impossible_travel", "minimum_m": st.sampled_from([0, 50_000, 300_000]),
        "speed_kmh": st.sampled_from([1, 900]), "within_ms": WINDOWS,
    },
    {"family": "far_from_home", "minimum_m": st.sampled_from([1, 50_000]), "channels": st.sampled_from([[], ["POS"]])},
    {
        "family": "card_testing", "window_ms": WINDOWS, "at_least": st.integers(2, 3), "at_most_minor": AMOUNTS,
        "by": ACCOUNT_KEYS,
    },
    {"family": "new_device", "lookback_ms": WINDOWS, "minimum_history": SMALL},
    {"family": "new_country", "lookback_ms": WINDOWS, "minimum_history": SMALL},
    {
        "family": "entity_risk", "by": LABEL_KEYS, "window_ms": WINDOWS, "at_least": st.integers(1, 2),
        "minimum_accounts": st.integers(1, 2),
    },
    {
        "family": "account_emptying", "window_ms": st.sampled_from([MINUTE_MS, HOUR_MS]),
        "lookback_ms": st.sampled_from([HOUR_MS, DAY_MS, 10 * DAY_MS]), "minimum_history": SMALL,
        "minimum_minor": AMOUNTS, "ratio_percent": st.sampled_from([50, 150, 1_000]),
        "minimum_span_ms": st.sampled_from([0, 0, HOUR_MS]),
    },
    {
        "family": "unusual_hour", "history": st.integers(4, 8), "minimum_history": st.integers(1, 4),
        "radius_ms": st.sampled_from([MINUTE_MS, HOUR_MS]), "at_least_permille": st.sampled_from([500, 750, 1_000]),
    },
    {"family": "blocklist", "field": st.sampled_from(["merchant", "country"]), "list": st.just("named")},
]  # fmt: skip


@st.composite
def packs(draw: st.DrawFn) -> tuple[RulePack, dict[str, Meaning]]:
    """Draw rules of all families, with parameters at which some streams fire and some do not, and their expressions."""
    rules = []
    for number, family in enumerate(FAMILIES):
        if draw(st.booleans()):
            drawn = {
                key: draw(value) if isinstance(value, st.SearchStrategy) else value for key, value in family.items()
            }
            rules.append({"name": f"rule-{number}", "points": draw(st.sampled_from([150, 400, 700])), **drawn})
    meanings: dict[str, Meaning] = {}
    for rule, meaning in draw(
        st.lists(st.sampled_from(EXPRESSIONS), max_size=2, unique_by=lambda each: each[0]["name"])
    ):
        rules.append({"family": "expression", **rule})
        meanings |= meaning
    if draw(st.integers(0, 3)) == 0:
        rare = {"when": 'count(account, "1h") < 3'} if draw(st.booleans()) else {}
        rules.append({"family": "allowlist", "field": "device", "list": "trusted", "points": 0, **rare})
        if rare:
            meanings["allowlist.when"] = lambda past: len(past.within(HOUR_MS)) < 3
    rules = draw(st.permutations(rules))
    lists = {"named": ["baker", "PT"], "trusted": ["watch"]}
    return pack_of(*rules, lists=lists, flag_at=draw(st.sampled_from([1, 450]))), meanings


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw a few accounts with bursts, spikes and journeys, in any order, with duplicates and labels."""
    gap = st.sampled_from(
        [0, 1, 10_000, 30_000, MINUTE_MS, MINUTE_MS + 1, HOUR_MS, HOUR_MS + 1, DAY_MS, DAY_MS + 1, 8 * DAY_MS]
    )
    made: list[dict[str, Any]] = []
    for account in range(draw(st.integers(1, 2))):
        at = NOON
        for number in range(draw(st.integers(1, 14))):
            at = min(at + draw(gap), NOON + 34 * DAY_MS)  # all within the horizon
            raw = payment(
                f"tx-{number}",
                account_id=f"acct-{account}",
                event_time=at,
                amount_minor=draw(st.sampled_from([0, 100, 1_000, 1_100, 4_000, 12_000, 90_000])),
                currency=draw(st.sampled_from(["EUR", "EUR", "EUR", "EUR", "USD"])),
                card_id=draw(st.sampled_from(["card-1", "card-1", "card-2", None])),
                channel=draw(st.sampled_from(["POS", "ECOM"])),
                merchant_id=draw(st.sampled_from(["baker", "butcher"])),
                terminal_id=draw(st.sampled_from(["till", None])),
                device_id=draw(st.sampled_from(["phone", "tablet", "watch", None])),
                country=draw(st.sampled_from(["DE", "PT", None])),
            )
            home = {f"home_{key}": value for key, value in BERLIN.items()}
            made.append({**raw, **draw(PLACES), **draw(st.sampled_from([{}, home]))})
    doubled = made + draw(st.lists(st.sampled_from(made), max_size=5))
    log: list[dict[str, Any]] = list(draw(st.permutations(doubled)))
    for number in range(draw(st.integers(0, 4))):
        about = draw(st.sampled_from(made))
        fields = {key: about[key] for key in ("account_id", "merchant_id", "terminal_id", "device_id", "card_id")}
        at = about["event_time"] + draw(st.sampled_from([-DAY_MS, -1, 0, 1]))
        log.insert(draw(st.integers(0, len(log))), label(f"x-{number % 3}", **fields, event_time=at))
    return log


@pytest.mark.no_cover
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(packs(), logs(), st.integers(1, 7))
def test_final_decisions_do_not_depend_on_the_order_of_arrival(
    rules: tuple[RulePack, dict[str, Meaning]], log: list[dict[str, Any]], every: int
) -> None:
    """They equal the oracle's on the sorted stream, also when histories leave memory between batches."""
    pack, meanings = rules
    store: dict[str, bytes] = {}
    cold, warm = RiskFold(0, store.get, hot_accounts=0), RiskFold(0)
    cold.activate(activated(pack))
    warm.activate(activated(pack))
    said: dict[tuple[str, str, str], Standing] = {}
    for offset, record in enumerate(log):
        name = "FraudConfirmed" if "label_id" in record else "Transaction"
        outputs = warm.read(name, record, offset, None)
        assert outputs == cold.read(name, record, offset, None)
        assert isinstance(outputs, list)
        for output in outputs:
            if isinstance(output, RiskFlagged | RiskRestated):
                key = output.account_id, output.transaction_id, output.content_digest
                said[key] = Standing(output.score, tuple(reason.rule for reason in output.reasons))
        if offset % every == 0:
            _save(cold, store)
    expected = standing(log, {**json.loads(pack.canonical), "flag_at": pack.flag_at}, meanings)
    for number, found in expected.items():
        tx = admitted(log[number])
        decision = warm.decision(tx)
        assert (decision.score, decision.rules) == found, log[number]
        assert cold.decision(tx) == decision
        at_last = said.get((tx.account_id, tx.transaction_id, tx.digest.hex()), Standing(0, ()))
        assert at_last.rules == found.rules
        assert not found.rules or at_last.score == found.score
    assert len(said) <= len(expected)


MONTH = {"family": "velocity", "measure": "sum", "window_ms": 35 * DAY_MS, "at_least": 100_000, "points": 1}
FIFTY = {
    "family": "amount_spike", "history": 50, "minimum_history": 50, "sigmas": 0, "minimum_minor": 1, "ratio_percent": 1,
    "points": 1,
}  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "pack", [DEFAULT, pack_of(MONTH), pack_of(FIFTY)], ids=["the default pack", "a sum of 35 days", "a mean of 50"]
)
def test_pruned_payments_change_no_decision(pack: RulePack, seed: int) -> None:
    """Months of an account, some payments weeks late: histories are pruned, and the flags still equal the oracle's."""
    lots = Random(seed)
    arrivals: list[tuple[int, dict[str, Any]]] = []
    at = NOON
    for number in range(700):
        at += lots.choice([1, 20_000, HOUR_MS, 6 * HOUR_MS, 12 * HOUR_MS])
        raw = payment(
            f"tx-{number}",
            event_time=at,
            amount_minor=lots.choice([99, 400, 1_000, 20_000, 70_000, 400_000]),
            device_id=lots.choice(["phone"] * 9 + [f"new-{number}"]),
            country=lots.choice(["DE"] * 9 + ["PT", "ES"]),
            channel=lots.choice(["POS", "ECOM"]),
            merchant_id=lots.choice(["baker", "butcher", "kiosk", "florist", "tailor"]),
        )
        place = {**lots.choice([BERLIN, BERLIN, LISBON]), "home_latitude": 52.52, "home_longitude": 13.405}
        late_ms = lots.choice([0] * 8 + [HOUR_MS, 34 * DAY_MS])
        arrivals.append((at + late_ms, {**raw, **place}))
    log = [raw for _, raw in sorted(arrivals, key=lambda each: each[0])]
    fold = new_fold(pack)
    said: dict[str, Standing] = {}
    for offset, raw in enumerate(log):
        outputs = fold.step(admitted(raw), offset)
        assert isinstance(outputs, list)
        for output in outputs:
            if isinstance(output, RiskFlagged | RiskRestated):
                said[output.transaction_id] = Standing(output.score, tuple(reason.rule for reason in output.reasons))
    assert fold.decision(admitted(log[0])) == NOTHING  # the payment was pruned
    meanings: dict[str, Meaning] = {
        "small_then_large": lambda past: (
            past.payment["amount_minor"] > 50_000
            and [other["amount_minor"] < 100 for other in past.earlier[-1:]] == [True]
        ),
    }
    expected = standing(log, {**json.loads(pack.canonical), "flag_at": pack.flag_at}, meanings)
    flags = {log[number]["transaction_id"]: found for number, found in expected.items() if found.rules}
    assert len(flags) > 50
    assert {name: found for name, found in said.items() if found.rules} == flags


def _save(fold: RiskFold, store: dict[str, bytes]) -> None:
    for key, value in fold.take_writes().items():
        if value is None:
            store.pop(key, None)
        else:
            store[key] = value


def test_history_with_dataclass_reasons_is_read() -> None:
    """The head of a state entry, byte for byte as it was packed when reasons were dataclasses."""
    head = (
        b"\x80\x05\x95\x9d\x00\x00\x00\x00\x00\x00\x00(K\x07K\x14NK\x00]\x94}\x94K\x14\x8c\x04tx-2\x94C\x01d\x94\x87\x94"
        b"\x8c\x0edomain.history\x94\x8c\x08Decision\x94\x93\x94MX\x02\x8c\rdomain.reason\x94\x8c\x06Reason\x94\x93\x94)\x81"
        b"\x94]\x94(\x8c\x08velocity\x94\x8c\x08payments\x94K\x05K\x05MX\x02\x8c\x04tx-1\x94h\x02\x86\x94\x8c\x06medium\x94"
        b"\x8c\x00\x94eb\x85\x94\x86\x94\x81\x94st\x94."
    )
    history = History.read("anna", {"anna": head}.get)
    reason = Reason(
        rule="velocity", measure="payments", value=5, threshold=5, points=600, contributing=("tx-1", "tx-2")
    )  # fmt: skip
    assert history.standing == {(20, "tx-2", b"d"): Decision(600, (reason,))}
    assert (history.sequence, history.latest_ms) == (7, 20)
    again = History.read("anna", history.take_writes().get)
    assert again.standing == history.standing


def test_long_history_is_pruned_equally_in_memory_and_in_state() -> None:
    """Chunks leave the state, equal payments are refused, and no value that a decision needs is lost."""
    store: dict[str, bytes] = {}
    cold, warm = RiskFold(0, store.get, hot_accounts=0), RiskFold(0)
    cold.activate(activated(THREE))
    warm.activate(activated(THREE))
    largest = 0
    for number in range(3_000):
        raw = admitted(payment(f"tx-{number}", event_time=NOON + number * 3_600_000, amount_minor=1_000 + number % 7))
        assert warm.step(raw, number) == cold.step(raw, number)
        if number % 10 == 0:
            _save(cold, store)
            largest = max(largest, len(store))
    assert largest < (35 * 24 + 24 + 50) / CHUNK + 6  # the horizon, a day of look-back and 50 rows
    late = admitted(payment("late", event_time=NOON + 2_999 * 3_600_000 - 35 * DAY_MS))
    assert warm.step(late, 3_000) == cold.step(late, 3_000)


def test_number_of_payments_of_an_account_is_bounded() -> None:
    fold = new_fold()
    for number in range(2_100):
        fold.step(admitted(payment(f"tx-{number:04d}", event_time=NOON + number)), number)
    refusal = fold.step(admitted(payment("early", event_time=NOON)), 2_100)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "beyond_bound"
