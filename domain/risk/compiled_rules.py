"""Rules compiled to functions: how one rule of a pack decides on a payment, and how points become a score."""

from typing import NamedTuple

from domain.reason import Reason
from domain.risk.expression import CompiledExpression, HistoryNeeds, compile_expression
from domain.risk.families.measurement import Check, Measure, Measurement, RuleGate
from domain.risk.families.rule import EXPRESSION_PARAMETERS, Lists, Rule, RuleParts
from domain.risk.features import scope
from domain.risk.history import History

MAX_POINTS = 1_000
"""Thousandths that one rule can give, and largest score."""


class CompiledRule(NamedTuple):
    """A rule with the functions that decide it; `points`, `when` and `value` are its expressions, if it has them."""

    rule: Rule
    gate: RuleGate
    check: Check
    measure: Measure
    points: CompiledExpression | None
    when: CompiledExpression | None
    value: CompiledExpression | None
    needs: HistoryNeeds

    def reason(self, history: History, index: int) -> Reason | None:
        """Return why the rule fires for the payment at an index, or None if it does not."""
        found = self.measure(history, index)
        if not found.holds or not self.is_open(history, index):
            return None
        points = self.points_for(found, history, index)
        if points < 1:
            return None
        assert found.value is not None
        return Reason(
            rule=self.rule.name,
            measure=found.measure,
            value=found.value,
            threshold=found.threshold,
            points=points,
            contributing=found.contributing,
            severity=self.rule.severity,
            reason_code=self.rule.reason_code,
        )

    def is_open(self, history: History, index: int) -> bool:
        """Return whether the rule's guard (`when`) is absent or true for the payment at an index."""
        return self.when is None or bool(self.when.evaluate(history, index))

    def points_for(self, found: Measurement, history: History, index: int) -> int:
        """Return the points, 0 to 1000, for a measurement that holds.

        An expression gives them; else the rule's number does, in proportion to the value if the family scales.
        """
        if self.points is not None:
            points: int = self.points.evaluate(history, index)
            return max(0, min(MAX_POINTS, points))
        assert isinstance(self.rule.points, int)
        assert found.value is not None
        if not self.rule.scales:
            return self.rule.points
        return min(MAX_POINTS, self.rule.points * found.value // found.threshold)


def combine_permille(score: int, points: int) -> int:
    """Combine two thousandths as independent probabilities, 1 - (1 - a)(1 - b), in integers."""
    return score + points - score * points // 1000


def compile_rule(rule: Rule, lists: Lists) -> CompiledRule:
    """Compile a rule with the lists of its pack. Raises BadExpression, but never for the rule of a parsed pack."""
    compiled = {key: compile_parameter(rule, key, lists) for key in expression_parameters(rule)}
    parts = RuleParts(lists, **{key: compiled.get(key) for key in EXPRESSION_PARAMETERS})
    needs = rule.history_needs()
    for part in (parts.when, parts.points, parts.value):
        if part is not None:
            needs |= part.needs
    check, measure = rule.compile(parts)
    return CompiledRule(rule, rule.gate(), check, measure, parts.points, parts.when, parts.value, needs)


def expression_parameters(rule: Rule) -> list[str]:
    """Return the names of the rule's parameters that hold an expression. An empty `when` is none."""
    return [
        key
        for key in EXPRESSION_PARAMETERS
        if isinstance(source := getattr(rule, key, None), str) and (source or key != "when")
    ]


def compile_parameter(rule: Rule, key: str, lists: Lists) -> CompiledExpression:
    """Compile the expression in a parameter of a rule. Raises BadExpression."""
    return compile_expression(getattr(rule, key), scope({name: frozenset(ids) for name, ids in lists.items()}))
