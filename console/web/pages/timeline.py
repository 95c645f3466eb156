"""Timeline of a case as sentences, sorted by the time of the events or by the time when they became known."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from console.cases.timelines import TimelineOrder
from console.display.formats import duration, kind_words, money, utc, words
from console.web.pages.case_actions import ANSWERS
from console.web.pages.case_evidence import event_details

LATE_MS: Final = 60_000
"""Delay from which an event that became known later than it happened is called late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedFile:
    """A file attached to a note."""

    file_name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One entry of a timeline."""

    sequence: int | None
    kind: str
    tone: str
    """Look of the entry: flag, work, note, alarm, done or refused."""
    actor: str
    what: str
    """Predicate of the actor, or a whole sentence if the event has no actor."""
    more: str
    """Text that the actor gave, such as a note or a reason."""
    happened_at_ms: int | None
    known_at_ms: int | None
    attachments: tuple[AttachedFile, ...] = ()

    @property
    def late_by(self) -> str:
        """Return the time between the event and its becoming known as text; empty if there is none."""
        if self.happened_at_ms is None or self.known_at_ms is None:
            return ""
        late_ms = self.known_at_ms - self.happened_at_ms
        return duration(late_ms) if late_ms >= LATE_MS else ""


def timeline(items: Iterable[Mapping[str, Any]], order: TimelineOrder, most: int | None = None) -> list[TimelineEntry]:
    """Return the entries, newest first and at most `most` of them, in the order of their event time or known-at
    time.
    """
    ordered = sorted(items, key=lambda item: _place(item, order), reverse=True)
    return [_entry(item) for item in ordered[:most]]


def notes(items: Iterable[Mapping[str, Any]], order: TimelineOrder) -> list[TimelineEntry]:
    """Return the notes among the entries."""
    return timeline((item for item in items if item["kind"] == "NoteAdded"), order)


def _place(item: Mapping[str, Any], order: TimelineOrder) -> tuple[int, bool, str]:
    by = "known_at_ms" if order == "known" else "happened_at_ms"
    return (item.get(by) or 0, item["sk"].startswith("answer#"), item["sk"])


def _entry(item: Mapping[str, Any]) -> TimelineEntry:
    event, kind = event_details(item["body"]), item["kind"]
    place, _, number = item["sk"].partition("#")
    tone, what = describe_event(kind, event)
    return TimelineEntry(
        sequence=int(number) if place == "event" else None,
        kind=kind,
        tone=tone,
        actor=event.get("actor") or "",
        what=what,
        more=_given_text(kind, event),
        happened_at_ms=item.get("happened_at_ms"),
        known_at_ms=item.get("known_at_ms"),
        attachments=tuple(
            AttachedFile(file_name=each["file_name"], size=each["size"], sha256=each["sha256"])
            for each in event.get("attachments") or ()
        ),
    )


def _given_text(kind: str, event: Mapping[str, Any]) -> str:
    if kind == "NoteAdded":
        return str(event["text"])
    if kind == "CaseEscalated":
        return str(event.get("detail") or "")
    if kind == "CaseClosed" and event.get("approval_reason"):
        return f"{event['reason']} · approval: {event['approval_reason']}"
    return str(event.get("reason") or "")


def describe_event(kind: str, event: Mapping[str, Any]) -> tuple[str, str]:
    """Return the tone (which selects the icon and colour) and the words of an event."""
    match kind:
        case "CaseOpened" | "RiskLinked":
            amount = money(event["amount_minor"], event["currency"])
            rules = ", ".join(map(words, event["rules"]))
            verb = "opened the case" if kind == "CaseOpened" else "joined the case"
            return "flag", f"A flag on {amount} {verb}: {rules}, score {event['score']}"
        case "RiskRevised":
            became = f"now scores {event['score']}" if event["rules"] else "was withdrawn"
            return "flag", f"A late payment arrived: the flag on {event['transaction_id']} {became}"
        case "CaseEscalated":
            by = "escalated the case" if event.get("actor") else f"Escalated by {words(event['trigger'])}"
            return "alarm", by
        case "CaseWoken":
            return "work", "woke the case" if event.get("actor") else f"Woken by {_article(event['trigger'])}"
        case "CaseAssigned":
            mine = event["assignee"] == event["actor"]
            return "work", "took the case" if mine else f"gave the case to {event['assignee']}"
        case "NoteAdded":
            return "note", "wrote a note"
        case "CaseSnoozed":
            return "work", f"snoozed the case until {utc(event['until_ms'])} UTC"
        case "ClosingRequested":
            return "work", f"asks to close the case as {words(event['disposition'])}: a second person must agree"
        case "ClosingRefused" | "ReopeningRefused":
            act = "closing" if kind == "ClosingRefused" else "reopening"
            return "refused", f"refused the {act} that {event['requested_by']} had asked for"
        case "CaseClosed":
            asked = f", as {event['requested_by']} had asked" if event.get("requested_by") else ""
            return "done", f"closed the case as {words(event['disposition'])}{asked}"
        case "ReopeningRequested":
            return "work", "asks to reopen the case: a second person must agree"
        case "CaseReopened":
            return "alarm", f"reopened the case, as {event['requested_by']} had asked"
        case "CaseMerged":
            return "work", f"merged the case into {event['into_case_id'][:8]}"
        case "CaseAbsorbed":
            return "work", f"merged case {event['from_case_id'][:8]} into this one"
        case "CaseParted":
            return "work", f"took case {event['from_case_id'][:8]} out of this one again"
        case "CaseLinked":
            return "work", f"linked the case with {event['other_case_id'][:8]}"
        case "CaseUnlinked":
            return "work", f"unlinked the case from {event['other_case_id'][:8]}"
        case "CommandRejected":
            return "refused", f"was refused: {kind_words(event.get('command') or 'a command')}"
        case "AbsorptionRefused":
            return "refused", f"could not merge case {event['from_case_id'][:8]} into this one"
        case _:
            sentence = ANSWERS[kind].sentence if kind in ANSWERS else ""
            return "work", sentence or kind_words(kind)


def _article(trigger: str) -> str:
    return {"flag": "a new flag", "clock": "the clock"}.get(trigger, words(trigger))
