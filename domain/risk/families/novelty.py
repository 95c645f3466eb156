"""The common part of the families new_device and new_country: a key that the account has not paid with before."""

from dataclasses import dataclass
from typing import ClassVar, Final

from domain.payment import Payment
from domain.risk.expression import HistoryNeeds
from domain.risk.families.measurement import (
    Check,
    Measurement,
    RuleFunctions,
    RuleGate,
    contributing_ids,
    missing_field,
)
from domain.risk.families.rule import Rows, Rule, RuleParts, Window
from domain.risk.features import KEYS
from domain.risk.history import History

CHECKED_BACK: Final = 4
"""Earlier payments that the check looks at before it leaves the rest to the measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoveltyRule(Rule):
    """A value of `key` that no payment of the account in the last `lookback_ms` has.

    At least `minimum_history` of them must have another value.
    """

    key: ClassVar[str]
    """Key of `features.KEYS` whose values are compared."""

    lookback_ms: Window
    minimum_history: Rows

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return the check by the last few payments, and the measurement by all in `lookback_ms`."""
        return RuleFunctions(self._check(), self._measurement)

    def history_needs(self) -> HistoryNeeds:
        """Return the time to look back."""
        return HistoryNeeds(window_ms=self.lookback_ms)

    def gate(self) -> RuleGate:
        """Require `minimum_history` earlier payments."""
        return RuleGate(self.minimum_history)

    def _check(self) -> Check:
        """Return a check that compares the last few payments: the value of most payments is among those."""
        read, minimum_history, lookback_ms = KEYS[self.key], self.minimum_history, self.lookback_ms

        def is_other(history: History, index: int, payment: Payment) -> bool:
            here = read(payment)
            if here is None or index < minimum_history:
                return False
            payments = history.payments
            for position in range(index - 1, max(-1, index - 1 - CHECKED_BACK), -1):
                before = payments[position]
                if read(before) == here:
                    return before.event_time_ms < payment.event_time_ms - lookback_ms
            return True

        return is_other

    def _measurement(self, history: History, index: int) -> Measurement:
        """Count the earlier payments with another value; the value is 0 if an earlier payment has this one."""
        key, payments = self.key, history.payments
        read, measure = KEYS[key], f"payments elsewhere before a new {key}"
        here = read(payments[index])
        if here is None:
            return missing_field(measure, self.minimum_history, key)
        oldest_ms = history.times[index] - self.lookback_ms
        others: list[int] = []
        for position in range(index - 1, -1, -1):
            if history.times[position] < oldest_ms:
                break
            there = read(payments[position])
            if there == here:
                seen = payments[position].transaction_id
                return Measurement(measure, 0, self.minimum_history, holds=False, lacking=f"seen before, in {seen}")
            if there is not None:
                others.append(position)
        holds = len(others) >= self.minimum_history
        ids = contributing_ids(history, others[::-1])
        return Measurement(measure, len(others), self.minimum_history, holds, ids)
