"""A case as of time T as known at time K: the events that happened by T, of those that the log held by K.

T is the event's own time. The time of a flag is its payment's, so a late payment is part of the past as soon as it is
known. K is the Kafka timestamp of the event's record. Both are data, so the answer does not depend on when it is
computed, and a fold of the records up to K gives the same case.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from domain.cases.events import CaseEvent, CaseOpened, RiskLinked, RiskRevised, SequencedCaseEvent, happened_at_ms
from domain.cases.state import BrokenLog
from domain.record_types import from_fields
from projections.logs.known import KnownEvent
from projections.views.case_view import CaseView, apply_event, new_view


def known_events(items: Iterable[Mapping[str, Any]]) -> list[KnownEvent]:
    """Return the events of a case from its table items in order of sequence, without answers."""
    found = []
    for item in items:
        if item["sk"].startswith("event#"):
            data = json.loads(item["body"])
            event = from_fields(data.pop("type"), data)
            assert isinstance(event, CaseEvent)
            found.append(KnownEvent(event, item.get("known_at_ms", 0)))
    return found


def is_visible_at(item: Mapping[str, Any], at_ms: int | None, known_at_ms: int | None) -> bool:
    """Return whether an item's event had happened by `at_ms` and was known by `known_at_ms`; None means now."""
    is_known = known_at_ms is None or item.get("known_at_ms", 0) <= known_at_ms
    return is_known and (at_ms is None or item.get("happened_at_ms", 0) <= at_ms)


def events_known_at(events: Iterable[KnownEvent], known_at_ms: int | None) -> list[SequencedCaseEvent]:
    """Return the events of one case known at a time, in order of sequence and without redelivered ones.

    An event is known once its record and all earlier ones are, so that differing broker clocks leave no gap. Raises
    BrokenLog if an event is missing.
    """
    found: list[SequencedCaseEvent] = []
    for event, at_ms in events:
        if not isinstance(event, SequencedCaseEvent) or event.sequence <= len(found):
            continue
        if known_at_ms is not None and at_ms > known_at_ms:
            break
        if event.sequence != len(found) + 1:
            raise BrokenLog(f"case {event.case_id}: {type(event).__name__} {event.sequence} after {len(found)}")
        found.append(event)
    return found


def case_as_of(
    events: Iterable[KnownEvent], at_ms: int | None = None, known_at_ms: int | None = None
) -> CaseView | None:
    """Return the case as of `at_ms` as known at `known_at_ms`, or None if it did not exist or was not known.

    None means now. Folds the events that had happened by then, in the order in which they were decided.
    """
    known = events_known_at(events, known_at_ms)
    if not known:
        return None
    opened = known[0]
    assert isinstance(opened, CaseOpened)
    view, is_there = new_view(opened), False
    for event, happened_ms in _events_with_times(known):
        if at_ms is None or happened_ms <= at_ms:
            view, is_there = apply_event(view, event), True
    return view if is_there else None


def _events_with_times(events: Iterable[SequencedCaseEvent]) -> Iterator[tuple[SequencedCaseEvent, int]]:
    """Yield each event with its own time; an old restatement has the time of its flag."""
    flagged_ms: dict[str, int] = {}
    for event in events:
        if isinstance(event, CaseOpened | RiskLinked):
            flagged_ms[event.flag_id] = event.event_time
        happened_ms = happened_at_ms(event)
        if happened_ms is None:
            assert isinstance(event, RiskRevised)
            happened_ms = flagged_ms.get(event.flag_id, 0)
        yield event, happened_ms
