"""A case as of a time, as it was known at another: what had happened by T, of what the log said by K.

T is the events' own time: a flag's is its payment's, so a payment that came late is part of the past from the moment
it is known. K is the Kafka timestamp of the event's record: what we could have said at K. Both are data, so the answer
is the same whenever it is asked for, and whoever folds the records up to K gets it too.
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
    """The events of a case from its items in the table, by sequence; answers are left out."""
    found = []
    for item in items:
        if item["sk"].startswith("event#"):
            data = json.loads(item["body"])
            event = from_fields(data.pop("type"), data)
            assert isinstance(event, CaseEvent)
            found.append(KnownEvent(event, item.get("known_at_ms", 0)))
    return found


def is_visible_at(item: Mapping[str, Any], at_ms: int | None, known_at_ms: int | None) -> bool:
    """Whether what an item tells of had happened by a time, and was known at another; None stands for now."""
    is_known = known_at_ms is None or item.get("known_at_ms", 0) <= known_at_ms
    return is_known and (at_ms is None or item.get("happened_at_ms", 0) <= at_ms)


def events_known_at(events: Iterable[KnownEvent], known_at_ms: int | None) -> list[SequencedCaseEvent]:
    """The events of one case that were known at a time, in sequence; redelivered ones once.

    An event is known once its record and those before it are: so clocks of brokers that disagree leave no gap.
    Raises BrokenLog where an event is missing.
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
    """The case as of a time, as known at another; None where it did not exist, or nobody knew. None stands for now.

    What had not happened by then is left out, and the rest is folded in the order in which it was decided.
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
    """Each event with its own time; that of an old restatement is its flag's."""
    flagged_ms: dict[str, int] = {}
    for event in events:
        if isinstance(event, CaseOpened | RiskLinked):
            flagged_ms[event.flag_id] = event.event_time
        happened_ms = happened_at_ms(event)
        if happened_ms is None:
            assert isinstance(event, RiskRevised)
            happened_ms = flagged_ms.get(event.flag_id, 0)
        yield event, happened_ms
