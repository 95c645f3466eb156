"""Amount spike: an amount far above what the account usually pays."""

from dataclasses import dataclass
from math import isqrt
from typing import Annotated, ClassVar

from domain.payment import Payment
from domain.risk.expression import HistoryNeeds
from domain.risk.families.measurement import Check, Measurement, RuleFunctions, RuleGate, contributing_ids
from domain.risk.families.rule import Lists, Minor, NumberRange, Rows, Rule, RuleParts, check_at_most
from domain.risk.features import moments, positions
from domain.risk.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountSpike(Rule):
    """An amount more than `sigmas` standard deviations above the mean of the account's previous `history` payments.

    In integers, with n, s, q the number, sum and sum of squares of those in the payment's currency and x the amount:
    n*x > s and (n*x - s)^2 > sigmas^2 * (n*q - s^2), for n of at least `minimum_history`, x of at least
    `minimum_minor` and 100*n*x >= ratio_percent*s. The ratio is for accounts that always pay the same amount: their
    standard deviation is zero.
    """

    family: ClassVar[str] = "amount_spike"
    documentation: ClassVar[str] = "docs/rules/amount_spike.md"
    scales: ClassVar[bool] = True

    history: Rows
    minimum_history: Rows
    sigmas: Annotated[int, NumberRange(0, 1_000)]
    minimum_minor: Minor
    ratio_percent: Annotated[int, NumberRange(0, 1_000_000)]

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return the check by running sums, and the measurement with its threshold."""
        return RuleFunctions(self._check(), self._measurement)

    def history_needs(self) -> HistoryNeeds:
        """Return the number of payments that the mean is taken of."""
        return HistoryNeeds(rows=self.history)

    def gate(self) -> RuleGate:
        """Require `minimum_history` earlier payments."""
        return RuleGate(self.minimum_history)

    def validate(self, _lists: Lists) -> None:
        """Raise BadParameter if more payments are required than are looked at."""
        check_at_most("minimum_history", self.minimum_history, "history", self.history)

    def _check(self) -> Check:
        rows, least, minimum, ratio, variances = (
            self.history, self.minimum_history, self.minimum_minor, self.ratio_percent, self.sigmas**2,
        )  # fmt: skip

        def is_spike(history: History, index: int, payment: Payment) -> bool:
            amount = payment.amount_minor
            if amount < minimum or index < least:
                return False
            if history.is_mixed:
                return True
            n = min(rows, index)
            sums = history.sums
            total = sums[index] - sums[index - n]
            excess = n * amount - total
            if excess <= 0 or 100 * n * amount < ratio * total:
                return False
            spread = variances * (n * (history.squares[index] - history.squares[index - n]) - total * total)
            return excess * excess > spread

        return is_spike

    def _measurement(self, history: History, index: int) -> Measurement:
        first = max(0, index - self.history)
        amount = history.payments[index].amount_minor
        n, total, squares = moments("account", history, index, first, index)
        if n < self.minimum_history:
            lacking = f"{n} earlier payments in {history.payments[index].currency}, {self.minimum_history} are needed"
            return Measurement("minor units", amount, self.minimum_minor, holds=False, lacking=lacking)
        spread = self.sigmas**2 * (n * squares - total * total)
        threshold = max(
            self.minimum_minor,
            -(-self.ratio_percent * total // (100 * n)),
            (total + isqrt(spread)) // n + 1,  # the smallest amount whose squared excess is above the spread
        )
        found = positions("account", history, index, first, index, one_currency=True)
        return Measurement("minor units", amount, threshold, amount >= threshold, contributing_ids(history, found))
