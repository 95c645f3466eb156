"""Escalation of a case by its flags: by score, by the number of flags, by value."""

from typing import Final

from domain.cases.events import CaseEscalated
from domain.cases.state import Case
from domain.currencies import DECIMALS
from domain.risk.events import Flag

ESCALATE_AT_SCORE: Final = 900
"""Score of a single flag, in permille, from which a case escalates."""
ESCALATE_AT_FLAGS: Final = 5
"""Number of standing flags from which a case escalates."""
ESCALATE_AT_VALUE_MAJOR: Final = 10_000
"""Flagged amount, in whole units of one currency, from which a case escalates."""


def escalation_of_flag(record: Flag, account_id: str, case: Case) -> list[CaseEscalated]:
    """Return the escalation that a flag results in, if any."""
    if case.escalated:
        return []
    if record.score >= ESCALATE_AT_SCORE:
        trigger, detail = "score", f"score {record.score}, from {ESCALATE_AT_SCORE}"
    else:
        trigger, detail = escalation_trigger(case)
    if not trigger:
        return []
    return [case_escalated(account_id, case, trigger, detail, record.flag_id, record.event_time)]


def escalation_trigger(case: Case) -> tuple[str, str]:
    """Return the trigger and detail of an escalation by number or value of flags, or two empty texts."""
    if case.flags >= ESCALATE_AT_FLAGS:
        return "flags", f"{case.flags} flags, from {ESCALATE_AT_FLAGS}"
    value, currency = largest_value_major(case)
    if value >= ESCALATE_AT_VALUE_MAJOR:
        return "value", f"{value} {currency} flagged, from {ESCALATE_AT_VALUE_MAJOR}"
    return "", ""


def largest_value_major(case: Case) -> tuple[int, str]:
    """Return the largest flagged amount of a case in whole units, and its currency. Amounts are not converted."""
    value, currency = 0, ""
    for each, amount_minor in case.value_minor.items():
        major = amount_minor // 10 ** DECIMALS[each]
        if major > value or not currency:
            value, currency = major, each
    return value, currency


def case_escalated(
    account_id: str, case: Case, trigger: str, detail: str, cause_id: str, at_ms: int, actor: str | None = None
) -> CaseEscalated:
    """Return the next event of a case: its escalation."""
    return CaseEscalated(
        account_id=account_id,
        case_id=case.case_id,
        sequence=case.sequence + 1,
        trigger=trigger,
        detail=detail,
        cause_id=cause_id,
        actor=actor,
        escalated_at_ms=at_ms,
    )
