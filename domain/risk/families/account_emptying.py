"""Account emptying: far more money leaves the account than usual."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Annotated, ClassVar

from domain.payment import MAX_AMOUNT_MINOR, Payment
from domain.risk.expression import HistoryNeeds
from domain.risk.families.measurement import Check, Measurement, RuleFunctions, RuleGate, contributing_ids
from domain.risk.families.rule import Lists, NumberRange, Rows, Rule, RuleParts, Window, check_at_most
from domain.risk.features import moments, positions
from domain.risk.history import MAX_WINDOW_MS, History


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEmptying(Rule):
    """Payments within `window_ms` that add up to `ratio_percent` or more of what the account usually pays in that time.

    With S the sum of the window [t - w, t], and B, n the sum and number of the payments in [t - lookback, t - w), the
    first of which is d before t - w: 100 * S * max(d, w) >= ratio_percent * B * w, for S of at least `minimum_minor`,
    n of at least `minimum_history` and d of at least `minimum_span_ms`: an account that is a few hours old has no usual
    day. Sums are of payments in the currency of the payment that is decided.
    """

    family: ClassVar[str] = "account_emptying"
    documentation: ClassVar[str] = "docs/rules/account_emptying.md"
    scales: ClassVar[bool] = True

    window_ms: Window
    lookback_ms: Window
    minimum_history: Rows
    minimum_minor: Annotated[int, NumberRange(1, MAX_AMOUNT_MINOR)]
    ratio_percent: Annotated[int, NumberRange(1, 1_000_000)]
    minimum_span_ms: Annotated[int, NumberRange(0, MAX_WINDOW_MS)] = 0

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return the check by running sums, and the measurement with its threshold."""
        return RuleFunctions(self._check(), self._measurement)

    def history_needs(self) -> HistoryNeeds:
        """Return the time to look back."""
        return HistoryNeeds(window_ms=self.lookback_ms)

    def gate(self) -> RuleGate:
        """Require `minimum_history` earlier payments."""
        return RuleGate(self.minimum_history)

    def validate(self, _lists: Lists) -> None:
        """Raise BadParameter if the window is longer than the time to look back."""
        check_at_most("window_ms", self.window_ms, "lookback_ms", self.lookback_ms)

    def _check(self) -> Check:
        """Return a check with the condition of the measurement, by running sums.

        A cheaper one would pass every payment of a busy account.
        """
        window_ms, lookback_ms, minimum, least = (
            self.window_ms, self.lookback_ms, self.minimum_minor, self.minimum_history,
        )  # fmt: skip
        ratio, shortest_ms = self.ratio_percent * window_ms, self.minimum_span_ms

        def is_much(history: History, index: int, payment: Payment) -> bool:
            times, sums, now_ms = history.times, history.sums, payment.event_time_ms
            if index < least or times[least - 1] >= now_ms - window_ms:
                return False
            first = bisect_left(times, now_ms - window_ms, least, index + 1)
            total = sums[index + 1] - sums[first]
            if total < minimum:
                return False
            oldest = bisect_left(times, now_ms - lookback_ms, 0, first)
            if history.is_mixed:
                return True
            if first - oldest < least:
                return False
            span_ms = now_ms - window_ms - times[oldest]
            if span_ms < shortest_ms:
                return False
            return 100 * total * max(window_ms, span_ms) >= ratio * (sums[first] - sums[oldest])

        return is_much

    def _measurement(self, history: History, index: int) -> Measurement:
        times = history.times
        now_ms = times[index]
        first = bisect_left(times, now_ms - self.window_ms, 0, index + 1)
        oldest = bisect_left(times, now_ms - self.lookback_ms, 0, first)
        usual = positions("account", history, index, oldest, first, one_currency=True)
        found = positions("account", history, index, first, index + 1, one_currency=True)
        value = moments("account", history, index, first, index + 1)[1]
        if len(usual) < self.minimum_history:
            lacking = f"{len(usual)} payments before, {self.minimum_history} are needed"
            return Measurement("minor units", value, self.minimum_minor, holds=False, lacking=lacking)
        span_ms = now_ms - self.window_ms - times[usual[0]]
        if span_ms < self.minimum_span_ms:
            lacking = f"{span_ms // 60_000} minutes of payments before, {self.minimum_span_ms // 60_000} are needed"
            return Measurement("minor units", value, self.minimum_minor, holds=False, lacking=lacking)
        before = moments("account", history, index, oldest, first)[1]
        span_ms = max(self.window_ms, span_ms)
        threshold = max(self.minimum_minor, -(-self.ratio_percent * before * self.window_ms // (100 * span_ms)))
        return Measurement("minor units", value, threshold, value >= threshold, contributing_ids(history, found))
