"""Card testing: many small payments in a short time."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Annotated, ClassVar

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
from domain.risk.families.rule import AccountKey, NumberRange, Rule, RuleParts, Window
from domain.risk.features import KEYS, positions
from domain.risk.history import MAX_ROWS, History


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTesting(Rule):
    """At least `at_least` payments of at most `at_most_minor` each, of one key within `window_ms`, this one included.

    Only payments in the currency of this one count.
    """

    family: ClassVar[str] = "card_testing"
    documentation: ClassVar[str] = "docs/rules/card_testing.md"
    scales: ClassVar[bool] = True

    by: AccountKey = "card"
    window_ms: Window
    at_least: Annotated[int, NumberRange(2, MAX_ROWS)]
    at_most_minor: Annotated[int, NumberRange(1, MAX_AMOUNT_MINOR)]

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return the check by all payments of the account, and the measurement by the small ones of the key."""
        return RuleFunctions(self._check(), self._measurement)

    def history_needs(self) -> HistoryNeeds:
        """Return the window."""
        return HistoryNeeds(window_ms=self.window_ms)

    def gate(self) -> RuleGate:
        """Require as many earlier payments as must be counted."""
        return RuleGate(self.at_least - 1)

    def _check(self) -> Check:
        window_ms, before, at_most = self.window_ms, self.at_least - 1, self.at_most_minor

        def is_busy(history: History, index: int, payment: Payment) -> bool:
            if payment.amount_minor > at_most:
                return False
            nearest = index - before
            return nearest >= 0 and history.times[nearest] >= payment.event_time_ms - window_ms

        return is_busy

    def _measurement(self, history: History, index: int) -> Measurement:
        key, payments = self.by.removeprefix("account_"), history.payments
        if KEYS[key](payments[index]) is None:
            return missing_field("small payments", self.at_least, f"{key}_id")
        first = bisect_left(history.times, history.times[index] - self.window_ms, 0, index + 1)
        found = [
            position
            for position in positions(key, history, index, first, index + 1, one_currency=True)
            if payments[position].amount_minor <= self.at_most_minor
        ]
        lacking = ""
        if payments[index].amount_minor > self.at_most_minor:
            lacking = f"{payments[index].amount_minor} minor units are above {self.at_most_minor}"
        holds = len(found) >= self.at_least and not lacking
        ids = contributing_ids(history, found)
        return Measurement("small payments", len(found), self.at_least, holds, ids, lacking)
