"""What does a case look like now, and what has happened to it? Pure; the DynamoDB writer stands beside it."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, assert_never

from domain.case import BrokenLog
from domain.digest import canonical
from domain.events import (
    CaseClosed,
    CaseEscalated,
    CaseEvent,
    CaseOpened,
    CommandRejected,
    RiskLinked,
    RiskRevised,
    SequencedCaseEvent,
)

QUEUE_SHARDS = 4
"""A queue's index entries are spread over so many keys: one key alone takes only so many writes a second."""
MAX_LINKED = 200
"""Linked transactions that a view shows; the timeline has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseView:
    """A case as its readers want it. Amounts in minor units by currency, times in UTC milliseconds."""

    case_id: str
    account_id: str
    typology: str
    status: str
    sequence: int
    opened_at_ms: int
    last_event_ms: int
    escalated: bool = False
    escalated_at_ms: int | None = None
    escalation_trigger: str | None = None
    flags: int
    flags_withdrawn: int = 0
    score_max: int
    value_minor: dict[str, int] = field(default_factory=dict)
    transactions: list[str] = field(default_factory=list)
    previous_case_id: str | None = None
    disposition: str | None = None
    closed_at_ms: int | None = None
    closed_by: str | None = None


def project(view: CaseView | None, event: SequencedCaseEvent) -> CaseView:
    """The view after one event: a redelivered event changes nothing, a gap raises BrokenLog."""
    seen = view.sequence if view else 0
    if view is not None and event.sequence <= seen:
        return view
    if event.sequence != seen + 1:
        raise BrokenLog(f"case {event.case_id}: {type(event).__name__} {event.sequence} after {seen}")
    if isinstance(event, CaseOpened):
        return _opened(event)
    assert view is not None
    view = replace(view, sequence=event.sequence)
    match event:
        case RiskLinked():
            return _linked(view, event)
        case RiskRevised():
            return _revised(view, event)
        case CaseEscalated():
            return replace(
                view,
                escalated=True,
                escalated_at_ms=event.escalated_at_ms,
                escalation_trigger=event.trigger,
                last_event_ms=max(view.last_event_ms, event.escalated_at_ms),
            )
        case CaseClosed():
            return replace(
                view,
                status="closed",
                disposition=event.disposition,
                closed_at_ms=event.closed_at_ms,
                closed_by=event.actor,
                last_event_ms=max(view.last_event_ms, event.closed_at_ms),
            )
        case _:
            assert_never(event)


def _opened(event: CaseOpened) -> CaseView:
    return CaseView(
        case_id=event.case_id,
        account_id=event.account_id,
        typology=event.typology,
        status="open",
        sequence=1,
        opened_at_ms=event.opened_at_ms,
        last_event_ms=event.event_time,
        flags=1,
        score_max=event.score,
        value_minor={event.currency: event.amount_minor},
        transactions=[event.transaction_id],
        previous_case_id=event.previous_case_id,
    )


def _linked(view: CaseView, event: RiskLinked) -> CaseView:
    value = view.value_minor.get(event.currency, 0) + event.amount_minor
    return replace(
        view,
        flags=view.flags + 1,
        score_max=max(view.score_max, event.score),
        value_minor={**view.value_minor, event.currency: value},
        transactions=[*view.transactions, event.transaction_id][-MAX_LINKED:],
        last_event_ms=max(view.last_event_ms, event.event_time),
    )


def _revised(view: CaseView, event: RiskRevised) -> CaseView:
    stood, stands = event.score_before > 0, bool(event.rules)
    return replace(
        view,
        flags=view.flags + stands - stood,
        flags_withdrawn=view.flags_withdrawn + stood - stands,
        score_max=max(view.score_max, event.score),
    )


Item = dict[str, Any]


def view_item(view: CaseView) -> Item:
    """The view as an item of the table, with the keys of its indexes."""
    item: Item = {each.name: getattr(view, each.name) for each in fields(CaseView)}
    queue = "escalated" if view.escalated and view.status == "open" else view.status
    return {
        **{name: value for name, value in item.items() if value is not None},
        "pk": f"case#{view.case_id}",
        "sk": "view",
        "queue": f"{queue}#{int(view.case_id[-1], 16) % QUEUE_SHARDS}",
        "priority": f"{view.score_max:04d}#{view.opened_at_ms:015d}",
        "account": f"account#{view.account_id}",
    }


def event_item(event: CaseEvent) -> Item:
    """An event as an item of the table: its place on the case's timeline, and its canonical text."""
    place = f"answer#{event.command_id}" if isinstance(event, CommandRejected) else f"event#{event.sequence:010d}"
    return {
        "pk": f"case#{event.case_id}",
        "sk": place,
        "kind": type(event).__name__,
        "body": canonical(event).decode(),
    }


def view_of(item: Item) -> CaseView:
    """The view in an item."""
    names = {each.name for each in fields(CaseView)}
    return CaseView(**{name: value for name, value in item.items() if name in names})
