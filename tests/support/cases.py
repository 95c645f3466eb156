"""Builders of flags, commands and case events, and their common account, case and time."""

from typing import Any

from console.cases.acts import make_command
from domain.cases.commands import CloseCase, Command
from domain.cases.events import CaseAnswer, CaseEvent
from domain.cases.fold import CaseFold
from domain.payment import Refusal
from domain.reason import Reason
from domain.record import replace
from domain.record_types import InboxRecord, to_fields
from domain.risk.events import RiskFlagged, RiskRestated
from projections.views.case_view import CaseView, project

ACCOUNT = "acct-anna"
CASE = "031ffdd4-21c4-5946-bfa2-808b6f5d4f2c"
NOON = 1_750_000_000_000
REASON = Reason(rule="velocity", measure="payments", value=5, threshold=5, points=600, contributing=("tx-1",))


def flag(sequence: int, **changed: object) -> RiskFlagged:
    made = RiskFlagged(
        account_id=ACCOUNT,
        sequence=sequence,
        flag_id=f"flag-{sequence}",
        transaction_id=f"tx-{sequence}",
        content_digest="00",
        event_time=NOON,
        amount_minor=1_000,
        currency="EUR",
        merchant_id="bakery",
        card_id=None,
        payment_method="CARD",
        channel="POS",
        country=None,
        latitude=None,
        longitude=None,
        typology="rapid_spending",
        score=600,
        reasons=(REASON,),
        pack_id="pack",
    )
    return replace(made, **changed)


def restated(sequence: int, of: str, rules_before: tuple[str, ...], reasons: tuple[Reason, ...]) -> RiskRestated:
    data = {key: value for key, value in to_fields(flag(sequence)).items() if key != "reasons"}
    data |= {"flag_id": of, "score": 600 if reasons else 0, "transaction_id": of.replace("flag", "tx")}
    return RiskRestated(
        **data,
        reasons=reasons,
        score_before=600 if rules_before else 0,
        rules_before=rules_before,
        cause_transaction_id="late",
        cause_digest="01",
    )


def history(*records: InboxRecord) -> tuple[CaseFold, list[CaseEvent]]:
    fold = CaseFold()
    events: list[CaseEvent] = []
    for record in records:
        decided = fold.step(record)
        assert not isinstance(decided, Refusal), decided
        events += decided
    return fold, events


def kinds(events: list[CaseEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def close(**changed: object) -> CloseCase:
    made = CloseCase(
        account_id=ACCOUNT,
        case_id=CASE,
        command_id="cmd-close",
        actor="ana",
        seen_sequence=1,
        disposition="confirmed_fraud",
        reason="the customer did not pay this",
        requested_at_ms=NOON + 9,
    )
    return replace(made, **changed)


def viewed(events: list[CaseEvent], case_id: str = CASE) -> CaseView:
    view = None
    for event in events:
        if event.case_id == case_id and not isinstance(event, CaseAnswer):
            view = project(view, event)
    assert view is not None
    return view


def asked(act: str, actor: str = "ana", seen: int = 1, case_id: str = CASE, **fields: Any) -> Command:
    command = make_command(act, ACCOUNT, case_id, actor, seen, fields, f"{act}-{actor}-{seen}-{case_id[:4]}")
    return replace(command, requested_at_ms=NOON + 10)


def fold_events(*records: InboxRecord, fold: CaseFold | None = None) -> list[CaseEvent]:
    fold, events = fold or CaseFold(), []
    for record in records:
        decided = fold.step(record)
        assert not isinstance(decided, Refusal), decided
        events += decided
    return events


def case_of(record: InboxRecord) -> str:
    return fold_events(record)[0].case_id
