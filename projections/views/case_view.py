"""The case view: current state of a case for readers, folded from its events, and its table items. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, assert_never

from domain.cases.events import (
    AbsorptionRefused,
    CaseAbsorbed,
    CaseAssigned,
    CaseClosed,
    CaseEscalated,
    CaseEvent,
    CaseLinked,
    CaseMerged,
    CaseOpened,
    CaseParted,
    CaseReleased,
    CaseReopened,
    CaseSnoozed,
    CaseUnlinked,
    CaseUnmerged,
    CaseWoken,
    ClosingRefused,
    ClosingRequested,
    ClosingWithdrawn,
    CommandRejected,
    NonFlagEvent,
    NoteAdded,
    ReopeningRefused,
    ReopeningRequested,
    ReopeningWithdrawn,
    RiskLinked,
    RiskRevised,
    SequencedCaseEvent,
    happened_at_ms,
)
from domain.cases.state import SLA_MS, BrokenLog, add_amounts
from domain.cases.status import DONE_STATUSES, status_of
from domain.digest import canonical_bytes

QUEUE_SHARDS = 4
"""Number of index keys of a queue: DynamoDB limits the writes per second to one key."""
MAX_LINKED = 200
"""Maximum number of linked transactions in a view; the timeline has all of them."""
MAX_PLACES = 50
"""Maximum number of merchants, cards, devices etc. in a view: the last ones."""
_LAST_MS = 10**15 - 1
Item = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseView:
    """A case for its readers. Amounts are in minor units by currency, times in UTC milliseconds."""

    case_id: str
    account_id: str
    typology: str
    status: str
    """One of `domain.cases.status.STATUSES`."""
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
    found_typology: str | None = None
    """Typology named at closing, if it differs from the case's own."""
    close_reason: str | None = None
    is_touched: bool = False
    """Whether an analyst has acted on the case."""
    assignee: str | None = None
    snoozed_until_ms: int | None = None
    snooze_reason: str | None = None
    sla_due_ms: int | None = None
    """Time of the automatic escalation; a snoozed case is not escalated."""
    pending: Item | None = None
    """Request that waits for a second person: what (closing or reopening), by, at_ms, reason, disposition, typology,
    detail, and flags_since, the number of flags since the request."""
    reopened_at_ms: int | None = None
    notes: int = 0
    attachments: int = 0
    links: list[Item] = field(default_factory=list)
    """Linked cases: account_id, case_id, reason, is_back."""
    merged_into: Item | None = None
    """Case that this one was merged into: account_id, case_id."""
    absorbed: list[Item] = field(default_factory=list)
    """Cases merged into this one: account_id, case_id."""
    merchants: list[str] = field(default_factory=list)
    terminals: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    payment_methods: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    countries: list[str] = field(default_factory=list)


def project(view: CaseView | None, event: SequencedCaseEvent) -> CaseView:
    """Return the view after one event. A redelivered event changes nothing. Raises BrokenLog if an event is missing."""
    seen = view.sequence if view else 0
    if view is not None and event.sequence <= seen:
        return view
    if event.sequence != seen + 1:
        raise BrokenLog(f"case {event.case_id}: {type(event).__name__} {event.sequence} after {seen}")
    if isinstance(event, CaseOpened):
        return add_flag(new_view(event), event)
    assert view is not None
    return apply_event(view, event)


def new_view(event: CaseOpened) -> CaseView:
    """Return the view of a new case before its first flag is counted."""
    return CaseView(
        case_id=event.case_id,
        account_id=event.account_id,
        typology=event.typology,
        status="new",
        sequence=0,
        opened_at_ms=event.opened_at_ms,
        last_event_ms=event.event_time,
        flags=0,
        score_max=0,
        previous_case_id=event.previous_case_id,
        sla_due_ms=event.opened_at_ms + SLA_MS,
    )


def apply_event(view: CaseView, event: SequencedCaseEvent) -> CaseView:
    """Return the view after one more event, without a check of its sequence."""
    if isinstance(event, CaseOpened | RiskLinked):
        return add_flag(view, event)
    at_ms = happened_at_ms(event)
    view = replace(view, sequence=event.sequence, last_event_ms=max(view.last_event_ms, at_ms or 0))
    if isinstance(event, RiskRevised):
        return _apply_revision(view, event)
    return _update_derived_fields(_apply_work_event(view, event))


def add_flag(view: CaseView, event: CaseOpened | RiskLinked) -> CaseView:
    """Return the view with one more flag."""
    pending = view.pending
    if pending is not None:
        pending = {**pending, "flags_since": pending["flags_since"] + 1}
    value = view.value_minor.get(event.currency, 0) + event.amount_minor
    return replace(
        view,
        sequence=event.sequence,
        flags=view.flags + 1,
        score_max=max(view.score_max, event.score),
        value_minor={**view.value_minor, event.currency: value},
        transactions=[*view.transactions, event.transaction_id][-MAX_LINKED:],
        last_event_ms=max(view.last_event_ms, event.event_time),
        pending=pending,
        merchants=_append_distinct(view.merchants, event.merchant_id),
        terminals=_append_distinct(view.terminals, event.terminal_id),
        devices=_append_distinct(view.devices, event.device_id),
        cards=_append_distinct(view.cards, event.card_id),
        payment_methods=_append_distinct(view.payment_methods, event.payment_method),
        channels=_append_distinct(view.channels, event.channel),
        countries=_append_distinct(view.countries, event.country),
    )


def _append_distinct(known: list[str], one: str | None) -> list[str]:
    return known if one is None or one in known else [*known, one][-MAX_PLACES:]


def _apply_revision(view: CaseView, event: RiskRevised) -> CaseView:
    more = event.flags_change
    if more is None:  # an event of the first engines, which counted per account of the flag
        more = bool(event.rules) - (event.score_before > 0)
    return replace(
        view,
        flags=view.flags + more,
        flags_withdrawn=view.flags_withdrawn - more,
        score_max=max(view.score_max, event.score),
    )


def _update_derived_fields(view: CaseView) -> CaseView:
    """Return the view with its status and due time derived from its other fields."""
    status = status_of(
        disposition=view.disposition,
        is_merged=view.merged_into is not None,
        is_requested=view.pending is not None,
        is_snoozed=view.snoozed_until_ms is not None,
        assignee=view.assignee,
        is_touched=view.is_touched,
    )
    is_due = not view.escalated and status not in DONE_STATUSES
    due_ms = (view.reopened_at_ms or view.opened_at_ms) + SLA_MS
    return replace(view, status=status, sla_due_ms=due_ms if is_due else None)


_AWAKE: dict[str, Any] = {"snoozed_until_ms": None, "snooze_reason": None}


def _apply_work_event(view: CaseView, event: NonFlagEvent) -> CaseView:
    match event:
        case CaseEscalated():
            return replace(
                view,
                escalated=True,
                escalated_at_ms=event.escalated_at_ms,
                escalation_trigger=event.trigger,
                is_touched=view.is_touched or event.actor is not None,
            )
        case CaseWoken():
            return replace(view, **_AWAKE)
        case CaseAssigned():
            return replace(view, is_touched=True, assignee=event.assignee)
        case CaseReleased():
            return replace(view, is_touched=True, assignee=None)
        case NoteAdded():
            attachments = view.attachments + len(event.attachments)
            return replace(view, is_touched=True, notes=view.notes + 1, attachments=attachments)
        case CaseSnoozed():
            return replace(view, is_touched=True, snoozed_until_ms=event.until_ms, snooze_reason=event.reason)
        case ClosingRequested() | ReopeningRequested():
            return replace(view, is_touched=True, pending=_pending(event), **_AWAKE)
        case ClosingRefused() | ClosingWithdrawn() | ReopeningRefused() | ReopeningWithdrawn():
            return replace(view, pending=None)
        case CaseClosed():
            return _apply_closing(view, event)
        case CaseReopened():
            nothing = dict.fromkeys(("disposition", "closed_at_ms", "closed_by", "found_typology", "close_reason"))
            at_ms = event.reopened_at_ms
            return replace(view, is_touched=True, assignee=None, pending=None, reopened_at_ms=at_ms, **nothing)  # type: ignore[arg-type]
        case CaseMerged():
            into = {"account_id": event.into_account_id, "case_id": event.into_case_id}
            return replace(view, is_touched=True, merged_into=into, **_AWAKE)
        case CaseUnmerged():
            return replace(view, merged_into=None)
        case CaseAbsorbed():
            return _apply_absorption(view, event)
        case CaseParted():
            return _apply_parting(view, event)
        case CaseLinked():
            link = {
                "account_id": event.other_account_id,
                "case_id": event.other_case_id,
                "reason": event.reason,
                "is_back": event.is_back,
            }
            return replace(view, links=[*view.links, link])
        case CaseUnlinked():
            return replace(view, links=_remove_items(view.links, event.other_case_id))
        case _:
            assert_never(event)


def _pending(event: ClosingRequested | ReopeningRequested) -> Item:
    closing = event if isinstance(event, ClosingRequested) else None
    return {
        "what": "closing" if closing else "reopening",
        "by": event.actor,
        "at_ms": event.requested_at_ms,
        "reason": event.reason,
        "disposition": closing.disposition if closing else None,
        "typology": closing.typology if closing else None,
        "detail": closing.detail if closing else "a closed case is opened again by two people",
        "flags_since": 0,
    }


def _apply_closing(view: CaseView, event: CaseClosed) -> CaseView:
    return replace(
        view,
        is_touched=True,
        disposition=event.disposition,
        closed_at_ms=event.closed_at_ms,
        closed_by=event.actor,
        found_typology=event.typology,
        close_reason=event.reason,
        pending=None,
        **_AWAKE,
    )


def _apply_absorption(view: CaseView, event: CaseAbsorbed) -> CaseView:
    brought = {amount.currency: amount.amount_minor for amount in event.amounts}
    return replace(
        view,
        flags=view.flags + event.standing,
        score_max=max([view.score_max, *(flag.score for flag in event.flags)]),
        value_minor=add_amounts(view.value_minor, brought, 1),
        transactions=[*view.transactions, *(flag.transaction_id for flag in event.flags)][-MAX_LINKED:],
        absorbed=[*view.absorbed, {"account_id": event.from_account_id, "case_id": event.from_case_id}],
        merchants=_append_all_distinct(view.merchants, [flag.merchant_id for flag in event.flags]),
        terminals=_append_all_distinct(view.terminals, [flag.terminal_id for flag in event.flags]),
        devices=_append_all_distinct(view.devices, [flag.device_id for flag in event.flags]),
        cards=_append_all_distinct(view.cards, [flag.card_id for flag in event.flags]),
    )


def _append_all_distinct(known: list[str], more: Sequence[str | None]) -> list[str]:
    for one in more:
        known = _append_distinct(known, one)
    return known


def _apply_parting(view: CaseView, event: CaseParted) -> CaseView:
    """Remove the other case's flags and amounts, but keep its merchants, devices and cards for search."""
    taken = {amount.currency: amount.amount_minor for amount in event.amounts}
    removed = set(event.transactions)
    return replace(
        view,
        flags=view.flags - event.standing,
        value_minor=add_amounts(view.value_minor, taken, -1),
        transactions=[each for each in view.transactions if each not in removed],
        absorbed=_remove_items(view.absorbed, event.from_case_id),
    )


def _remove_items(cases: list[Item], case_id: str) -> list[Item]:
    return [case for case in cases if case["case_id"] != case_id]


# -- items of the table ----------------------------------------------------------------------------------


def view_item(view: CaseView) -> Item:
    """Return the view as a table item with its index keys.

    `queue` is the status and a shard, `assigned` the assignee of an open case. `priority` is escalation, score and age,
    so that a descending read returns the most urgent case first.
    """
    item: Item = {name: getattr(view, name) for name in _FIELDS}
    is_open = view.status not in DONE_STATUSES
    assigned = {"assigned": f"assignee#{view.assignee}"} if view.assignee is not None and is_open else {}
    return {
        **{name: value for name, value in item.items() if value is not None},
        **assigned,
        "pk": f"case#{view.case_id}",
        "sk": "view",
        "queue": f"{view.status}#{int(view.case_id[-1], 16) % QUEUE_SHARDS}",
        "priority": f"{view.escalated:d}#{view.score_max:04d}#{_LAST_MS - view.opened_at_ms:015d}",
        "account": f"account#{view.account_id}",
    }


def event_item(event: CaseEvent, known_at_ms: int | None = None) -> Item:
    """Return an event as a table item: its place on the case's timeline and its canonical text.

    `known_at_ms` is the Kafka timestamp of its record, `happened_at_ms` the event's own time.
    """
    happened_ms: int | None
    match event:
        case CommandRejected():
            place, happened_ms = f"answer#{event.command_id}", event.rejected_at_ms
        case AbsorptionRefused():
            place, happened_ms = f"answer#{event.command_id}", event.refused_at_ms
        case _:
            place, happened_ms = event_place(event.sequence), happened_at_ms(event)
    times = {"known_at_ms": known_at_ms, "happened_at_ms": happened_ms}
    return {
        "pk": f"case#{event.case_id}",
        "sk": place,
        "kind": type(event).__name__,
        "body": canonical_bytes(event).decode(),
        **{name: value for name, value in times.items() if value is not None},
    }


def event_place(sequence: int) -> str:
    """Return the sort key of the event with this sequence."""
    return f"event#{sequence:010d}"


_FIELDS = tuple(each.name for each in fields(CaseView))


def view_of(item: Mapping[str, Any]) -> CaseView:
    """Return the view in an item."""
    return CaseView(**{name: item[name] for name in _FIELDS if name in item})
