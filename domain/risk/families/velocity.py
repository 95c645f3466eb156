"""Velocity: many payments, or much money, of one key in a short time."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from domain.payment import MAX_AMOUNT_MINOR, Payment
from domain.risk.expression import HistoryNeeds
from domain.risk.families.measurement import (
    Check,
    Measurement,
    RuleFunctions,
    RuleGate,
    contributing_ids,
    missing_field,
)
from domain.risk.families.rule import (
    ENTITY_KEYS,
    AccountKey,
    BadParameter,
    EntityKey,
    Lists,
    NumberRange,
    Rule,
    RuleParts,
    Window,
)
from domain.risk.features import KEYS, positions
from domain.risk.history import MAX_ROWS, History


@dataclass(frozen=True, slots=True, kw_only=True)
class Velocity(Rule):
    """At least `at_least` payments, or minor units, of one key within `window_ms`, this payment included.

    The window is closed at both ends. Minor units are of the payment's currency. By account, card, or device, merchant
    or terminal *of the account*, the account's own history decides. By device, merchant or terminal, the history of
    that entity decides, with the payments of all accounts (`domain/risk/entity_fold.py`).
    """

    family: ClassVar[str] = "velocity"
    documentation: ClassVar[str] = "docs/rules/velocity.md"
    scales: ClassVar[bool] = True

    by: AccountKey | EntityKey = "account"
    measure: Literal["count", "sum"] = "count"
    window_ms: Window
    at_least: Annotated[int, NumberRange(1, MAX_AMOUNT_MINOR)]

    @property
    def entity_key(self) -> str:
        """Return the kind of entity that the rule counts payments of, or "" for keys within the account."""
        return self.by if self.by in ENTITY_KEYS else ""

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return the check by all payments of the account, and the measurement by those of the key."""
        return RuleFunctions(self._count_check() if self.measure == "count" else self._sum_check(), self._measurement)

    def history_needs(self) -> HistoryNeeds:
        """Return the window."""
        return HistoryNeeds(window_ms=self.window_ms)

    def gate(self) -> RuleGate:
        """Require as many earlier payments as must be counted; a sum can be reached by one payment."""
        return RuleGate(self.at_least - 1) if self.measure == "count" else RuleGate()

    def validate(self, _lists: Lists) -> None:
        """Raise BadParameter if more payments are to be counted than a history keeps for rules."""
        if self.measure == "count" and (problem := NumberRange(1, MAX_ROWS).problem(self.at_least)):
            raise BadParameter("at_least", f"at_least {problem}")

    def _count_check(self) -> Check:
        """Return a check that counts all payments of the history: no key has more."""
        window_ms, before = self.window_ms, self.at_least - 1

        def is_many(history: History, index: int, payment: Payment) -> bool:
            nearest = index - before  # if this payment is in the window, at least `at_least` payments are
            return nearest >= 0 and history.times[nearest] >= payment.event_time_ms - window_ms

        return is_many

    def _sum_check(self) -> Check:
        """Return a check that sums all payments of the history: no key has more."""
        window_ms, at_least = self.window_ms, self.at_least

        def is_much(history: History, index: int, payment: Payment) -> bool:
            sums = history.sums
            first = bisect_left(history.times, payment.event_time_ms - window_ms, 0, index + 1)
            return sums[index + 1] - sums[first] >= at_least

        return is_much

    def _measurement(self, history: History, index: int) -> Measurement:
        key, is_sum = self.by.removeprefix("account_"), self.measure == "sum"
        measure = "minor units" if is_sum else "payments"
        if KEYS[key](history.payments[index]) is None:
            return missing_field(measure, self.at_least, f"{key}_id")
        first = bisect_left(history.times, history.times[index] - self.window_ms, 0, index + 1)
        found = positions(key, history, index, first, index + 1, one_currency=is_sum)
        value = sum(history.payments[position].amount_minor for position in found) if is_sum else len(found)
        return Measurement(measure, value, self.at_least, value >= self.at_least, contributing_ids(history, found))
