"""The common part of the families blocklist and allowlist: a field of the payment is in a list of the pack."""

from dataclasses import dataclass

from domain.payment import Payment
from domain.risk.expression import suggest_name
from domain.risk.families.measurement import Measurement, RuleFunctions
from domain.risk.families.rule import BadParameter, ListKey, Lists, Rule, RuleParts
from domain.risk.features import KEYS
from domain.risk.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRule(Rule):
    """The payment's `field` is in the pack's list of the name `list`."""

    field: ListKey
    list: str

    def compile(self, parts: RuleParts) -> RuleFunctions:
        """Return the check by membership, and the measurement: 1 for a member, 0 for others."""
        members, read = frozenset(parts.lists[self.list]), KEYS[self.field]
        name = self.list

        def is_listed(_history: History, _index: int, payment: Payment) -> bool:
            return read(payment) in members

        def measurement(history: History, index: int) -> Measurement:
            payment = history.payments[index]
            is_in = read(payment) in members
            return Measurement(f"in list {name}", int(is_in), 1, is_in, (payment.transaction_id,))

        return RuleFunctions(is_listed, measurement)

    def validate(self, lists: Lists) -> None:
        """Raise BadParameter if the pack has no such list."""
        if self.list not in lists:
            raise BadParameter("list", f"the pack has no list {self.list!r}. Cure: {suggest_name(self.list, lists)}")
