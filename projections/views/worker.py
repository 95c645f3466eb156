"""View worker: cases.events to the case views. It reads in a consumer group, writes idempotently, then commits."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from confluent_kafka import Consumer

from domain.cases.events import CaseAnswer, SequencedCaseEvent
from domain.cases.state import BrokenLog
from projections.logs.known import KnownEvent
from projections.logs.worker import EVENTS, PARKED, WRITTEN, StopSignal, complain, decode_case_events, poll_records
from projections.views.case_table import CaseTable
from projections.views.case_view import CaseView, event_item, project
from schemas.codec import Decoder

NAME = "case-views"
HOT_CASES = 100_000
"""Views kept in memory; others are read from the table."""
MAX_ROUNDS = 5
"""Attempts to store a view that other workers change at the same time."""


class ViewProjector:
    """Updates views batch by batch. A case with a missing event is not updated, and is reported."""

    def __init__(self, table: CaseTable) -> None:
        self._table = table
        self._views: OrderedDict[str, CaseView] = OrderedDict()
        self.parked: dict[str, str] = {}

    def apply(self, events: Sequence[KnownEvent]) -> None:
        """Store the events, and one new view for each of their cases. Raises RuntimeError after MAX_ROUNDS."""
        by_case: dict[str, list[SequencedCaseEvent]] = {}
        for event, _ in events:
            if not isinstance(event, CaseAnswer):
                by_case.setdefault(event.case_id, []).append(event)
        items = [event_item(event, known_at_ms) for event, known_at_ms in events]
        for attempt in range(MAX_ROUNDS):
            held = [
                (self._current_view(case_id, found, is_first=attempt == 0), found) for case_id, found in by_case.items()
            ]
            pairs = [pair for view, found in held if (pair := self._advance(view, found))]
            refused = self._table.save(pairs, items)
            for view, _before in pairs:
                self._keep(view)
            for case_id in refused:  # another worker wrote it: read it from the table again
                self._views.pop(case_id, None)
            by_case = {case_id: by_case[case_id] for case_id in refused}
            items = []
            if not by_case:
                return
        raise RuntimeError(
            f"cases {sorted(by_case)[:3]} were changed by another writer {MAX_ROUNDS} times. Run one view worker only"
        )

    def _current_view(self, case_id: str, events: Sequence[SequencedCaseEvent], *, is_first: bool) -> CaseView | None:
        """Return the stored view of a case. A new case is not looked up; if it exists, the table refuses the write."""
        if case_id in self._views:
            return self._views[case_id]
        return None if is_first and events[0].sequence == 1 else self._table.view(case_id)

    def _advance(self, view: CaseView | None, events: Sequence[SequencedCaseEvent]) -> tuple[CaseView, int] | None:
        case_id, before = events[0].case_id, view.sequence if view else 0
        for event in events:
            try:
                view = project(view, event)
            except BrokenLog as broken:  # event by event, so that the result does not depend on the batches
                self._park(case_id, str(broken))
        if view is None or view.sequence == before:
            return None
        return view, before

    def _park(self, case_id: str, why: str) -> None:
        if case_id not in self.parked:
            complain(f"the view of case {case_id} is no longer updated: {why}. Its events are still stored")
        self.parked[case_id] = why
        PARKED.set(len(self.parked))

    def _keep(self, view: CaseView) -> None:
        self._views[view.case_id] = view
        self._views.move_to_end(view.case_id)
        if len(self._views) > HOT_CASES:
            self._views.popitem(last=False)


class ViewTarget(NamedTuple):
    """Target of the worker: a version of the views, its table, and its consumer group."""

    version: int
    table: CaseTable
    group: str


def group_of(topic: str, version: int) -> str:
    """Return the consumer group of a version, whose committed offsets are the position of that version's table.

    Each version has its own offsets, so a worker that changes versions neither loses nor repeats events.
    """
    return f"{topic}-{NAME}" if version == 1 else f"{topic}-{NAME}-v{version}"


class LiveVersionChanged(Exception):
    """Signal: another version is live. The pending events are read again for its table, from its offsets."""


def consumer_of(bootstrap: str, group: str) -> Consumer:
    """Return a consumer of a version's group."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6_000,  # the brokers' minimum: how long a killed worker's partitions wait
        }
    )


def work(bootstrap: str, topic: str, decoder: Decoder, target: Callable[[], ViewTarget], stop: StopSignal) -> None:
    """Update the live version until a stop is requested; `target` returns the version that is live at the time."""
    while not stop.is_set:
        now = target()
        consumer = consumer_of(bootstrap, now.group)
        consumer.subscribe([topic])
        try:
            _project_until_stopped(consumer, topic, decoder, now, lambda held=now: _check_live(held, target()), stop)  # type: ignore[misc]
        except LiveVersionChanged as moved:
            complain(str(moved))
        finally:
            consumer.close()


def _check_live(held: ViewTarget, now: ViewTarget) -> None:
    if now.version != held.version:
        raise LiveVersionChanged(
            f"version {now.version} of the case views is live: changing from {held.group} to {now.group}"
        )


def _project_until_stopped(
    consumer: Consumer, topic: str, decoder: Decoder, held: ViewTarget, check_live: Callable[[], None], stop: StopSignal
) -> None:
    projector = ViewProjector(held.table)
    PARKED.set(0)  # clears the count of the previous version

    def write(events: Sequence[KnownEvent]) -> None:
        check_live()
        projector.apply(events)

    while not stop.is_set:
        taken = poll_records(consumer)
        if not taken:
            check_live()
            continue
        events = decode_case_events(decoder, taken)
        if stop.persist(partial(write, events)):
            consumer.commit(asynchronous=True)
        EVENTS.labels(NAME, topic).inc(len(taken))
        WRITTEN.labels(NAME, "events").inc(len(taken))
