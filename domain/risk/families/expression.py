"""Expression: a condition or a value that the author of the pack writes in the language of `domain.risk.expression`."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Final

from domain.payment import MAX_AMOUNT_MINOR
from domain.risk.expression import CompiledExpression
from domain.risk.families.measurement import (
    MAX_CONTRIBUTING,
    Check,
    Measurement,
    RuleFunctions,
    contributing_ids,
)
from domain.risk.families.rule import NumberRange, Rule, RuleParts
from domain.risk.history import History

MAX_VALUE: Final = 2**63 - 1
"""Largest value in a reason, and with a minus sign the smallest: a long in Avro."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression(Rule):
    """A value of at least `at_least`; a truth value counts as 1 if it is true, as 0 if not."""

    family: ClassVar[str] = "expression"
    documentation: ClassVar[str] = "docs/rules/expression.md"

    value: str
    at_least: Annotated[int, NumberRange(1, MAX_AMOUNT_MINOR)] = 1

    def compile(self, parts: RuleParts) -> RuleFunctions:
        """Return the check of guard and value, and the measurement of the value."""
        assert parts.value is not None
        return RuleFunctions(self._check(parts.value, parts.when), partial(self._measurement, parts.value))

    def _check(self, value: CompiledExpression, when: CompiledExpression | None) -> Check:
        evaluate, at_least = value.evaluate, self.at_least
        if when is None:
            return lambda history, index, _payment: evaluate(history, index) >= at_least
        guard = when.evaluate
        return lambda history, index, _payment: guard(history, index) and evaluate(history, index) >= at_least

    def _measurement(self, value: CompiledExpression, history: History, index: int) -> Measurement:
        found = max(-MAX_VALUE, min(MAX_VALUE, int(value.evaluate(history, index))))
        counted = {index, *(position for trace in value.traces for position in trace(history, index))}
        labels = [
            transaction_id
            for spec in value.needs.confirmed
            if (fact := history.fact(index, spec)) is not None
            for transaction_id in fact.transactions
        ]
        contributing = (*dict.fromkeys(labels), *contributing_ids(history, sorted(counted)))
        return Measurement("value", found, self.at_least, found >= self.at_least, contributing[-MAX_CONTRIBUTING:])
