"""Blocklist: a payment of something that is on a list of the pack."""

from dataclasses import dataclass
from typing import ClassVar

from domain.risk.families.list_rule import ListRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocklist(ListRule):
    """The payment's `field` is in the pack's list of the name `list`."""

    family: ClassVar[str] = "blocklist"
    documentation: ClassVar[str] = "docs/rules/blocklist.md"
