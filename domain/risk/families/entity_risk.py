"""Entity risk: a payment that shares a merchant, terminal, device, card or account with confirmed frauds."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from domain.payment import Payment
from domain.risk.expression import HistoryNeeds
from domain.risk.families.measurement import Measurement, RuleFunctions, missing_field
from domain.risk.families.rule import LabelKey, NumberRange, Rule, RuleParts, Window
from domain.risk.features import KEYS
from domain.risk.history import MAX_ROWS, History


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityRisk(Rule):
    """At least `at_least` confirmed frauds within `window_ms` that share the key `by` with the payment.

    Only frauds that were known when the payment arrived count. They must be of at least `minimum_accounts` accounts.
    Frauds of many accounts point to a common place where data was stolen; the frauds of one stolen card say little
    about the places where it was used.
    """

    family: ClassVar[str] = "entity_risk"
    documentation: ClassVar[str] = "docs/rules/entity_risk.md"
    scales: ClassVar[bool] = True
    is_by_labels: ClassVar[bool] = True

    by: LabelKey
    window_ms: Window
    at_least: Annotated[int, NumberRange(1, MAX_ROWS)]
    minimum_accounts: Annotated[int, NumberRange(1, 20)] = 1

    def compile(self, _parts: RuleParts) -> RuleFunctions:
        """Return a check that always passes, since the fold knows which payments have facts, and the measurement."""
        return RuleFunctions(_passes, self._measurement)

    def history_needs(self) -> HistoryNeeds:
        """Return the labels to be looked up when a payment arrives."""
        return HistoryNeeds(confirmed=((self.by, self.window_ms),))

    def _measurement(self, history: History, index: int) -> Measurement:
        measure = f"confirmed frauds of the {self.by}"
        if KEYS[self.by](history.payments[index]) is None:
            return missing_field(measure, self.at_least, f"{self.by}_id")
        fact = history.fact(index, (self.by, self.window_ms))
        if fact is None:
            return Measurement(measure, 0, self.at_least, holds=False)
        lacking = ""
        if fact.accounts < self.minimum_accounts:
            lacking = f"of {fact.accounts} accounts, {self.minimum_accounts} are needed"
        holds = fact.number >= self.at_least and not lacking
        return Measurement(measure, fact.number, self.at_least, holds, fact.transactions, lacking)


def _passes(_history: History, _index: int, _payment: Payment) -> bool:
    return True
