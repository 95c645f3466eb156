"""A seeded history of case events, the log that holds it, and the case table that results."""

import random
from collections.abc import Iterator
from itertools import count

from domain.cases.events import CaseEvent, CommandRejected
from domain.record_types import to_fields
from projections.logs.known import KnownEvent
from projections.logs.log import LogRecord
from projections.views.case_table import MemoryCaseTable
from projections.views.worker import ViewProjector
from schemas.catalog import all_schemas, latest
from schemas.codec import Decoder, Encoder
from tests.support.cases import flag, history

NAMES = sorted({schema.name for schema in all_schemas()})
ENCODER = Encoder({name: number for number, name in enumerate(NAMES, start=1)})
DECODER = Decoder(lambda number: latest(NAMES[number - 1]).text)
TOPIC = "cases.events"


def stream(seed: int, accounts: int = 12, *, has_gap: bool = True) -> list[KnownEvent]:
    """Return events of many cases, some delivered twice, some answers, and one case with a gap that is filled too
    late.

    A case with a gap stops until its events are read again, so it depends on the records that a worker reads twice. The
    case job writes no gaps.
    """
    draw, clock = random.Random(seed), count(1_000, 3)
    queues: list[list[CaseEvent]] = []
    for number in range(accounts):
        flags = [
            flag(
                n,
                account_id=f"a-{number}",
                transaction_id=f"t{number}-{n}",
                flag_id=f"f{number}-{n}",
                score=draw.randrange(500, 1_000),
            )
            for n in range(1, draw.randrange(2, 9))
        ]
        events: list[CaseEvent] = list(history(*flags)[1])
        if has_gap and number == 3 and len(events) > 2:
            events[1], events[2] = events[2], events[1]
        opened = events[0]
        events.insert(
            1,
            CommandRejected(
                account_id=f"a-{number}", case_id=opened.case_id, command_id=f"c{number}", actor="ana", reason="no",
                rejected_at_ms=1,
            ),
        )  # fmt: skip
        queues.append(events)
    found: list[KnownEvent] = []
    while any(queues):
        queue = draw.choice([queue for queue in queues if queue])
        found.append(KnownEvent(queue.pop(0), next(clock)))
        if draw.random() < 0.2:
            found.append(KnownEvent(draw.choice(found).event, next(clock)))  # redelivered, known later
    return found


class MemoryEventLog:
    """cases.events in memory, with two partitions."""

    def __init__(self, known: list[KnownEvent]) -> None:
        self.records: dict[int, list[LogRecord]] = {0: [], 1: []}
        for event, at_ms in known:
            partition = sum(event.account_id.encode()) % 2
            value = ENCODER.encode(type(event).__name__, to_fields(event))
            key, offset = event.account_id.encode(), len(self.records[partition])
            self.records[partition].append(LogRecord(TOPIC, partition, offset, at_ms, key, value, ()))

    def ends(self, _: str) -> dict[int, int]:
        return {number: len(records) for number, records in self.records.items()}

    def read(self, _: str, partition: int, until: int) -> Iterator[LogRecord]:
        return iter(self.records[partition][:until])


def live(known: list[KnownEvent], batch: random.Random | None = None) -> MemoryCaseTable:
    """Return the table that the worker stores, in batches."""
    table = MemoryCaseTable()
    projector, at = ViewProjector(table), 0
    while at < len(known):
        many = batch.randrange(1, 40) if batch else 1
        projector.apply(known[at : at + many])
        at += many
    return table
