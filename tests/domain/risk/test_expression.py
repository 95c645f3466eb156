"""The expression language: what it computes, what it refuses and with which cure, and the bounds on any text."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.payment import Payment
from domain.risk.expression import (
    MAX_DEPTH,
    BadExpression,
    CompiledExpression,
    HistoryNeeds,
    ValueKind,
    compile_expression,
)
from domain.risk.features import FEATURES, FUNCTIONS, scope
from domain.risk.history import ConfirmedFrauds, History
from tests.support.payments import BERLIN, DAY_MS, HOUR_MS, LISBON, NOON, admitted, payment

SCOPE = scope({"watched": frozenset({"bakery", "kiosk"}), "empty": frozenset()})


def made(source: str) -> CompiledExpression:
    return compile_expression(source, SCOPE)


def tried(source: str) -> CompiledExpression | BadExpression:
    try:
        return made(source)
    except BadExpression as error:
        return error


def history_of(payments: list[dict[str, Any]]) -> History:
    history = History("acct-anna")
    for raw in payments:
        history.insert(admitted(raw), 0)
    return history


HISTORY = history_of(
    [
        payment("tx-0", event_time=NOON - DAY_MS, amount_minor=100, device_id="phone", **BERLIN),
        payment("tx-1", event_time=NOON - HOUR_MS, amount_minor=200, merchant_id="kiosk", device_id="tablet", **BERLIN),
        payment("tx-2", event_time=NOON - 60_000, amount_minor=90, currency="USD", card_id=None, channel="ECOM"),
        payment(
            "tx-3", amount_minor=1_000, device_id="phone", country="DE", merchant_category="5411",
            home_latitude=52.52, home_longitude=13.405, **LISBON,
        ),
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 3 - 2", 5),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("7 // 0", 0),
        ("7 % 0", 0),
        ("- - 3", 3),
        ("1_000", 1_000),
        ("10000000 * 10000000 * 10000000 * 10000000", 10**28),
        ("min(3, 1, 2) + max(3, 1, 2)", 4),
        ("abs(0 - 5)", 5),
        ("if(1 < 2, 10, 20)", 10),
        ('if(country == "", "none", country) == "DE"', True),
        ("1 < 2 and not 2 < 1 or false", True),
        ("true or false and false", True),
        ("not true or true", True),
        ("not (true or true)", False),
        ("true != false", True),
        ("merchant_id in watched", True),
        ("merchant_id not in watched", False),
        ("merchant_id in empty", False),
        ("amount_minor", 1_000),
        ('currency == "EUR"', True),
        ("currency == 'EUR'", True),
        ('channel == "POS"', True),
        ("hour", 12),
        ("weekday", 6),
        ("card_present", True),
        ('terminal_id == "" and counterparty_id == ""', True),
        ('merchant_category == "5411" and payment_method == "CARD" and account_id == "acct-anna"', True),
        ("distance_from_home_m > 2_300_000 and distance_from_home_m < 2_330_000", True),
        ("previous_amount_minor", 90),
        ("since_previous_ms", 60_000),
        ("speed_kmh > 2_300 and speed_kmh < 2_330", True),  # an hour from Berlin, where the card was before
        ('count(account, "60s")', 2),
        ('count(account, "59s")', 1),
        ('count(account, "1d")', 4),
        ("count(account, 2)", 2),
        ("count(account, 50)", 3),
        ('count(card, "1d")', 3),
        ("count(card, 2)", 1),
        ('count(device, "35d")', 2),
        ('count(country, "35d")', 1),
        ('count(terminal, "35d")', 0),
        ('sum(account, "1h")', 1_200),  # dollars do not count as euros
        ("sum(account, 50)", 300),
        ("mean(account, 50)", 150),
        ("mean(account, 1)", -1),
        ("mean(terminal, 50)", -1),
        ("deviation(account, 50)", 50),
        ("deviation(account, 1)", -1),
        ('highest(account, "1d")', 1_000),
        ("highest(card, 50)", 200),
        ("highest(terminal, 50)", -1),
        ('distinct(merchant, account, "1d")', 2),
        ('distinct(device, account, "1d")', 2),
        ('distinct(country, account, "1d")', 1),
        ('confirmed(merchant, "10d")', 3),
        ('since_confirmed_s(merchant, "10d")', 5),
        ('confirmed_accounts(merchant, "10d")', 2),
        ('confirmed_accounts(terminal, "10d")', 0),
        ('confirmed(terminal, "10d")', 0),
        ('since_confirmed_s(terminal, "10d")', -1),
    ],
)
def test_expression_has_its_value(source: str, value: int | bool) -> None:
    three = ConfirmedFrauds(3, NOON - 5_000, ("a", "b", "c"), 2)
    HISTORY.facts = {HISTORY.payments[3].order: {("merchant", 10 * DAY_MS): three}}
    found = made(source).evaluate(HISTORY, 3)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("previous_amount_minor", -1),
        ("since_previous_ms", -1),
        ("speed_kmh", -1),
        ("distance_from_home_m", -1),
        ('count(account, "1d")', 1),
        ("count(account, 5)", 0),
        ("mean(account, 5)", -1),
        ('mean(account, "1d")', 100),
        ("sum(account, 5)", 0),
    ],
)
def test_first_payment_has_no_history(source: str, value: int) -> None:
    assert made(source).evaluate(HISTORY, 0) == value


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "column 1: found the end. Cure: write a value"),
        ("1 +", "column 4: found the end. Cure: write a value"),
        ("(1", "column 3: found the end. Cure: write ')'"),
        ("1 2", "column 3: found '2'. Cure: write an operator or the end"),
        ("amount_minor = 5", "column 14: '=' cannot be read. Cure: compare with =="),
        ("amount_minor / 5", "column 14: '/' cannot be read. Cure: divide with //"),
        ("1.5", "column 2: '.' cannot be read. Cure: there are no fractions"),
        ('country == "DE', "column 12: '\"' cannot be read. Cure: end a text with the quote"),
        ("amount_minor > 5; import os", "column 17: ';' cannot be read. Cure: see docs/rules"),
        ("__import__('os')", "column 1: unknown function __import__. Cure: write one of if, min"),
        ("amount_minor.real", "column 13: '.' cannot be read"),
        ("amuont_minor > 5", "column 1: unknown feature amuont_minor. Cure: write amount_minor"),
        ("1 + conut(account, 5)", "column 5: unknown function conut. Cure: write count"),
        ("count > 5", "column 1: count is a function. Cure: write count(...)"),
        ("1 < 2 < 3", "column 7: comparisons do not chain. Cure: write a < b and b < c"),
        ("amount_minor and true", "column 1: amount_minor is an integer, not a truth value. Cure: compare it"),
        ("true + 1", "column 1: true is a truth value, not an integer. Cure: give an integer, as if("),
        ("-true", "column 2: true is a truth value, not an integer"),
        ("not 5", "column 5: 5 is an integer, not a truth value"),
        ('country + "x"', "column 1: country is a text, not an integer"),
        ("country > currency", "column 1: only integers are in order. Cure: compare a text by == or !="),
        ("country == 5", "column 12: a text cannot be compared with an integer. Cure: give a text"),
        ("if(true, 1, country)", "column 13: if gives an integer or a text. Cure: make both results alike"),
        ("if(true, 1)", "column 1: 2 arguments for if. Cure: give 3"),
        ("min(1)", "column 1: too few arguments for min. Cure: give two or more"),
        ("amount_minor in watched", "column 1: amount_minor is an integer, not a text"),
        ("merchant_id in wached", "column 16: the pack has no list wached. Cure: write watched"),
        ('merchant_id in "x"', "column 16: found \"x\". Cure: write the name of a list of the pack"),
        ("merchant_id not watched", "column 17: found 'watched'. Cure: write 'in'"),
        ("9" * 17, "column 1: 99999999999999999 is too large. Cure: at most 1000000000000000"),
        ("count(5, 5)", "column 7: count does not know this key. Cure: write one of account, card"),
        ("count(account)", "column 1: 1 arguments for count. Cure: write it as in count(account, \"24h\")"),
        ('count(account, "5 minutes")', "column 16: '5 minutes' is not a duration. Cure: write one as in 60s"),
        ('count(account, "36d")', "column 16: 36d is too long or too short. Cure: from 1ms to 35d"),
        ("count(account, 1001)", "column 16: 1001 payments are too many or too few. Cure: from 1 to 1000"),
        ("count(account, 0)", "column 16: 0 payments are too many or too few. Cure: from 1 to 1000"),
        ("count(account, amount_minor)", "column 16: count needs a window. Cure: write a time as in"),
        ("confirmed(merchant, 5)", "column 21: confirmed needs a time. Cure: write one as in"),
        ('confirmed(country, "5d")', "column 11: confirmed does not know this key. Cure: write one of merchant"),
        ('distinct(merchant, "1h")', "column 1: 2 arguments for distinct. Cure: write it as in distinct("),
    ],
)  # fmt: skip
def test_invalid_expression_is_refused_with_a_cure(source: str, message: str) -> None:
    with pytest.raises(BadExpression) as caught:
        made(source)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "source",
    [
        "(" * 5_000,
        "(" * 500 + "1" + ")" * 500,
        "not " * 400 + "true",
        "-" * 1_500 + "1",
        "abs(" * 300 + "1" + ")" * 300,
        " + ".join(["1"] * 500),
        " or ".join(["true"] * 450),
        "1" + " " * 3_000,
        "if(true, " * 100 + "1" + ", 2)" * 100,
    ],
)
def test_oversized_expression_is_refused_before_it_costs_time(source: str) -> None:
    with pytest.raises(BadExpression):
        made(source)


def test_sum_as_deep_as_the_bound_is_accepted() -> None:
    assert made(" + ".join(["1"] * MAX_DEPTH)).evaluate(HISTORY, 0) == MAX_DEPTH
    assert made("(" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1)).evaluate(HISTORY, 0) == 1


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        ("amount_minor > 5", HistoryNeeds()),
        ("previous_amount_minor", HistoryNeeds(rows=1)),
        ("speed_kmh", HistoryNeeds(window_ms=DAY_MS)),
        ('count(account, "2h") + mean(card, 7)', HistoryNeeds(window_ms=2 * HOUR_MS, rows=7)),
        ('if(count(card, "1h") > 1, sum(card, "3h"), highest(card, "2h"))', HistoryNeeds(window_ms=3 * HOUR_MS)),
        ('confirmed(card, "9d") + confirmed(card, "9d")', HistoryNeeds(confirmed=(("card", 9 * DAY_MS),))),
        ('not (count(device, "5h") > 1) and merchant_id in watched', HistoryNeeds(window_ms=5 * HOUR_MS)),
        ('distinct(merchant, card, "4h")', HistoryNeeds(window_ms=4 * HOUR_MS)),
        ("abs(deviation(account, 9))", HistoryNeeds(rows=9)),
    ],
)
def test_expression_has_its_look_back(source: str, needs: HistoryNeeds) -> None:
    assert made(source).needs == needs


def test_comparisons_are_kept_for_explanations() -> None:
    (comparison,) = made('merchant_id in watched and amount_minor + 1 > 3 * mean(account, "1d")').comparisons
    assert (comparison.left, comparison.sign, comparison.right) == ("amount_minor + 1", ">", '3 * mean(account, "1d")')
    assert comparison.evaluate_left(HISTORY, 3) == 1_001


# -- any expression -----------------------------------------------------------------------------------------


class DrawnExpression(NamedTuple):
    """An expression as text, with its value computed beside it."""

    source: str
    value: Callable[[Payment], Any]


def _binary(
    sign: str, meaning: Callable[[Any, Any], Any]
) -> Callable[[tuple[DrawnExpression, DrawnExpression]], DrawnExpression]:
    def join(pair: tuple[DrawnExpression, DrawnExpression]) -> DrawnExpression:
        a, b = pair
        return DrawnExpression(
            f"({a.source} {sign} {b.source})", lambda payment: meaning(a.value(payment), b.value(payment))
        )

    return join


def _floor(a: int, b: int) -> int:
    """Divide and round down, by divmod's definition: a == b*q + r with r between 0 and b."""
    if b == 0:
        return 0
    q = abs(a) // abs(b)
    if (a < 0) == (b < 0):
        return q
    return -q if q * abs(b) == abs(a) else -q - 1


INTEGERS: st.SearchStrategy[DrawnExpression] = st.deferred(
    lambda: (
        st.integers(0, 10**6).map(lambda n: DrawnExpression(str(n), lambda _: n))
        | st.just(DrawnExpression("amount_minor", lambda payment: payment.amount_minor))
        | st.tuples(INTEGERS, INTEGERS).map(_binary("+", lambda a, b: a + b))
        | st.tuples(INTEGERS, INTEGERS).map(_binary("-", lambda a, b: a - b))
        | st.tuples(INTEGERS, INTEGERS).map(_binary("*", lambda a, b: a * b))
        | st.tuples(INTEGERS, INTEGERS).map(_binary("//", _floor))
        | st.tuples(INTEGERS, INTEGERS).map(_binary("%", lambda a, b: a - b * _floor(a, b) if b else 0))
        | INTEGERS.map(lambda a: DrawnExpression(f"-{a.source}", lambda payment: -a.value(payment)))
        | st.tuples(TRUTHS, INTEGERS, INTEGERS).map(
            lambda it: DrawnExpression(
                f"if({it[0].source}, {it[1].source}, {it[2].source})",
                lambda payment: it[1].value(payment) if it[0].value(payment) else it[2].value(payment),
            )
        )
        | st.tuples(INTEGERS, INTEGERS).map(
            lambda it: DrawnExpression(
                f"max({it[0].source}, {it[1].source})",
                lambda payment: sorted([it[0].value(payment), it[1].value(payment)])[1],
            )
        )
    )
)
TRUTHS: st.SearchStrategy[DrawnExpression] = st.deferred(
    lambda: (
        st.booleans().map(lambda truth: DrawnExpression(str(truth).lower(), lambda _: truth))
        | st.sampled_from(["bakery", "kiosk", "other"]).map(
            lambda name: DrawnExpression(f'merchant_id == "{name}"', lambda payment: payment.merchant_id == name)
        )
        | st.tuples(INTEGERS, INTEGERS).map(_binary("<", lambda a, b: a < b))
        | st.tuples(INTEGERS, INTEGERS).map(_binary(">=", lambda a, b: not a < b))
        | st.tuples(INTEGERS, INTEGERS).map(_binary("==", lambda a, b: a == b))
        | st.tuples(TRUTHS, TRUTHS).map(_binary("and", lambda a, b: [a, b] == [True, True]))
        | st.tuples(TRUTHS, TRUTHS).map(_binary("or", lambda a, b: True in (a, b)))
        | TRUTHS.map(lambda a: DrawnExpression(f"not {a.source}", lambda payment: [a.value(payment)] == [False]))
    )
)


@pytest.mark.no_cover
@settings(max_examples=200, deadline=None)
@given(INTEGERS | TRUTHS, st.integers(0, 10**6))
def test_any_expression_has_the_value_computed_beside_it(drawn: DrawnExpression, amount: int) -> None:
    raw = payment("tx", amount_minor=amount)
    found = tried(drawn.source)
    if isinstance(found, BadExpression):
        assert str(found).endswith("make it two rules")  # too long, too deep, or too many parts
    else:
        assert found.evaluate(history_of([raw]), 0) == drawn.value(admitted(raw))


_PIECES = ["1", "amount_minor", "count(account, 5)", "(", ")", "+", "-", "<", "and", "not", "in", "watched", ",", "if"]
_TYPES = {ValueKind.INTEGER: int, ValueKind.TRUTH: bool, ValueKind.TEXT: str}


@pytest.mark.no_cover
@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(_PIECES), max_size=25).map(" ".join))
def test_any_text_compiles_or_is_refused(source: str) -> None:
    found = tried(source)
    if isinstance(found, BadExpression):
        assert ". Cure: " in str(found)
        assert 1 <= found.column <= len(source) + 1
    else:
        assert type(found.evaluate(HISTORY, 3)) is _TYPES[found.kind]


def test_rule_names_are_unique() -> None:
    assert not FEATURES.keys() & FUNCTIONS.keys()
