"""An entity pack, its activation, and payments of many accounts at one merchant."""

from collections.abc import Iterable
from typing import Any

from domain.payment import Refusal
from domain.record import replace as replace_in
from domain.risk.events import EntityPayment, RulesActivated
from domain.risk.families.velocity import Velocity
from domain.risk.fold import RiskFold
from domain.risk.packs import RulePack, parse_pack
from tests.support.payments import MINUTE_MS, NOON, admitted, payment

SHOP = Velocity(
    name="shop", typology="shop_attack", points=500, by="merchant", measure="count", window_ms=MINUTE_MS, at_least=3,
    severity="high", reason_code="M1",
)  # fmt: skip


TILL = Velocity(
    name="till", typology="till_attack", points=700, by="terminal", measure="sum", window_ms=MINUTE_MS, at_least=5_000
)


PACK = RulePack(name="entities", version=1, rules=(SHOP, TILL))


def activation(pack: RulePack, **changed: str) -> RulesActivated:
    assert parse_pack(pack.canonical) == pack
    return replace_in(RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="test"), **changed)


def sent(raws: Iterable[dict[str, Any]], pack: RulePack = PACK) -> list[EntityPayment]:
    """Return the records that the risk fold sends on for these payments, in order."""
    fold, records = RiskFold(2), []
    fold.activate(activation(pack))
    for offset, raw in enumerate(raws):
        outputs = fold.step(admitted(raw), offset)
        assert not isinstance(outputs, Refusal), outputs
        records += [output for output in outputs if isinstance(output, EntityPayment)]
    return records


def crowd(times: list[int], **changed: Any) -> list[dict[str, Any]]:
    """Build one payment of each of many accounts at one merchant."""
    return [
        payment(f"tx-{number}", account_id=f"acct-{number}", event_time=NOON + at, **changed)
        for number, at in enumerate(times)
    ]
