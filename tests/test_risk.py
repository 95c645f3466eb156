"""The risk fold: each rule at its edge, late truth against a naive oracle, and state that survives being packed."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.events import RiskFlagged, RiskRestated, RiskScored, RulesActivated
from domain.payment import Payment, Refusal, admit
from domain.risk import Conflict, RiskFold
from domain.rules import THREE
from tests.oracle import standing_flags

ACTIVATED = RulesActivated(pack_id=THREE.pack_id, pack=THREE.canonical, activated_by="test")
NOON = 1_750_000_000_000
DAY_MS = 86_400_000


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


def new_fold(**options: Any) -> RiskFold:
    fold = RiskFold(0, **options)
    fold.activate(ACTIVATED)
    return fold


def rules_of(raws: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """What stands for each payment once all of them are in."""
    fold = new_fold()
    payments = [admitted(raw) for raw in raws]
    for offset, each in enumerate(payments):
        fold.step(each, offset)
    return {each.transaction_id: fold.decision(each).rules for each in payments if fold.decision(each).rules}


def burst(times: list[int], **changed: Any) -> list[dict[str, Any]]:
    return [payment(f"tx-{number}", event_time=NOON + at, **changed) for number, at in enumerate(times)]


STEADY = [payment(f"old-{day}", event_time=NOON + day * DAY_MS, amount_minor=4_000 + day % 2) for day in range(6)]
BERLIN = {"latitude": 52.52, "longitude": 13.405}
LISBON = {"latitude": 38.722, "longitude": -9.139}  # 2,314 km from Berlin: 2 h 34 min at 900 km/h


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
            id="a cent less is none",
        ),
        pytest.param(
            [*STEADY[:4], payment("big", event_time=NOON + 7 * DAY_MS, amount_minor=90_000)],
            {},
            id="four payments are no history",
        ),
        pytest.param(
            [payment("here", **BERLIN), payment("there", event_time=NOON + 9_000_000, **LISBON)],
            {"there": ("impossible_travel",)},
            id="Berlin to Lisbon in two and a half hours cannot be",
        ),
        pytest.param(
            [payment("here", **BERLIN), payment("there", event_time=NOON + 9_400_000, **LISBON)],
            {},
            id="in 2 h 37 min it can",
        ),
        pytest.param(
            [payment("here", **BERLIN), payment("there", card_id="card-2", event_time=NOON + 1, **LISBON)],
            {},
            id="two cards of an account may be apart",
        ),
        pytest.param(
            [payment("here", **BERLIN), payment("there", channel="ECOM", event_time=NOON + 1, **LISBON)],
            {},
            id="goods sent far away are no journey",
        ),
    ],
)
def test_a_rule_fires_at_its_edge(payments: list[dict[str, Any]], flagged: dict[str, tuple[str, ...]]) -> None:
    assert rules_of(payments) == flagged


def test_a_flag_says_why() -> None:
    fold = new_fold()
    outputs = [fold.step(admitted(raw), offset) for offset, raw in enumerate(burst([0, 10, 20, 30, 40, 50]))]
    (flag,) = [output for output in outputs[5] if isinstance(output, RiskFlagged)]
    (reason,) = flag.reasons
    assert (reason.value, reason.threshold, reason.contributing) == (6, 5, tuple(f"tx-{n}" for n in range(6)))
    assert flag.sequence == 2
    assert (flag.score, reason.points) == (720, 720)  # 600 points at the threshold, 6/5 of them above it


def test_a_late_payment_restates_what_it_changes_and_only_that() -> None:
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


def test_a_late_payment_can_take_a_flag_back() -> None:
    fold = new_fold()
    steady = [*STEADY, payment("big", event_time=NOON + 7 * DAY_MS, amount_minor=12_002)]
    for offset, raw in enumerate(steady):
        fold.step(admitted(raw), offset)
    outputs = fold.step(admitted(payment("late", event_time=NOON + 6 * DAY_MS, amount_minor=9_000)), 7)
    restated = outputs[-1]
    assert isinstance(restated, RiskRestated)
    assert (restated.rules_before, restated.reasons, restated.score) == (("amount_spike",), (), 0)
    assert fold.decision(admitted(steady[-1])).rules == ()


def test_the_same_content_adds_nothing_and_other_content_is_decided_and_reported() -> None:
    fold = new_fold()
    fold.step(admitted(payment("tx")), 0)
    assert [type(output).__name__ for output in fold.step(admitted(payment("tx")), 1)] == ["DuplicateSeen"]
    outputs = fold.step(admitted(payment("tx", amount_minor=5)), 2)
    assert [type(output) for output in outputs] == [RiskScored, Conflict]


def test_past_the_horizon_is_refused() -> None:
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


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few accounts with bursts, spikes and journeys, in any order, with duplicates."""
    place = st.sampled_from([{}, BERLIN, LISBON, {"latitude": 52.1, "longitude": 12.9}])
    gap = st.sampled_from([0, 1, 10_000, 30_000, 60_000, 60_001, 3_600_000, DAY_MS, DAY_MS + 1])
    amount = st.sampled_from([0, 100, 1_000, 1_100, 4_000, 12_000, 90_000])
    raws: list[dict[str, Any]] = []
    for account in range(draw(st.integers(1, 2))):
        at = NOON
        for number in range(draw(st.integers(1, 25))):
            at += draw(gap)
            raw = payment(
                f"tx-{number}",
                account_id=f"acct-{account}",
                event_time=at,
                amount_minor=draw(amount),
                card_id=draw(st.sampled_from(["card-1", "card-2", None])),
                channel=draw(st.sampled_from(["POS", "ECOM"])),
            )
            raws.append({**raw, **draw(place)})
    doubled = raws + draw(st.lists(st.sampled_from(raws), max_size=5))
    return draw(st.permutations(doubled))


@settings(max_examples=300, deadline=None)
@given(streams(), st.integers(1, 7))
def test_once_all_is_in_the_order_of_arrival_no_longer_matters(raws: list[dict[str, Any]], every: int) -> None:
    """Standing flags equal those of the sorted stream by the oracle, also when histories go cold between batches."""
    store: dict[str, bytes] = {}
    cold, warm = RiskFold(0, store.get, hot_accounts=0), RiskFold(0)
    cold.activate(ACTIVATED)
    warm.activate(ACTIVATED)
    said: dict[tuple[str, str, int, int], set[str]] = {}
    for offset, raw in enumerate(raws):
        outputs = warm.step(admitted(raw), offset)
        assert outputs == cold.step(admitted(raw), offset)
        assert isinstance(outputs, list)
        for output in outputs:
            if isinstance(output, RiskFlagged | RiskRestated):
                key = (output.account_id, output.transaction_id, output.event_time, output.amount_minor)
                said[key] = {reason.rule for reason in output.reasons}
        if offset % every == 0:
            _save(cold, store)
    assert {key: rules for key, rules in said.items() if rules} == standing_flags(raws)


def _save(fold: RiskFold, store: dict[str, bytes]) -> None:
    for key, value in fold.take_writes().items():
        if value is None:
            store.pop(key, None)
        else:
            store[key] = value


def test_a_long_history_is_pruned_alike_hot_and_cold() -> None:
    """Chunks leave the state, what is refused stays the same, and nothing that a decision needs is lost."""
    store: dict[str, bytes] = {}
    cold, warm = RiskFold(0, store.get, hot_accounts=0), RiskFold(0)
    cold.activate(ACTIVATED)
    warm.activate(ACTIVATED)
    largest = 0
    for number in range(3_000):
        raw = admitted(payment(f"tx-{number}", event_time=NOON + number * 3_600_000, amount_minor=1_000 + number % 7))
        assert warm.step(raw, number) == cold.step(raw, number)
        if number % 10 == 0:
            _save(cold, store)
            largest = max(largest, len(store))
    assert largest < (35 * 24 + 24 + 50) / 16 + 6  # the horizon, a day of look-back and 50 rows, in chunks of 16
    late = admitted(payment("late", event_time=NOON + 2_999 * 3_600_000 - 35 * DAY_MS))
    assert warm.step(late, 3_000) == cold.step(late, 3_000)


def test_an_account_is_bounded_in_count() -> None:
    fold = new_fold()
    for number in range(2_100):
        fold.step(admitted(payment(f"tx-{number:04d}", event_time=NOON + number)), number)
    refusal = fold.step(admitted(payment("early", event_time=NOON)), 2_100)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "beyond_bound"
