"""Impossible travel: one card at two places, too far apart for the time between the payments."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from domain.geo import least_microdegrees
from domain.payment import CARD_PRESENT_CHANNELS, Payment
from domain.risk.expression import HistoryNeeds
from domain.risk.families.measurement import Check, Measurement, RuleFunctions, RuleGate, missing_field
from domain.risk.families.rule import NumberRange, Rule, RuleParts, Window
from domain.risk.features import is_placed, journey, previous_present
from domain.risk.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpossibleTravel(Rule):
    """Two card-present payments of one card, the second farther away than anyone can travel in the time between.

    The payment is compared with the card's previous card-present payment, if that is at most `within_ms` old. The rule
    holds if they are at least `minimum_m` metres apart and the speed between them is above `speed_kmh`.
    """

    family: ClassVar[str] = "impossible_travel"
    documentation: ClassVar[str] = "docs/rules/impossible_travel.md"
    scales: ClassVar[bool] = True

    minimum_m: Annotated[int, NumberRange(0, 20_100_000)]
    speed_kmh: Annotated[int, NumberRange(1, 1_000_000)]
    within_ms: Window

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return the check by differences of coordinates, and the measurement by great-circle distance."""
        return RuleFunctions(self._check(), self._measurement)

    def history_needs(self) -> HistoryNeeds:
        """Return the maximum age of the previous payment."""
        return HistoryNeeds(window_ms=self.within_ms)

    def gate(self) -> RuleGate:
        """Require one earlier payment, and a channel with the card present."""
        return RuleGate(1, CARD_PRESENT_CHANNELS)

    def _check(self) -> Check:
        within_ms = self.within_ms
        least = least_microdegrees(self.minimum_m)

        def is_apart(history: History, index: int, payment: Payment) -> bool:
            latitude, longitude = payment.latitude, payment.longitude
            if latitude is None or longitude is None or payment.channel not in CARD_PRESENT_CHANNELS:
                return False
            if payment.card_id is None:
                return False
            before = previous_present(history, index, within_ms)
            if before is None or before.latitude is None or before.longitude is None:
                return False
            return abs(before.latitude - latitude) + abs(before.longitude - longitude) >= least

        return is_apart

    def _measurement(self, history: History, index: int) -> Measurement:
        here = history.payments[index]
        if not is_placed(here):
            return missing_field("km/h", self.speed_kmh, "card that was present at known coordinates")
        before = previous_present(history, index, self.within_ms)
        if before is None:
            return Measurement(
                "km/h", None, self.speed_kmh, holds=False, lacking="no earlier payment of the card to compare with"
            )
        metres, speed = journey(before, here)
        elapsed_ms = here.event_time_ms - before.event_time_ms
        is_fast = metres * 3600 > self.speed_kmh * elapsed_ms
        lacking = ""
        if metres < self.minimum_m:
            lacking = f"{metres} m apart, {self.minimum_m} are needed"
        elif not is_fast and speed == self.speed_kmh:
            lacking = f"the speed must be above {self.speed_kmh} km/h"
        holds = is_fast and metres >= self.minimum_m
        return Measurement("km/h", speed, self.speed_kmh, holds, (before.transaction_id,), lacking)
