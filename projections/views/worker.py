"""cases.events to the case views: reads as one of a consumer group, writes idempotently, commits what was written."""

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
"""Views that are kept in memory; others are read back from the table."""
MAX_ROUNDS = 5
"""How often a view is tried again that another worker has overtaken."""


class ViewProjector:
    """Brings the views up to date, batch by batch. A case whose events have a gap stands still, alone, and loudly."""

    def __init__(self, table: CaseTable) -> None:
        self._table = table
        self._views: OrderedDict[str, CaseView] = OrderedDict()
        self.parked: dict[str, str] = {}

    def apply(self, events: Sequence[KnownEvent]) -> None:
        """Store the events, and one new view for each case that they are about."""
        by_case: dict[str, list[SequencedCaseEvent]] = {}
        for event, _ in events:
            if not isinstance(event, CaseAnswer):
                by_case.setdefault(event.case_id, []).append(event)
        items = [event_item(event, known_at_ms) for event, known_at_ms in events]
        for attempt in range(MAX_ROUNDS):
            held = [(self._held(case_id, found, is_first=attempt == 0), found) for case_id, found in by_case.items()]
            pairs = [pair for view, found in held if (pair := self._advance(view, found))]
            refused = self._table.save(pairs, items)
            for view, _before in pairs:
                self._keep(view)
            for case_id in refused:  # somebody else wrote it: the table knows better than we do
                self._views.pop(case_id, None)
            by_case = {case_id: by_case[case_id] for case_id in refused}
            items = []
            if not by_case:
                return
        raise RuntimeError(f"cases {sorted(by_case)[:3]} were overtaken {MAX_ROUNDS} times: who else writes them?")

    def _held(self, case_id: str, events: Sequence[SequencedCaseEvent], *, is_first: bool) -> CaseView | None:
        """The view as it was. A case that opens is not looked up: if it is there after all, the table refuses it."""
        if case_id in self._views:
            return self._views[case_id]
        return None if is_first and events[0].sequence == 1 else self._table.view(case_id)

    def _advance(self, view: CaseView | None, events: Sequence[SequencedCaseEvent]) -> tuple[CaseView, int] | None:
        case_id, before = events[0].case_id, view.sequence if view else 0
        for event in events:
            try:
                view = project(view, event)
            except BrokenLog as broken:  # one by one: how records came in batches decides nothing
                self._park(case_id, str(broken))
        if view is None or view.sequence == before:
            return None
        return view, before

    def _park(self, case_id: str, why: str) -> None:
        if case_id not in self.parked:
            complain(f"the view of case {case_id} stands still: {why}. Its events are kept")
        self.parked[case_id] = why
        PARKED.set(len(self.parked))

    def _keep(self, view: CaseView) -> None:
        self._views[view.case_id] = view
        self._views.move_to_end(view.case_id)
        if len(self._views) > HOT_CASES:
            self._views.popitem(last=False)


class ViewTarget(NamedTuple):
    """Where the worker writes: a version of the view, its table, and the consumer group that vouches for it."""

    version: int
    table: CaseTable
    group: str


def group_of(topic: str, version: int) -> str:
    """The consumer group of a version: the offsets that it has committed say how far that version's table is.

    So another version has offsets of its own, and a worker that moves to it loses nothing and doubles nothing.
    """
    return f"{topic}-{NAME}" if version == 1 else f"{topic}-{NAME}-v{version}"


class LiveVersionChanged(Exception):
    """Another version is live: what was to be written belongs into its table, and comes again from its offsets."""


def consumer_of(bootstrap: str, group: str) -> Consumer:
    """A consumer of a version's group."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6_000,  # the least that brokers allow: how long a killed worker's share waits
        }
    )


def work(bootstrap: str, topic: str, decoder: Decoder, target: Callable[[], ViewTarget], stop: StopSignal) -> None:
    """Keep the live version up to date until told to stop; `target` says which one that is, whenever it is asked."""
    while not stop.is_set:
        now = target()
        consumer = consumer_of(bootstrap, now.group)
        consumer.subscribe([topic])
        try:
            _keep(consumer, topic, decoder, now, lambda held=now: _stay(held, target()), stop)  # type: ignore[misc]
        except LiveVersionChanged as moved:
            complain(str(moved))
        finally:
            consumer.close()


def _stay(held: ViewTarget, now: ViewTarget) -> None:
    if now.version != held.version:
        raise LiveVersionChanged(
            f"version {now.version} of the case views is live: {held.group} gives way to {now.group}"
        )


def _keep(
    consumer: Consumer, topic: str, decoder: Decoder, held: ViewTarget, stay: Callable[[], None], stop: StopSignal
) -> None:
    projector = ViewProjector(held.table)
    PARKED.set(0)  # of the version before, if there was one

    def write(events: Sequence[KnownEvent]) -> None:
        stay()
        projector.apply(events)

    while not stop.is_set:
        taken = poll_records(consumer)
        if not taken:
            stay()
            continue
        events = decode_case_events(decoder, taken)
        if stop.persist(partial(write, events)):
            consumer.commit(asynchronous=True)
        EVENTS.labels(NAME, topic).inc(len(taken))
        WRITTEN.labels(NAME, "events").inc(len(taken))
