"""The names that an expression may use: features of a payment, of the payment before, and of windows.

All are computed from the history of the payment's account up to the payment, so they are exact in any order of arrival.
Only the `confirmed` functions use labels; their values are frozen when the payment arrives. A text that a payment lacks
is "", an integer without a value is -1.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Set
from functools import partial
from math import isqrt
from operator import itemgetter
from typing import Any, Final, NamedTuple

from domain.durations import DAY_MS, duration_ms
from domain.geo import distance_m
from domain.payment import CARD_PRESENT_CHANNELS, Payment
from domain.risk.expression import (
    BadExpression,
    CallNode,
    CompiledExpression,
    Evaluate,
    ExpressionScope,
    HistoryNeeds,
    LiteralNode,
    NameNode,
    SyntaxNode,
    Trace,
    ValueKind,
)
from domain.risk.history import MAX_ROWS, MAX_WINDOW_MS, ONLY_HERE, History, Spec

TRAVEL_WINDOW_MS: Final = DAY_MS
"""Maximum age of the card's previous payment that `speed_kmh` is measured from."""
MAX_SPEED_KMH: Final = 1_000_000
ABSENT: Final = -1
"""Value of an integer feature that has none."""

KEYS: Final[dict[str, Callable[[Payment], str | None]]] = {
    key: itemgetter(Payment._fields.index(field))
    for key, field in {
        "account": "account_id", "card": "card_id", "device": "device_id", "merchant": "merchant_id",
        "terminal": "terminal_id", "counterparty": "counterparty_id", "country": "country",
        "category": "merchant_category", "channel": "channel",
    }.items()
}  # fmt: skip
"""Fields that payments of an account can be grouped by, by the name of the key."""
LABEL_KEYS: Final = ("merchant", "terminal", "device", "card", "account")
"""Keys whose risk a confirmed fraud raises."""


# -- of the payment itself ------------------------------------------------------------------------------


def home_distance_m(payment: Payment) -> int:
    """Return the metres between the payment and the billing address, -1 if either has no coordinates."""
    if payment.latitude is None or payment.home_latitude is None:
        return ABSENT
    assert payment.longitude is not None  # payments are admitted with both coordinates or none
    assert payment.home_longitude is not None
    return distance_m(payment.latitude, payment.longitude, payment.home_latitude, payment.home_longitude)


_TEXTS: Final = {
    "account_id": "account_id", "card_id": "card_id", "device_id": "device_id", "merchant_id": "merchant_id",
    "terminal_id": "terminal_id", "counterparty_id": "counterparty_id", "country": "country", "currency": "currency",
    "channel": "channel", "payment_method": "payment_method", "merchant_category": "merchant_category",
}  # fmt: skip


def _text(position: int) -> Evaluate:
    return lambda history, index: history.payments[index][position] or ""


def _hour(history: History, index: int) -> int:
    return history.times[index] // 3_600_000 % 24


def _weekday(history: History, index: int) -> int:
    return (history.times[index] // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday


def _is_card_present(history: History, index: int) -> bool:
    return history.payments[index].channel in CARD_PRESENT_CHANNELS


def _home_distance(history: History, index: int) -> int:
    return home_distance_m(history.payments[index])


# -- of the payment before ------------------------------------------------------------------------------


def _previous_amount(history: History, index: int) -> int:
    return history.payments[index - 1].amount_minor if index else ABSENT


def _since_previous_ms(history: History, index: int) -> int:
    return history.times[index] - history.times[index - 1] if index else ABSENT


def previous_present(history: History, index: int, within_ms: int) -> Payment | None:
    """Return the card's previous card-present payment with coordinates, if it is at most `within_ms` old, else None."""
    payments = history.payments
    here = payments[index]
    card_id, oldest_ms = here.card_id, here.event_time_ms - within_ms
    for position in range(index - 1, -1, -1):
        payment = payments[position]
        if payment.event_time_ms < oldest_ms:
            return None
        if payment.latitude is not None and payment.card_id == card_id and payment.channel in CARD_PRESENT_CHANNELS:
            return payment
    return None


def is_placed(payment: Payment) -> bool:
    """Return whether the card itself was at known coordinates."""
    return payment.latitude is not None and payment.card_id is not None and payment.channel in CARD_PRESENT_CHANNELS


def journey(before: Payment, here: Payment) -> tuple[int, int]:
    """Return the metres between two placed payments, and the speed between them in km/h, rounded down."""
    assert before.latitude is not None
    assert before.longitude is not None
    assert here.latitude is not None
    assert here.longitude is not None
    metres = distance_m(before.latitude, before.longitude, here.latitude, here.longitude)
    elapsed_ms = here.event_time_ms - before.event_time_ms
    return metres, min(MAX_SPEED_KMH, metres * 3600 // max(1, elapsed_ms))


def _speed_kmh(history: History, index: int) -> int:
    here = history.payments[index]
    before = previous_present(history, index, TRAVEL_WINDOW_MS) if is_placed(here) else None
    return ABSENT if before is None else journey(before, here)[1]


_BEFORE: Final = HistoryNeeds(rows=1)
FEATURES: Final[dict[str, CompiledExpression]] = {
    "amount_minor": CompiledExpression(ValueKind.INTEGER, lambda history, index: history.payments[index].amount_minor),
    "hour": CompiledExpression(ValueKind.INTEGER, _hour),
    "weekday": CompiledExpression(ValueKind.INTEGER, _weekday),
    "card_present": CompiledExpression(ValueKind.TRUTH, _is_card_present),
    "distance_from_home_m": CompiledExpression(ValueKind.INTEGER, _home_distance),
    **{name: CompiledExpression(ValueKind.TEXT, _text(Payment._fields.index(field))) for name, field in _TEXTS.items()},
    "previous_amount_minor": CompiledExpression(ValueKind.INTEGER, _previous_amount, _BEFORE),
    "since_previous_ms": CompiledExpression(ValueKind.INTEGER, _since_previous_ms, _BEFORE),
    "speed_kmh": CompiledExpression(ValueKind.INTEGER, _speed_kmh, HistoryNeeds(window_ms=TRAVEL_WINDOW_MS)),
}
"""Features by name."""


# -- of windows -----------------------------------------------------------------------------------------


class PaymentWindow(NamedTuple):
    """A range of the account's payments up to the payment that is decided.

    With `ms`, it holds the payments of that time, both ends and the payment itself included. Otherwise it holds the
    `rows` payments before it.
    """

    ms: int
    rows: int

    def span(self, history: History, index: int) -> tuple[int, int]:
        """Return the first index of the window, and the index after its last."""
        if self.ms:
            return bisect_left(history.times, history.times[index] - self.ms, 0, index + 1), index + 1
        return max(0, index - self.rows), index

    @property
    def needs(self) -> HistoryNeeds:
        """Return how far back the window looks."""
        return HistoryNeeds(window_ms=self.ms, rows=self.rows)


def positions(key: str, history: History, index: int, first: int, end: int, *, one_currency: bool) -> range | list[int]:
    """Return the indexes in a range of payments with the payment's value of `key`.

    With `one_currency`, they must also be in the payment's currency. The result is empty if the payment lacks the key.
    """
    payments = history.payments
    here = payments[index]
    is_any_currency = not one_currency or not history.is_mixed
    if key == "account" and is_any_currency:
        return range(first, end)
    read = KEYS[key]
    wanted, currency = read(here), here.currency
    if wanted is None:
        return range(0)
    return [
        position
        for position in range(first, end)
        if read(payments[position]) == wanted and (is_any_currency or payments[position].currency == currency)
    ]


def moments(key: str, history: History, index: int, first: int, end: int) -> tuple[int, int, int]:
    """Return number, sum and sum of squares of the amounts in a range of payments.

    Only payments with the payment's value of `key` and its currency count.
    """
    if key == "account" and not history.is_mixed:
        sums, squares = history.sums, history.squares
        return end - first, sums[end] - sums[first], squares[end] - squares[first]
    amounts = [
        history.payments[position].amount_minor
        for position in positions(key, history, index, first, end, one_currency=True)
    ]
    return len(amounts), sum(amounts), sum(amount * amount for amount in amounts)


def _count(key: str, window: PaymentWindow) -> Evaluate:
    span = window.span
    if key != "account":
        return lambda history, index: len(positions(key, history, index, *span(history, index), one_currency=False))
    ms, rows = window
    if rows:
        return lambda _, index: min(rows, index)
    return lambda history, index: index + 1 - bisect_left(history.times, history.times[index] - ms, 0, index + 1)


def _sum(key: str, window: PaymentWindow) -> Evaluate:
    return lambda history, index: moments(key, history, index, *window.span(history, index))[1]


def _mean(key: str, window: PaymentWindow) -> Evaluate:
    def mean(history: History, index: int) -> int:
        count, total, _ = moments(key, history, index, *window.span(history, index))
        return total // count if count else ABSENT

    return mean


def _deviation(key: str, window: PaymentWindow) -> Evaluate:
    def deviation(history: History, index: int) -> int:
        count, total, squares = moments(key, history, index, *window.span(history, index))
        return isqrt(count * squares - total * total) // count if count else ABSENT

    return deviation


def _highest(key: str, window: PaymentWindow) -> Evaluate:
    def highest(history: History, index: int) -> int:
        here = positions(key, history, index, *window.span(history, index), one_currency=True)
        return max((history.payments[position].amount_minor for position in here), default=ABSENT)

    return highest


def _distinct(what: str, key: str, window: PaymentWindow) -> Evaluate:
    read = KEYS[what]

    def distinct(history: History, index: int) -> int:
        here = positions(key, history, index, *window.span(history, index), one_currency=False)
        return len({read(history.payments[position]) for position in here} - {None})

    return distinct


def _confirmed(spec: Spec) -> Evaluate:
    def confirmed(history: History, index: int) -> int:
        fact = history.fact(index, spec)
        return fact.number if fact else 0

    return confirmed


def _confirmed_accounts(spec: Spec) -> Evaluate:
    def confirmed_accounts(history: History, index: int) -> int:
        fact = history.fact(index, spec)
        return fact.accounts if fact else 0

    return confirmed_accounts


def _since_confirmed_s(spec: Spec) -> Evaluate:
    def since_confirmed_s(history: History, index: int) -> int:
        fact = history.fact(index, spec)
        return (history.times[index] - fact.newest_ms) // 1000 if fact else ABSENT

    return since_confirmed_s


def _key_in(node: SyntaxNode, known: Mapping[str, Any] | tuple[str, ...], function: str) -> str:
    if isinstance(node, NameNode) and node.name in known:
        return node.name
    raise BadExpression(node.column, f"{function} does not know this key", f"write one of {', '.join(known)}")


def _window_in(node: SyntaxNode, function: str, *, only_time: bool = False) -> PaymentWindow:
    value = node.value if isinstance(node, LiteralNode) else None
    if isinstance(value, str):
        try:
            ms = duration_ms(value)
        except ValueError as error:
            raise BadExpression(
                node.column, f"{value!r} is not a duration", "write one as in 60s, 24h or 28d"
            ) from error
        if not 1 <= ms <= MAX_WINDOW_MS:
            raise BadExpression(
                node.column, f"{value} is too long or too short", f"from 1ms to {MAX_WINDOW_MS // DAY_MS}d"
            )
        return PaymentWindow(ms, 0)
    if only_time:
        raise BadExpression(node.column, f"{function} needs a time", 'write one as in "28d"')
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadExpression(node.column, f"{function} needs a window", 'write a time as in "24h", or payments as in 50')
    if not 1 <= value <= MAX_ROWS:
        raise BadExpression(node.column, f"{value} payments are too many or too few", f"from 1 to {MAX_ROWS}")
    return PaymentWindow(0, value)


def _check_count(node: CallNode, count: int, example: str) -> None:
    if len(node.arguments) != count:
        raise BadExpression(
            node.column, f"{len(node.arguments)} arguments for {node.name}", f"write it as in {example}"
        )


def _compile_windowed(function: Callable[[str, PaymentWindow], Evaluate], node: CallNode) -> CompiledExpression:
    _check_count(node, 2, f'{node.name}(account, "24h")')
    key, window = _key_in(node.arguments[0], KEYS, node.name), _window_in(node.arguments[1], node.name)
    return CompiledExpression(ValueKind.INTEGER, function(key, window), window.needs, traces=(_trace(key, window),))


def _trace(key: str, window: PaymentWindow) -> Trace:
    return lambda history, index: positions(key, history, index, *window.span(history, index), one_currency=False)


def _distinct_call(node: CallNode) -> CompiledExpression:
    _check_count(node, 3, 'distinct(merchant, card, "1h")')
    what, key = (_key_in(argument, KEYS, node.name) for argument in node.arguments[:2])
    window = _window_in(node.arguments[2], node.name)
    return CompiledExpression(
        ValueKind.INTEGER, _distinct(what, key, window), window.needs, traces=(_trace(key, window),)
    )


def _compile_label_function(
    function: Callable[[Spec], Evaluate], node: CallNode, suffix: str = ""
) -> CompiledExpression:
    _check_count(node, 2, f'{node.name}(terminal, "28d")')
    key = _key_in(node.arguments[0], LABEL_KEYS, node.name)
    spec = key + suffix, _window_in(node.arguments[1], node.name, only_time=True).ms
    return CompiledExpression(ValueKind.INTEGER, function(spec), HistoryNeeds(confirmed=(spec,)))


FUNCTIONS: Final[dict[str, Callable[[CallNode], CompiledExpression]]] = {
    "count": partial(_compile_windowed, _count),
    "sum": partial(_compile_windowed, _sum),
    "mean": partial(_compile_windowed, _mean),
    "deviation": partial(_compile_windowed, _deviation),
    "highest": partial(_compile_windowed, _highest),
    "distinct": _distinct_call,
    "confirmed": partial(_compile_label_function, _confirmed),
    "confirmed_accounts": partial(_compile_label_function, _confirmed_accounts),
    "confirmed_only_here": partial(_compile_label_function, _confirmed, suffix=ONLY_HERE),
    "since_confirmed_s": partial(_compile_label_function, _since_confirmed_s),
}
"""Windowed functions by name; each checks and compiles its own arguments."""


def scope(lists: Mapping[str, Set[str]]) -> ExpressionScope:
    """Return the names that an expression of a pack with these lists may use."""
    return ExpressionScope(features=FEATURES, functions=FUNCTIONS, lists=lists)
