"""Unusual hour: a time of day at which the account does not usually pay."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from domain.durations import DAY_MS
from domain.payment import Payment
from domain.risk.expression import HistoryNeeds
from domain.risk.families.measurement import Check, Measurement, RuleFunctions, RuleGate, contributing_ids
from domain.risk.families.rule import Lists, NumberRange, Rows, Rule, RuleParts, check_at_most
from domain.risk.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusualHour(Rule):
    """At least `at_least_permille` of the account's previous `history` payments were made at another time of day.

    Another time of day is more than `radius_ms` away on the clock face. The payment is compared with the account's own
    habit, so its time zone does not matter. The account needs at least `minimum_history` earlier payments.
    """

    family: ClassVar[str] = "unusual_hour"
    documentation: ClassVar[str] = "docs/rules/unusual_hour.md"

    history: Rows
    minimum_history: Rows
    radius_ms: Annotated[int, NumberRange(1, 43_199_999)]
    at_least_permille: Annotated[int, NumberRange(1, 1_000)]

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return the check, which stops at the first payment too many, and the measurement, which counts them all."""
        return RuleFunctions(self._check(), self._measurement)

    def history_needs(self) -> HistoryNeeds:
        """Return the number of payments that make the habit."""
        return HistoryNeeds(rows=self.history)

    def gate(self) -> RuleGate:
        """Require `minimum_history` earlier payments."""
        return RuleGate(self.minimum_history)

    def validate(self, _lists: Lists) -> None:
        """Raise BadParameter if more payments are required than are looked at."""
        check_at_most("minimum_history", self.minimum_history, "history", self.history)

    def _check(self) -> Check:
        rows, least, radius_ms = self.history, self.minimum_history, self.radius_ms
        near_permille = 1000 - self.at_least_permille

        def is_unusual(history: History, index: int, payment: Payment) -> bool:
            if index < least:
                return False
            n = min(rows, index)
            left = n * near_permille // 1000  # number of payments that may have been made at this time of day
            now_ms, times = payment.event_time_ms, history.times
            for position in range(index - 1, index - n - 1, -1):
                apart_ms = (now_ms - times[position]) % DAY_MS
                if apart_ms <= radius_ms or DAY_MS - apart_ms <= radius_ms:
                    if not left:
                        return False
                    left -= 1
            return True

        return is_unusual

    def _measurement(self, history: History, index: int) -> Measurement:
        measure, threshold = "permille at other times of day", self.at_least_permille
        n = min(index, self.history)
        if n < self.minimum_history:
            lacking = f"{n} earlier payments, {self.minimum_history} are needed"
            return Measurement(measure, None, threshold, holds=False, lacking=lacking)
        others = [
            position
            for position in range(index - n, index)
            if self.radius_ms < (history.times[index] - history.times[position]) % DAY_MS < DAY_MS - self.radius_ms
        ]
        value = 1000 * len(others) // n
        ids = contributing_ids(history, range(index - n, index))
        return Measurement(measure, value, threshold, value >= threshold, ids)
