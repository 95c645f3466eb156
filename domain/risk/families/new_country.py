"""New country: a country that the account has not paid in before."""

from dataclasses import dataclass
from typing import ClassVar

from domain.risk.families.novelty import NoveltyRule


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCountry(NoveltyRule):
    """A country that none of the account's payments in the last `lookback_ms` was made in.

    At least `minimum_history` of them must have been made in another country.
    """

    family: ClassVar[str] = "new_country"
    documentation: ClassVar[str] = "docs/rules/new_country.md"
    key: ClassVar[str] = "country"
