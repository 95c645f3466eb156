"""The table of rule families. A new family is one file beside this one, one entry here, and one page in docs/rules."""

from typing import Final

from domain.risk.families.account_emptying import AccountEmptying
from domain.risk.families.allowlist import Allowlist
from domain.risk.families.amount_spike import AmountSpike
from domain.risk.families.blocklist import Blocklist
from domain.risk.families.card_testing import CardTesting
from domain.risk.families.entity_risk import EntityRisk
from domain.risk.families.expression import Expression
from domain.risk.families.far_from_home import FarFromHome
from domain.risk.families.impossible_travel import ImpossibleTravel
from domain.risk.families.new_country import NewCountry
from domain.risk.families.new_device import NewDevice
from domain.risk.families.rule import Rule
from domain.risk.families.unusual_hour import UnusualHour
from domain.risk.families.velocity import Velocity

_KINDS: Final[tuple[type[Rule], ...]] = (
    Velocity,
    AmountSpike,
    ImpossibleTravel,
    FarFromHome,
    CardTesting,
    NewDevice,
    NewCountry,
    EntityRisk,
    AccountEmptying,
    UnusualHour,
    Blocklist,
    Allowlist,
    Expression,
)
FAMILIES: Final[dict[str, type[Rule]]] = {kind.family: kind for kind in _KINDS}
"""Every family by its name in rule packs, in the order in which errors and pages list them."""
