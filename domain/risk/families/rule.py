"""The base class of all rules: the parameters that every family has, and the questions that every family answers.

The type of a parameter says which values are allowed: `Annotated[int, NumberRange(...)]`, `Literal[...]`. The checks of
`domain.risk.packs`, and those of rule files in `console.rules.files`, derive from these types.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, TypeAlias, get_args, get_type_hints

from domain.payment import MAX_AMOUNT_MINOR
from domain.risk.expression import NO_NEEDS, CompiledExpression, HistoryNeeds
from domain.risk.families.measurement import RuleFunctions, RuleGate
from domain.risk.history import MAX_ROWS, MAX_WINDOW_MS

Lists: TypeAlias = Mapping[str, tuple[str, ...]]
"""The lists of a pack: ids by the name of the list."""


class BadParameter(ValueError):
    """A parameter of a rule that does not fit another parameter or the pack; the message begins with the mistake."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class NumberRange(NamedTuple):
    """Smallest and largest value that a number may have, both allowed."""

    least: int
    most: int

    def problem(self, value: Any) -> str:
        """Return an error message for a value, or "" if it is a whole number in this range."""
        if isinstance(value, bool) or not isinstance(value, int):
            return f"must be a whole number, not {value!r}"
        if not self.least <= value <= self.most:
            return f"must be between {self.least} and {self.most}, not {value}"
        return ""


Points: TypeAlias = int | str
Window: TypeAlias = Annotated[int, NumberRange(1, MAX_WINDOW_MS)]
Rows: TypeAlias = Annotated[int, NumberRange(1, MAX_ROWS)]
Minor: TypeAlias = Annotated[int, NumberRange(0, MAX_AMOUNT_MINOR)]
Metres: TypeAlias = Annotated[int, NumberRange(1, 20_100_000)]  # half the earth's circumference
Severity: TypeAlias = Literal["low", "medium", "high", "critical"]
AccountKey: TypeAlias = Literal["account", "card", "account_device", "account_merchant", "account_terminal"]
EntityKey: TypeAlias = Literal["device", "merchant", "terminal"]
LabelKey: TypeAlias = Literal["merchant", "terminal", "device", "card", "account"]
ListKey: TypeAlias = Literal[
    "account", "card", "device", "merchant", "terminal", "counterparty", "country", "category", "channel"
]
ENTITY_KEYS: Final[tuple[str, ...]] = get_args(EntityKey)
SEVERITIES: Final[tuple[str, ...]] = get_args(Severity)


class RuleParts(NamedTuple):
    """Compiled expressions of a rule (None for those that it lacks), and the lists of its pack."""

    lists: Lists
    when: CompiledExpression | None
    points: CompiledExpression | None
    value: CompiledExpression | None


EXPRESSION_PARAMETERS: Final = ("when", "points", "value")
"""Parameters whose text is an expression, in a rule of any family that has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(ABC):
    """A rule of a pack. Each family is a subclass.

    `points` is the number of thousandths that the rule adds to the score. A whole number is what the rule gives at its
    threshold; families with `scales` give more in proportion to the measured value, at most 1000. A text is an integer
    expression that gives the points, 0 to 1000; with 0 the rule does not fire. `when` is a truth expression that must
    hold too.
    """

    family: ClassVar[str]
    """Name of the family in rule packs."""
    documentation: ClassVar[str]
    """Page of the family, relative to the root of the repository."""
    scales: ClassVar[bool] = False
    """Whether the points grow with the measured value."""
    is_by_labels: ClassVar[bool] = False
    """Whether only payments with confirmed frauds among their keys are measured; then the check is not called."""
    is_allowing: ClassVar[bool] = False
    """Whether the rule prevents a flag instead of adding points."""

    name: str
    typology: str
    points: Points
    severity: Severity = "medium"
    reason_code: str = ""
    when: str = ""

    @property
    def entity_key(self) -> str:
        """Return the kind of entity in whose history the rule is decided, or "" for the account's own history."""
        return ""

    @abstractmethod
    def compile(self, parts: RuleParts) -> RuleFunctions:
        """Return the check and the measurement of this rule."""

    def history_needs(self) -> HistoryNeeds:
        """Return the history that the rule needs, in addition to the needs of its expressions."""
        return NO_NEEDS

    def gate(self) -> RuleGate:
        """Return the condition that must hold before the check is worth calling."""
        return RuleGate()

    def validate(self, lists: Lists) -> None:  # noqa: B027 - most families have nothing to check
        """Raise BadParameter if a parameter contradicts another one, or the lists of the pack."""


def parameters(kind: type[Rule]) -> dict[str, Any]:
    """Return the parameters of a family by name, each with the type that says which values are allowed."""
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name] for each in fields(kind)}


def choices(hint: Any) -> tuple[str, ...]:
    """Return the texts that a parameter may be, from its Literal type or a union of Literal types."""
    return tuple(each for part in get_args(hint) for each in (choices(part) if get_args(part) else (part,)))


def check_at_most(parameter: str, value: int, other: str, most: int) -> None:
    """Raise BadParameter if a parameter is larger than another one."""
    if value > most:
        raise BadParameter(parameter, f"{parameter} must be at most {most}, as {other} is. Cure: lower it")
