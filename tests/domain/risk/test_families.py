"""Each rule family at its threshold, with values computed by hand, and the distance of a rule that does not fire."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest

from domain.risk import families
from domain.risk.events import RiskRestated
from domain.risk.families.registry import FAMILIES
from domain.risk.families.rule import Rule
from tests.support.payments import (
    BERLIN,
    DAY_MS,
    HOUR_MS,
    LISBON,
    MINUTE_MS,
    NOON,
    admitted,
    at,
    new_fold,
    pack_of,
)

HOME = {"home_latitude": 52.52, "home_longitude": 13.405}
POTSDAM = {"latitude": 52.39, "longitude": 13.065}  # 27 km from Berlin


def rule(family: str, **parameters: Any) -> dict[str, Any]:
    return {"family": family, "points": 100, **parameters}


VELOCITY = rule("velocity", window_ms=MINUTE_MS, at_least=3)
SUM = rule("velocity", measure="sum", window_ms=HOUR_MS, at_least=5_000)
FAR = rule("far_from_home", minimum_m=100_000)
TESTING = rule("card_testing", window_ms=MINUTE_MS, at_least=3, at_most_minor=200)
DEVICE = rule("new_device", lookback_ms=DAY_MS, minimum_history=2)
COUNTRY = rule("new_country", lookback_ms=DAY_MS, minimum_history=2)
EMPTYING = rule(
    "account_emptying", window_ms=HOUR_MS, lookback_ms=DAY_MS, minimum_history=2, minimum_minor=1, ratio_percent=200
)
HOUR = rule("unusual_hour", history=5, minimum_history=4, radius_ms=HOUR_MS, at_least_permille=750)
BLOCK = rule("blocklist", field="merchant", list="bad")
ALLOW = rule("allowlist", field="device", list="bad", points=0)
BIG = rule("expression", value="amount_minor", at_least=5_000)


@pytest.mark.parametrize(
    ("rules", "payments", "points"),
    [
        pytest.param([VELOCITY], at(0, 1, MINUTE_MS), {"tx-2": 100}, id="three in a minute, both ends counted"),
        pytest.param([VELOCITY], at(0, 1, MINUTE_MS + 1), {}, id="a millisecond more is outside the window"),
        pytest.param([VELOCITY], at(0, 1, 2, 3), {"tx-2": 100, "tx-3": 133}, id="a fourth weighs a third more"),
        pytest.param(
            [rule("velocity", window_ms=MINUTE_MS, at_least=70)],
            at(*range(71)),
            {"tx-69": 100, "tx-70": 101},
            id="seventy in a minute, not the sixty-ninth",
        ),
        pytest.param(
            [{**FAR, "channels": ["ECOM"]}, rule("velocity", window_ms=MINUTE_MS, at_least=2)],
            at(0, 1, 2, **HOME, **LISBON, channel=["ECOM", "MOTO", "POS"]),
            {"tx-0": 100, "tx-1": 100, "tx-2": 150},
            id="a rule of one channel does not disable the other rules",
        ),
        pytest.param(
            [rule("velocity", by="card", window_ms=MINUTE_MS, at_least=2)],
            at(0, 1, 2, card_id=["a", "b", "a"]),
            {"tx-2": 100},
            id="by card, other cards of the account do not count",
        ),
        pytest.param(
            [rule("velocity", by="account_device", window_ms=MINUTE_MS, at_least=2)],
            at(0, 1, device_id=None),
            {},
            id="payments without a device share none",
        ),
        pytest.param([SUM], at(0, HOUR_MS, amount_minor=2_500), {"tx-1": 100}, id="sums of an hour"),
        pytest.param([SUM], at(0, 1, amount_minor=[2_500, 2_499]), {}, id="a cent below the sum"),
        pytest.param([SUM], at(0, 1, amount_minor=2_500, currency=["EUR", "JPY"]), {}, id="yen and cents make no sum"),
        pytest.param(
            [rule("amount_spike", history=3, minimum_history=2, sigmas=0, minimum_minor=1, ratio_percent=200)],
            at(0, 1, 2, 3, amount_minor=[100, 90_000, 100, 200], currency=["EUR", "JPY", "EUR", "EUR"]),
            {"tx-3": 100},
            id="a spike is compared with payments in its currency",
        ),
        pytest.param([FAR], at(0, **HOME, **LISBON), {"tx-0": 100}, id="goods for Lisbon, billed in Berlin"),
        pytest.param([FAR], at(0, **HOME, **POTSDAM), {}, id="Potsdam is near Berlin"),
        pytest.param([FAR], at(0, **LISBON), {}, id="without a home no payment is far from home"),
        pytest.param(
            [{**FAR, "channels": ["ECOM"]}],
            at(0, **HOME, **LISBON, channel="POS"),
            {},
            id="a payment on another channel",
        ),
        pytest.param(
            [TESTING],
            at(0, 1, 2, amount_minor=[200, 1, 200]),
            {"tx-2": 100},
            id="three small ones in a minute",
        ),
        pytest.param([TESTING], at(0, 1, 2, amount_minor=[200, 201, 200]), {}, id="two small ones and one too large"),
        pytest.param(
            [TESTING],
            at(0, 1, 2, 3, amount_minor=[1, 1, 1, 900]),
            {"tx-2": 100},
            id="the large one that follows is no test",
        ),
        pytest.param(
            [DEVICE], at(0, 1, 2, device_id=["a", "a", "b"]), {"tx-2": 100}, id="a device that was never seen"
        ),
        pytest.param([DEVICE], at(0, 1, 2, 3, device_id=["b", "a", "a", "b"]), {}, id="a device that was seen"),
        pytest.param(
            [DEVICE],
            at(0, 1, 2, DAY_MS + 1, device_id=["b", "a", "a", "b"]),
            {"tx-3": 100},
            id="a device that was seen too long ago",
        ),
        pytest.param([DEVICE], at(0, 1, device_id=["a", "b"]), {}, id="one earlier payment is too little history"),
        pytest.param([DEVICE], at(0, 1, 2, device_id=[None, None, "b"]), {}, id="no device is no other device"),
        pytest.param([COUNTRY], at(0, 1, 2, country=["DE", "DE", "PT"]), {"tx-2": 100}, id="a new country"),
        pytest.param([COUNTRY], at(0, 1, 2, country=["DE", "PT", "PT"]), {}, id="a country seen once is known"),
        pytest.param(
            # 300 and 100 within 10 h before the last hour: 40 an hour; twice that are 80
            [EMPTYING],
            at(0, 8 * HOUR_MS, 10 * HOUR_MS + HOUR_MS, amount_minor=[300, 100, 80]),
            {"tx-2": 100},
            id="twice the usual outflow of an hour",
        ),
        pytest.param(
            [EMPTYING],
            at(0, 8 * HOUR_MS, 10 * HOUR_MS + HOUR_MS, amount_minor=[300, 100, 79]),
            {},
            id="a cent less than twice",
        ),
        pytest.param(
            [EMPTYING],
            at(
                0,
                HOUR_MS,
                2 * HOUR_MS,
                3 * HOUR_MS + 1,
                amount_minor=[10, 9_000, 10, 20],
                currency=["EUR", "JPY", "EUR", "EUR"],
            ),
            {"tx-3": 100},
            id="the usual outflow in euros does not count yen",
        ),
        pytest.param(
            [EMPTYING],
            at(0, HOUR_MS + 1, HOUR_MS + 2, 2 * HOUR_MS + 1, amount_minor=[1, 100, 1, 900]),
            {},
            id="payments in the window do not count as usual",
        ),
        pytest.param(
            [{**EMPTYING, "minimum_span_ms": 2 * HOUR_MS}],
            at(0, HOUR_MS, 3 * HOUR_MS, amount_minor=[100, 100, 900]),
            {"tx-2": 450},
            id="two hours of payments before the hour are enough",
        ),
        pytest.param(
            [{**EMPTYING, "minimum_span_ms": 2 * HOUR_MS}],
            at(1, HOUR_MS, 3 * HOUR_MS, amount_minor=[100, 100, 900]),
            {},
            id="a millisecond less is too little history",
        ),
        pytest.param(
            [HOUR],
            at(0, DAY_MS, 2 * DAY_MS, 3 * DAY_MS, 3 * DAY_MS + 12 * HOUR_MS),
            {"tx-4": 100},
            id="midnight is unusual for an account that pays at noon",
        ),
        pytest.param(
            [HOUR],
            at(-11 * HOUR_MS, DAY_MS, 2 * DAY_MS, 3 * DAY_MS, 4 * DAY_MS - 12 * HOUR_MS),
            {"tx-4": 100},
            id="one in four at one o'clock is few enough",
        ),
        pytest.param(
            [HOUR],
            at(-11 * HOUR_MS, 13 * HOUR_MS, 2 * DAY_MS, 3 * DAY_MS, 4 * DAY_MS - 12 * HOUR_MS),
            {},
            id="two in four are a habit; one o'clock is within an hour of midnight",
        ),
        pytest.param([BLOCK], at(0, merchant_id="pawnshop"), {"tx-0": 100}, id="on the blocklist"),
        pytest.param([BLOCK], at(0, merchant_id="bakery"), {}, id="not on the blocklist"),
        pytest.param(
            [BLOCK, ALLOW],
            at(0, merchant_id="pawnshop", device_id="pawnshop"),
            {},
            id="the allowlist suppresses the flag",
        ),
        pytest.param([BIG], at(0, 1, amount_minor=[5_000, 4_999]), {"tx-0": 100}, id="an expression at its threshold"),
        pytest.param(
            [{**BIG, "points": "amount_minor // 100 - 40"}],
            at(0, 1, 2, amount_minor=[6_000, 10**9, 5_000]),
            {"tx-0": 20, "tx-1": 1_000, "tx-2": 10},
            id="points by expression, at most a thousand",
        ),
        pytest.param(
            [{**BIG, "points": "amount_minor - 5000"}],
            at(0, amount_minor=5_000),
            {},
            id="a rule without points gives no reason",
        ),
        pytest.param(
            [{**VELOCITY, "when": "card_present"}],
            at(0, 1, 2, 3, channel=["POS", "POS", "ECOM", "POS"]),
            {"tx-3": 133},
            id="a guard limits the payments that are tested, not those that count",
        ),
    ],
)
def test_family_fires_at_its_threshold(
    rules: list[dict[str, Any]], payments: list[dict[str, Any]], points: dict[str, int]
) -> None:
    fold = new_fold(pack_of(*rules, lists={"bad": ["pawnshop"]}))
    admitted_payments = [admitted(raw) for raw in payments]
    for offset, each in enumerate(admitted_payments):
        fold.step(each, offset)
    found = {each.transaction_id: fold.decision(each).reasons for each in admitted_payments}
    assert {name: sum(reason.points for reason in reasons) for name, reasons in found.items() if reasons} == points


@pytest.mark.parametrize(
    ("each", "payments", "said"),
    [
        pytest.param(VELOCITY, at(0, 1), (2, 3, ""), id="velocity: number of payments"),
        pytest.param(
            rule("velocity", by="card", window_ms=1, at_least=2),
            at(0, card_id=None),
            (None, 2, "the payment has no card_id"),
            id="velocity: no card",
        ),
        pytest.param(
            rule("amount_spike", history=9, minimum_history=2, sigmas=0, minimum_minor=1, ratio_percent=200),
            at(0, 1, 2, amount_minor=[100, 100, 150]),
            (150, 200, ""),
            id="amount spike: the least amount that would be one",
        ),
        pytest.param(
            rule("amount_spike", history=9, minimum_history=2, sigmas=0, minimum_minor=1, ratio_percent=200),
            at(0, 1),
            (1_000, 1, "1 earlier payments in EUR, 2 are needed"),
            id="amount spike: no history",
        ),
        pytest.param(
            rule("impossible_travel", minimum_m=300_000, speed_kmh=900, within_ms=DAY_MS),
            at(0, HOUR_MS, latitude=[52.52, 52.39], longitude=[13.405, 13.065]),
            (27, 900, "27198 m apart, 300000 are needed"),
            id="impossible travel: too near",
        ),
        pytest.param(
            rule("impossible_travel", minimum_m=1, speed_kmh=900, within_ms=DAY_MS),
            at(0, **BERLIN),
            (None, 900, "no earlier payment of the card to compare with"),
            id="impossible travel: nothing before",
        ),
        pytest.param(
            {**FAR, "channels": ["ECOM"]},
            at(0, **HOME, **POTSDAM),
            (27_198, 100_000, "channel POS is none of ECOM"),
            id="far from home: another channel",
        ),
        pytest.param(
            TESTING,
            at(0, amount_minor=201),
            (0, 3, "201 minor units are above 200"),
            id="card testing: too large",
        ),
        pytest.param(DEVICE, at(0, 1, device_id="a"), (0, 2, "seen before, in tx-0"), id="new device: seen where"),
        pytest.param(EMPTYING, at(0), (1_000, 1, "0 payments before, 2 are needed"), id="account emptying: no history"),
        pytest.param(
            {**EMPTYING, "minimum_span_ms": 2 * HOUR_MS},
            at(MINUTE_MS, HOUR_MS, 3 * HOUR_MS),
            (1_000, 1, "119 minutes of payments before, 120 are needed"),
            id="account emptying: too young",
        ),
        pytest.param(HOUR, at(0), (None, 750, "0 earlier payments, 4 are needed"), id="unusual hour: no habit"),
        pytest.param(BLOCK, at(0), (0, 1, ""), id="blocklist: not in it"),
        pytest.param(BIG, at(0), (1_000, 5_000, ""), id="expression: its value"),
        pytest.param(
            rule("entity_risk", by="terminal", window_ms=1, at_least=1),
            at(0),
            (None, 1, "the payment has no terminal_id"),
            id="entity risk: no terminal",
        ),
    ],
)
def test_rule_that_does_not_fire_gives_its_distance(
    each: dict[str, Any], payments: list[dict[str, Any]], said: tuple[int | None, int, str]
) -> None:
    fold = new_fold(pack_of(each, lists={"bad": ["pawnshop"]}))
    for offset, raw in enumerate(payments):
        fold.step(admitted(raw), offset)
    (finding,) = fold.findings(admitted(payments[-1]))
    measured = finding.measured
    assert (measured.value, measured.threshold, measured.lacking) == said
    assert not measured.holds
    assert finding.points == 0


TRAVEL = rule("impossible_travel", minimum_m=1, speed_kmh=1, within_ms=DAY_MS)
SPIKE = rule("amount_spike", history=3, minimum_history=2, sigmas=0, minimum_minor=1, ratio_percent=200)
SPEED = rule("expression", value="speed_kmh")
COUNT = rule("expression", value='count(device, "1h")', at_least=2)
BEFORE = rule("expression", value="previous_amount_minor", at_least=2_000)
MEAN = rule("expression", value="mean(account, 2) > 1000")


def is_restated_by(late: dict[str, Any], each: dict[str, Any], payments: list[dict[str, Any]]) -> bool:
    """Return whether a late payment restates the decision on the last payment."""
    fold = new_fold(pack_of(each))
    for offset, raw in enumerate(payments):
        fold.step(admitted({**raw, "transaction_id": f"on-time-{offset}"}), offset)
    outputs = fold.step(admitted({**late, "transaction_id": "late"}), len(payments))
    assert isinstance(outputs, list)
    restated = [output.transaction_id for output in outputs if isinstance(output, RiskRestated)]
    return f"on-time-{len(payments) - 1}" in restated


@pytest.mark.parametrize(
    ("each", "payments", "late"),
    [
        pytest.param(VELOCITY, at(1, MINUTE_MS), at(0), id="velocity"),
        pytest.param(SUM, at(HOUR_MS, amount_minor=4_999), at(0), id="velocity by sum"),
        pytest.param(TESTING, at(1, MINUTE_MS, amount_minor=1), at(0, amount_minor=1), id="card testing"),
        pytest.param(TRAVEL, at(DAY_MS, **LISBON), at(0, **BERLIN), id="impossible travel"),
        pytest.param(DEVICE, at(1, 2, DAY_MS, device_id=["a", "a", "b"]), at(0, device_id="b"), id="new device"),
        pytest.param(
            COUNTRY,
            at(1, 2, DAY_MS, country=["DE", "DE", "PT"]),
            at(0, country="PT"),
            id="new country",
        ),
        pytest.param(
            EMPTYING,
            at(1, DAY_MS, amount_minor=[1, 900]),
            at(0, amount_minor=1),
            id="account emptying",
        ),
        pytest.param(COUNT, at(HOUR_MS, device_id="a"), at(0, device_id="a"), id="an expression"),
        pytest.param(SPEED, at(DAY_MS, **LISBON), at(0, **BERLIN), id="the speed in an expression"),
    ],
)
def test_late_payment_counts_within_the_window(
    each: dict[str, Any], payments: list[dict[str, Any]], late: list[dict[str, Any]]
) -> None:
    assert is_restated_by(late[0], each, payments)
    assert not is_restated_by({**late[0], "event_time": NOON - 1}, each, payments)


@pytest.mark.parametrize(
    ("each", "payments", "late"),
    [
        pytest.param(SPIKE, at(1, 2, 3, amount_minor=[9, 9, 90]), at(0, amount_minor=900), id="amount spike"),
        pytest.param(
            HOUR,
            at(DAY_MS, 2 * DAY_MS, 3 * DAY_MS, 4 * DAY_MS, 4 * DAY_MS + 12 * HOUR_MS),
            at(12 * HOUR_MS),
            id="unusual hour",
        ),
        pytest.param(MEAN, at(1, 2), at(0, amount_minor=3_000), id="an expression"),
        pytest.param(BEFORE, at(2), at(1, amount_minor=3_000), id="the payment before"),
    ],
)
def test_late_payment_counts_among_the_last_rows(
    each: dict[str, Any], payments: list[dict[str, Any]], late: list[dict[str, Any]]
) -> None:
    assert is_restated_by(late[0], each, payments)
    in_between = {**payments[0], "event_time": late[0]["event_time"] + 1}  # one more payment evicts it
    assert not is_restated_by(late[0], each, [in_between, *payments])


def test_every_family_file_is_in_the_table_of_families() -> None:
    modules = [import_module(f"{families.__name__}.{found.name}") for found in iter_modules(families.__path__)]
    kinds = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Rule) and hasattr(value, "family")
    }
    assert kinds == set(FAMILIES.values())


def test_every_family_is_in_these_tables() -> None:
    tested = {each["family"] for each in (VELOCITY, FAR, TESTING, DEVICE, COUNTRY, EMPTYING, HOUR, BLOCK, ALLOW, BIG)}
    assert tested | {"amount_spike", "impossible_travel", "entity_risk"} == set(FAMILIES)
