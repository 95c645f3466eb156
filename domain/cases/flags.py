"""Effect of flags and clock ticks on the cases of an account."""

from domain.cases.escalation import case_escalated, escalation_of_flag
from domain.cases.events import CaseEvent, CaseOpened, CaseWoken, ClockTicked, RiskLinked, RiskRevised, case_id
from domain.cases.state import SLA_MS, AccountCases, Case, case_after_event, open_case, standing_flags_change
from domain.engines import Engine
from domain.risk.events import EntityFlagged, Flag, RiskRestated


def on_flag(state: AccountCases, record: Flag, engine: Engine) -> list[CaseEvent]:
    """Return the events that a flag results in. It opens or joins a case.

    A restatement goes to every case that has the flag, closed ones too. A withdrawn flag that is valid again opens or
    joins a case unless an open case has it, because the closed case was decided without it.
    """
    events: list[CaseEvent] = []
    if isinstance(record, RiskRestated):
        holders = [case for case in (*state.cases.values(), *state.closed) if case.knows(record.flag_id)]
        revised = [(case, _risk_revised(case, record, engine)) for case in holders]
        events += [event for _, event in revised]
        if holders and (record.rules_before or any(case.is_open for case in holders)):
            if engine.weighs_restatements:
                events += _reconsider_restated(state.account_id, revised, record)
            return events
    if not record.reasons:
        return events
    case = state.open_for(record.typology)
    if case is None:
        first = _case_opened(state, record)
        return [*events, first, *escalation_of_flag(record, state.account_id, open_case(None, first))]
    link = _risk_linked(state.account_id, case, record)
    if case.escalated and case.work.snoozed_until_ms is None:
        return [*events, link]
    return [*events, link, *_wake_and_escalate(state.account_id, case_after_event(case, link), record)]


def _reconsider_restated(
    account_id: str, revised: list[tuple[Case, RiskRevised]], record: RiskRestated
) -> list[CaseEvent]:
    """Return the events beside RiskRevised that a restatement results in: none unless the flag's score rises."""
    before = record.score_before if record.rules_before else 0
    if not record.reasons or record.score <= before:
        return []
    events: list[CaseEvent] = []
    for case, event in revised:
        if case.is_open:
            events += _wake_and_escalate(account_id, case_after_event(case, event), record)
    return events


def _wake_and_escalate(account_id: str, case: Case, record: Flag) -> list[CaseEvent]:
    """Return the events of a case for a new or heavier flag: the end of its pause, and its escalation."""
    woken = _wake_on_flag(account_id, case, record)
    for event in woken:
        case = case_after_event(case, event)
    return [*woken, *escalation_of_flag(record, account_id, case)]


def on_tick(state: AccountCases, tick: ClockTicked) -> list[CaseEvent]:
    """Wake the cases whose pause is over, and escalate those past their deadline. A paused case is not escalated."""
    events: list[CaseEvent] = []
    for case in state.cases.values():
        until = case.work.snoozed_until_ms
        if until is not None:
            if tick.now_ms < until:
                continue
            woken = _case_woken(state.account_id, case, "clock", tick.tick_id, tick.now_ms)
            events.append(woken)
            case = case_after_event(case, woken)
        if not case.escalated and tick.now_ms >= _deadline_ms(case):
            detail = f"open for {SLA_MS // 3_600_000} h"
            events.append(case_escalated(state.account_id, case, "sla", detail, tick.tick_id, tick.now_ms))
    return events


def due_ms(state: AccountCases) -> int | None:
    """Return the earliest time in milliseconds at which a tick affects the account, or None if no tick does."""
    due: int | None = None
    for case in state.cases.values():
        at_ms = case.work.snoozed_until_ms
        if at_ms is None:
            if case.escalated:
                continue
            at_ms = _deadline_ms(case)
        if due is None or at_ms < due:
            due = at_ms
    return due


def _deadline_ms(case: Case) -> int:
    return (case.work.sla_from_ms or case.opened_at_ms) + SLA_MS


def _risk_revised(case: Case, record: RiskRestated, engine: Engine) -> RiskRevised:
    return RiskRevised(
        account_id=record.account_id,
        case_id=case.case_id,
        sequence=case.sequence + 1,
        flag_id=record.flag_id,
        transaction_id=record.transaction_id,
        score_before=record.score_before if record.rules_before else 0,
        score=record.score if record.reasons else 0,
        rules=_rule_names(record),
        cause_transaction_id=record.cause_transaction_id,
        event_time=record.event_time,
        flags_change=standing_flags_change(case, record.flag_id, bool(record.reasons))
        if engine.counts_for_the_case
        else None,
    )


def _rule_names(record: Flag) -> tuple[str, ...]:
    reasons = record.reasons
    return (reasons[0].rule,) if len(reasons) == 1 else tuple([reason.rule for reason in reasons])


def _case_opened(state: AccountCases, record: Flag) -> CaseOpened:
    previous = state.previous.get(record.typology)
    payment = None if isinstance(record, EntityFlagged) else record  # an entity's flag says less of its payment
    return CaseOpened(
        account_id=state.account_id,
        case_id=case_id(record.typology, record.flag_id, previous),
        sequence=1,
        typology=record.typology,
        flag_id=record.flag_id,
        transaction_id=record.transaction_id,
        event_time=record.event_time,
        amount_minor=record.amount_minor,
        currency=record.currency,
        score=record.score,
        rules=_rule_names(record),
        opened_at_ms=record.event_time,
        content_digest=record.content_digest,
        merchant_id=record.merchant_id,
        terminal_id=record.terminal_id,
        device_id=record.device_id,
        card_id=record.card_id,
        previous_case_id=previous,
        payment_method=payment.payment_method if payment else None,
        channel=payment.channel if payment else None,
        country=payment.country if payment else None,
        latitude=payment.latitude if payment else None,
        longitude=payment.longitude if payment else None,
        reasons=record.reasons,
    )


def _risk_linked(account_id: str, case: Case, record: Flag) -> RiskLinked:
    payment = None if isinstance(record, EntityFlagged) else record  # an entity's flag says less of its payment
    return RiskLinked(
        account_id,
        case.case_id,
        case.sequence + 1,
        record.flag_id,
        record.transaction_id,
        record.event_time,
        record.amount_minor,
        record.currency,
        record.score,
        _rule_names(record),
        record.content_digest,
        record.merchant_id,
        record.terminal_id,
        record.device_id,
        record.card_id,
        payment.payment_method if payment else None,
        payment.channel if payment else None,
        payment.country if payment else None,
        payment.latitude if payment else None,
        payment.longitude if payment else None,
        record.reasons,
    )


def _wake_on_flag(account_id: str, case: Case, record: Flag) -> list[CaseWoken]:
    """Return the end of a case's pause by a new flag: at the payment's time, but not before the pause began."""
    if case.work.snoozed_until_ms is None:
        return []
    at_ms = max(record.event_time, case.work.snoozed_at_ms or 0)
    return [_case_woken(account_id, case, "flag", record.flag_id, at_ms)]


def _case_woken(account_id: str, case: Case, trigger: str, cause_id: str, at_ms: int) -> CaseWoken:
    return CaseWoken(
        account_id=account_id,
        case_id=case.case_id,
        sequence=case.sequence + 1,
        trigger=trigger,
        cause_id=cause_id,
        actor=None,
        woken_at_ms=at_ms,
    )
