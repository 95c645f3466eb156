"""Compiled form of the rules of a family: a cheap check, an exact measurement, and a gate before both.

Nearly no payment fires a rule. So a check runs first that is cheap and fails nearly always. Only a payment that passes
it is measured; the measurement decides, and names the unmet condition, for reasons and for `fraudcase explain`.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from domain.payment import Payment
from domain.risk.history import History

MAX_CONTRIBUTING: Final = 100
"""Maximum number of payments named in one reason, the last ones; the value counts them all."""


class Measurement(NamedTuple):
    """Result of measuring one payment by one rule.

    `measure` names the unit of `value` and `threshold`. `value` is None if there is nothing to measure; if the rule
    `holds`, it is at least `threshold`. `contributing` are transaction ids. `lacking` says why the rule does not hold.
    """

    measure: str
    value: int | None
    threshold: int
    holds: bool
    contributing: tuple[str, ...] = ()
    lacking: str = ""


Measure: TypeAlias = Callable[[History, int], Measurement]
"""Measurement of the payment at an index of its account's history."""
Check: TypeAlias = Callable[[History, int, Payment], bool]
"""Cheap check of the payment at an index of its history. It is False only if the measurement does not hold."""


class RuleFunctions(NamedTuple):
    """Check and measurement of one rule."""

    check: Check
    measure: Measure


class RuleGate(NamedTuple):
    """Minimum number of earlier payments, and the channels, in which a rule can hold; None stands for all channels.

    Both are known before any check runs, so that most checks need not run.
    """

    least_index: int = 0
    channels: frozenset[str] | None = None


def contributing_ids(history: History, found: Sequence[int]) -> tuple[str, ...]:
    """Return the transaction ids of the payments at these indexes, the last MAX_CONTRIBUTING of them."""
    return tuple(history.payments[position].transaction_id for position in found[-MAX_CONTRIBUTING:])


def missing_field(measure: str, threshold: int, field: str) -> Measurement:
    """Return the measurement of a payment that lacks the field to be measured by."""
    return Measurement(measure, None, threshold, holds=False, lacking=f"the payment has no {field}")
