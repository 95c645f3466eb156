"""A case as of T, as known at K, against counts made from the records alone."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.cases.events import CaseAnswer, CaseEvent
from domain.cases.fold import CaseFold
from domain.cases.state import BrokenLog
from domain.record import replace
from domain.record_types import to_fields
from projections.logs.known import KnownEvent
from projections.replay.compare_views import compare_views, views_digest
from projections.views.case_history import case_as_of, is_visible_at, known_events
from projections.views.case_view import event_item
from tests.support.cases import CASE, NOON, asked, flag, history, restated

MINUTE_MS = 60_000
DONE = ("assigned_at_ms", "released_at_ms", "added_at_ms", "event_time", "escalated_at_ms")


def recorded(steps: list[tuple[str, int]]) -> list[KnownEvent]:
    """Return a case that starts with a flag at noon. Each further step happens the given minutes from noon, and is
    known a minute after the step before it.
    """
    fold, known, seen, flags = CaseFold(), [], 0, 0
    for number, (what, minutes) in enumerate([("flag", 0), *steps]):
        at_ms = NOON + minutes * MINUTE_MS
        if what in ("flag", "restatement"):
            flags += 1
            record: Any = flag(flags, event_time=at_ms)
            if what == "restatement":
                record = replace(restated(flags, "flag-1", ("velocity",), record.reasons), event_time=NOON)
        else:
            fields = {"text": "hm"} if what == "note" else {}
            record = replace(asked(what, seen=seen, **fields), command_id=f"c-{number}", requested_at_ms=at_ms)
        events = fold.step(record)
        assert isinstance(events, list)
        for event in events:
            seen += not isinstance(event, CaseAnswer)
            known.append(KnownEvent(event, NOON + number * MINUTE_MS))
    return known


def counted(known: list[KnownEvent], at_ms: int, known_at_ms: int) -> tuple[int, ...] | None:
    """Count flags, value, notes, whether the case is assigned, and the last sequence, from plain fields."""
    flags = value = notes = holders = last = 0
    for event, at in known:
        fields = to_fields(event)
        happened = next(fields[name] for name in DONE if name in fields) if "sequence" in fields else None
        if happened is None or at > known_at_ms or happened > at_ms:
            continue
        kind, last = type(event).__name__, fields["sequence"]
        flags += kind in ("CaseOpened", "RiskLinked")
        value += fields.get("amount_minor", 0)
        notes += kind == "NoteAdded"
        holders = {"CaseAssigned": 1, "CaseReleased": 0}.get(kind, holders)
    return (flags, value, notes, holders, last) if last else None


STEPS = st.lists(
    st.tuples(st.sampled_from(("flag", "flag", "restatement", "take", "release", "note")), st.integers(-30, 60)),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(-40, 70), st.integers(-2, 30))
def test_only_known_events_that_had_happened_count(steps: list[tuple[str, int]], at: int, known_at: int) -> None:
    known = recorded(steps)
    at_ms, known_at_ms = NOON + at * MINUTE_MS, NOON + known_at * MINUTE_MS
    view = case_as_of(known, at_ms, known_at_ms)
    found = view and (
        view.flags, view.value_minor.get("EUR", 0), view.notes, int(view.assignee is not None), view.sequence,
    )  # fmt: skip
    assert found == counted(known, at_ms, known_at_ms)


def test_late_payment_belongs_to_the_past_once_known() -> None:
    known = recorded([("take", 5), ("flag", -10)])
    before = NOON - 5 * MINUTE_MS
    assert case_as_of(known, before, NOON + MINUTE_MS) is None
    view = case_as_of(known, before)
    assert view is not None
    assert (view.flags, view.assignee, view.transactions) == (1, None, ["tx-2"])


def test_items_of_the_table_result_in_an_equal_history() -> None:
    known = recorded([("take", 5), ("flag", 6), ("note", 7)])
    items = [event_item(event, at_ms) for event, at_ms in known]
    assert known_events(items) == known
    assert [item["happened_at_ms"] for item in items] == [NOON + n * MINUTE_MS for n in (0, 5, 6, 7)]
    assert case_as_of(known_events(items), known_at_ms=NOON + MINUTE_MS) == case_as_of(known[:2])


def test_events_with_a_gap_are_refused() -> None:
    known = recorded([("take", 5), ("note", 7)])
    with pytest.raises(BrokenLog, match=f"case {CASE}: NoteAdded 3 after 1"):
        case_as_of([known[0], known[2]])


def test_a_redelivered_event_counts_once() -> None:
    known = recorded([("take", 5), ("note", 7)])
    later: list[KnownEvent] = [KnownEvent(event, at_ms + 10) for event, at_ms in known]
    assert case_as_of([*known, *later]) == case_as_of(known)
    event: CaseEvent = known[1].event
    assert case_as_of([known[0], known[1], KnownEvent(event, NOON)], known_at_ms=NOON) == case_as_of(known[:1])


def test_the_digest_of_the_views_does_not_depend_on_when_records_were_written() -> None:
    event = history(flag(1))[1][0]
    early, late = ({("case#1", "event#1"): event_item(event, known_at_ms)} for known_at_ms in (5, 6))
    other = {("case#1", "event#1"): {**event_item(event, 5), "body": "altered"}}
    assert views_digest(early) == views_digest(late) != views_digest(other)


def test_item_of_a_record_not_read_yet_is_no_difference() -> None:
    event = history(flag(1))[1][0]
    stored, place = {("case#1", "event#1"): event_item(event, 5)}, ("case#1", "event#1")
    assert compare_views(stored, {place: event_item(event)}).differences == []
    assert compare_views(stored, {place: event_item(event, 5)}).differences == []
    assert len(compare_views(stored, {place: event_item(event, 6)}).differences) == 1
    assert len(compare_views(stored, {place: {**event_item(event), "body": "other"}}).differences) == 1


@pytest.mark.parametrize(
    ("at_ms", "known_at_ms", "is_there"),
    [(None, None, True), (5, 8, True), (4, 8, False), (5, 7, False), (None, 7, False), (4, None, False)],
)
def test_item_exists_once_it_has_happened_and_is_known(
    at_ms: int | None, known_at_ms: int | None, is_there: bool
) -> None:
    assert is_visible_at({"happened_at_ms": 5, "known_at_ms": 8}, at_ms, known_at_ms) is is_there
