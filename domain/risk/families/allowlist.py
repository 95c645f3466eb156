"""Allowlist: a payment that is not to be flagged, because something of it is on a list of the pack."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from domain.risk.families.list_rule import ListRule
from domain.risk.families.rule import NumberRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowlist(ListRule):
    """The payment's `field` is in the pack's list of the name `list`: then no rule of the pack flags the payment."""

    family: ClassVar[str] = "allowlist"
    documentation: ClassVar[str] = "docs/rules/allowlist.md"
    is_allowing: ClassVar[bool] = True

    points: Annotated[int, NumberRange(0, 0)] = 0
