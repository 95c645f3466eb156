"""cases.events to the case views: reads as one of a consumer group, writes idempotently, commits what was written."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from confluent_kafka import Consumer

from domain.case import BrokenLog
from domain.events import CaseAnswer, SequencedCaseEvent
from projections.case_history import Known
from projections.case_table import CaseTable, DynamoCaseTable
from projections.case_view import CaseView, event_item, project
from projections.log import MAX_BATCH, as_record
from projections.stores import StoreOptions, dynamodb_client
from projections.worker import EVENTS, PARKED, POLL_S, WRITTEN, Stop, complain, decoded, parser, serve_metrics
from schemas.codec import Decoder
from schemas.registry import Registry

NAME = "case-views"
HOT_CASES = 100_000
"""Views that are kept in memory; others are read back from the table."""
MAX_ROUNDS = 5
"""How often a view is tried again that another worker has overtaken."""


class Projector:
    """Brings the views up to date, batch by batch. A case whose events have a gap stands still, alone, and loudly."""

    def __init__(self, table: CaseTable) -> None:
        self._table = table
        self._views: OrderedDict[str, CaseView] = OrderedDict()
        self.parked: dict[str, str] = {}

    def apply(self, events: Sequence[Known]) -> None:
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
        try:
            for event in events:
                view = project(view, event)
        except BrokenLog as broken:
            self.parked[case_id] = str(broken)
            PARKED.set(len(self.parked))
            complain(f"the view of case {case_id} stands still: {broken}. Its events are kept")
        if view is None or view.sequence == before:
            return None
        return view, before

    def _keep(self, view: CaseView) -> None:
        self._views[view.case_id] = view
        self._views.move_to_end(view.case_id)
        if len(self._views) > HOT_CASES:
            self._views.popitem(last=False)


def main() -> None:
    """Run until told to stop."""
    options = parser()
    options.add_argument("--dynamodb-url", help="default: AWS's own")
    options.add_argument("--table", required=True)
    known = options.parse_args()
    stop = Stop()
    table = DynamoCaseTable(dynamodb_client(StoreOptions(url=known.dynamodb_url)), known.table)
    projector, decoder = Projector(table), Decoder(Registry(known.registry).schema_text)
    topic = known.topics.cases_events
    consumer = Consumer(
        {
            "bootstrap.servers": known.bootstrap,
            "group.id": f"{topic}-{NAME}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6_000,  # the least that brokers allow: how long a killed worker's share waits
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.subscribe([topic])
    serve_metrics(known.metrics_port)
    while not stop.is_set:
        messages = consumer.consume(MAX_BATCH, timeout=POLL_S)
        if not messages:
            continue
        events = decoded(decoder, map(as_record, messages))
        if stop.persist(partial(projector.apply, events)):
            consumer.commit(asynchronous=True)
        EVENTS.labels(NAME, topic).inc(len(messages))
        WRITTEN.labels(NAME, "events").inc(len(messages))
    consumer.close()


if __name__ == "__main__":
    main()
