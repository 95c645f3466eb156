"""Far from home: a payment far from the billing address."""

from dataclasses import dataclass
from typing import ClassVar

from domain.geo import least_microdegrees
from domain.payment import Payment
from domain.risk.families.measurement import Check, Measurement, RuleFunctions, RuleGate, missing_field
from domain.risk.families.rule import Metres, Rule, RuleParts
from domain.risk.features import home_distance_m
from domain.risk.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class FarFromHome(Rule):
    """A payment at least `minimum_m` metres from the billing address, in one of `channels`; in any if none is named."""

    family: ClassVar[str] = "far_from_home"
    documentation: ClassVar[str] = "docs/rules/far_from_home.md"

    minimum_m: Metres
    channels: tuple[str, ...] = ()

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return the check by differences of coordinates, and the measurement by great-circle distance."""
        return RuleFunctions(self._check(), self._measurement)

    def gate(self) -> RuleGate:
        """Require one of the rule's channels."""
        return RuleGate(0, frozenset(self.channels)) if self.channels else RuleGate()

    def _check(self) -> Check:
        least = least_microdegrees(self.minimum_m)

        def is_far(_history: History, _index: int, payment: Payment) -> bool:
            latitude, longitude = payment.latitude, payment.longitude
            home_latitude, home_longitude = payment.home_latitude, payment.home_longitude
            if latitude is None or longitude is None or home_latitude is None or home_longitude is None:
                return False
            return abs(latitude - home_latitude) + abs(longitude - home_longitude) >= least

        return is_far

    def _measurement(self, history: History, index: int) -> Measurement:
        payment = history.payments[index]
        metres = home_distance_m(payment)
        if metres < 0:
            return missing_field("m", self.minimum_m, "coordinates of its own and of home")
        lacking = ""
        if self.channels and payment.channel not in self.channels:
            lacking = f"channel {payment.channel} is none of {', '.join(self.channels)}"
        holds = metres >= self.minimum_m and not lacking
        return Measurement("m", metres, self.minimum_m, holds, (payment.transaction_id,), lacking)
