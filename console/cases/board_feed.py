"""Feed of the board: follow cases.events, update the board, and keep the last changes for watchers."""

import gc
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import Consumer, TopicPartition

from console.cases.board import CaseBoard
from console.cases.board_row import row_of
from console.views.live_table import LiveCaseTable
from console.watchers import Watchers
from domain.cases.events import CaseAnswer, CaseEvent
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.log import LogRecord
from projections.logs.worker import complain, decode_case_events
from projections.views.case_view import CaseView, Item, event_item
from projections.views.worker import group_of

MAX_CHANGES: Final = 10_000
"""Maximum number of changes kept for watchers that reconnect."""
POLL_S: Final = 0.05
RETRY_S: Final = 2.0
RECONCILE_EVERY_S: Final = 1_800.0
Offsets = tuple[int, ...]
"""Position in cases.events: the next offset of each partition, by partition number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseChange:
    """One event of a case for watchers. `after` is the position of the log after the event."""

    partition: int
    offset: int
    after: Offsets
    kind: str
    case_id: str
    sequence: int | None
    """Sequence of the event; None for an answer that does not change the case."""
    body: str
    item: Item
    """Item of the event in the table."""


class CaseChangeBuffer:
    """The last MAX_CHANGES changes, numbered from the start of the process. Watchers are called on the feed's
    thread.
    """

    def __init__(self, start: Offsets = ()) -> None:
        self._lock = threading.Lock()
        self._kept: deque[CaseChange] = deque()
        self._first = 0
        self._since = start
        self._watchers = Watchers()
        self._told: Callable[[CaseChange], None] = lambda _: None

    def start_from(self, offsets: Offsets) -> None:
        """Set the log position before the first change."""
        with self._lock:
            self._since = offsets

    @property
    def offsets(self) -> Offsets:
        """Return the log position after the last change."""
        with self._lock:
            return self._kept[-1].after if self._kept else self._since

    @property
    def end(self) -> int:
        """Return the number of the next change."""
        with self._lock:
            return self._first + len(self._kept)

    def add(self, change: CaseChange) -> None:
        """Add a change, forget the oldest one if the buffer is full, and call the watchers."""
        self._told(change)
        with self._lock:
            self._kept.append(change)
            if len(self._kept) > MAX_CHANGES:
                gone = self._kept.popleft()
                self._first += 1
                self._since = gone.after
        self._watchers.notify()

    def since(self, number: int) -> tuple[list[CaseChange], int]:
        """Return the changes from a number on, and the number of the next change."""
        with self._lock:
            skip = max(0, number - self._first)
            return [self._kept[at] for at in range(skip, len(self._kept))], self._first + len(self._kept)

    def missed(self, seen: Offsets) -> list[CaseChange] | None:
        """Return the changes after a log position, or None if the buffer no longer holds all of them."""
        with self._lock:
            is_kept = len(seen) == len(self._since) and all(map(int.__ge__, seen, self._since))
            if not is_kept:
                return None
            return [change for change in self._kept if change.offset >= seen[change.partition]]

    def tell(self, told: Callable[[CaseChange], None]) -> None:
        """Set the function that gets each change before the watchers."""
        self._told = told

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call a function after each change. Return the function that ends this."""
        return self._watchers.add(watcher)


class BoardFeed:
    """Thread that reads cases.events into the board."""

    def __init__(
        self,
        logs: KafkaLogs,
        table: LiveCaseTable,
        stored: Callable[[str, list[Item]], None],
    ) -> None:
        self._logs, self._topic = logs, logs.topics.cases_events
        self._table = table
        self._stored = stored
        """Function that gets the id and the items of each case, without its view, once after the board is filled."""
        self._decoder = logs.decoder()
        self._ended = threading.Event()
        self.board = CaseBoard(table.view)
        self.changes = CaseChangeBuffer()
        self.is_ready = False
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def start(self) -> None:
        """Start to fill the board. `is_ready` becomes True when the board has caught up with the log."""
        self._thread.start()
        threading.Thread(target=self._reconcile, name="board-reconcile", daemon=True).start()

    def _reconcile(self) -> None:
        """Compare the board with the table every RECONCILE_EVERY_S, because an index of the table can lag."""
        while not self.is_ready and not self._ended.wait(POLL_S):
            pass
        self._tell_stored()
        while not self._ended.wait(RECONCILE_EVERY_S):
            try:
                behind = sum(self.board.put(view) for view in self._table.views() if not self._ended.is_set())
            except (BotoCoreError, ClientError) as error:
                complain(f"the board could not be compared with the table: {error}")
            else:
                if behind:
                    complain(f"the table had a later version of {behind} cases than the board")

    def stop(self) -> None:
        """Stop the thread."""
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except Exception as error:  # a board that no longer follows the log must say so and start again
                self.is_ready = False
                complain(f"the board starts again: {type(error).__name__}: {error}")
                self._ended.wait(RETRY_S)

    def _follow(self) -> None:
        version, table = self._table.now()
        starts = self._starts(group_of(self._topic, version.number))
        self.changes.start_from(tuple(starts[number] for number in sorted(starts)))
        log = self._logs.reader()
        self._fill(table.views())
        if self._ended.is_set():
            return
        ends = log.ends(self._topic)
        follower = log.follow({(self._topic, number): offset for number, offset in starts.items()})
        position = dict(starts)
        try:
            while not self._ended.is_set():
                for record in follower.next(POLL_S):
                    position[record.partition] = record.offset + 1
                    self._take(record, tuple(position[number] for number in sorted(position)))
                self.is_ready = self.is_ready or all(position[number] >= end for number, end in ends.items())
        finally:
            follower.close()

    def _fill(self, views: Iterable[CaseView]) -> None:
        """Put the views on the board without garbage collection, which would pause the process for half a second."""
        gc.disable()
        try:
            for view in views:
                self.board.put(view)
                if self._ended.is_set():
                    return
            gc.freeze()
        finally:
            gc.enable()

    def _tell_stored(self) -> None:
        """Pass the table items of each case, except its view, to `stored`. A view comes after the other items of its
        case.
        """
        others: dict[str, list[Item]] = {}
        try:
            for item in self._table.scan():
                if item["sk"] == "view":
                    self._stored(item["case_id"], others.pop(item["pk"], []))
                else:
                    others.setdefault(item["pk"], []).append(item)
                if self._ended.is_set():
                    return
        except (BotoCoreError, ClientError) as error:
            complain(f"timelines could not be loaded and are read on demand: {error}")

    def _take(self, record: LogRecord, after: Offsets) -> None:
        for event, _ in decode_case_events(self._decoder, [record]):
            row = None
            if not isinstance(event, CaseAnswer):
                view = self.board.apply(event)
                row = row_of(view) if view else None
            self.changes.add(change_of(event, record, after, row))

    def _starts(self, group: str) -> dict[int, int]:
        """Return the offsets up to which the live view version is in its table, by partition."""
        consumer = Consumer({"bootstrap.servers": self._logs.bootstrap, "group.id": group})
        try:
            partitions = sorted(consumer.list_topics(self._topic, timeout=10).topics[self._topic].partitions)
            found = consumer.committed([TopicPartition(self._topic, number) for number in partitions], timeout=10)
            return {mark.partition: max(0, mark.offset) for mark in found}
        finally:
            consumer.close()


def change_of(event: CaseEvent, record: LogRecord, after: Offsets, row: dict[str, Any] | None) -> CaseChange:
    """Return the change that watchers get for an event, with the row of its case after it."""
    sequence: int | None = getattr(event, "sequence", None)
    body = {
        "kind": type(event).__name__,
        "case_id": event.case_id,
        "sequence": sequence,
        "actor": getattr(event, "actor", None),
        "known_at_ms": record.timestamp_ms,
        "row": row,
    }
    return CaseChange(
        partition=record.partition,
        offset=record.offset,
        after=after,
        kind=type(event).__name__,
        case_id=event.case_id,
        sequence=sequence,
        body=json.dumps(body),
        item=event_item(event, record.timestamp_ms),
    )


def offsets_text(offsets: Offsets) -> str:
    """Return a log position as the id of a server-sent event."""
    return ".".join(map(str, offsets))


def offsets_of(text: str) -> Offsets | None:
    """Return the log position in the id of a server-sent event, or None if the id is malformed."""
    parts = text.split(".")
    if not parts or len(text) > 2_000 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return tuple(map(int, parts))


def server_sent_event(change: CaseChange) -> str:
    """Return a change as a server-sent event."""
    return f"id: {offsets_text(change.after)}\nevent: case\ndata: {change.body}\n\n"


def server_sent_events(changes: list[CaseChange]) -> Iterator[str]:
    """Return changes as server-sent events."""
    return map(server_sent_event, changes)
