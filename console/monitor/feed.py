"""A process of its own counts the live figures: what it costs, no page has to wait for, and nothing that decides.

It follows risk.scored and cases.inbox from some minutes ago. If it cannot keep up, it passes over what it has not read,
and says how much that was.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from console.cases.seen_payment import SeenPayment
from console.monitor.figures import SERIES_S, LiveFigures, RecentPayment
from console.monitor.health import ConsumerGroupMonitor
from console.views.versions import ViewVersions
from migrations.store import connect
from projections.logs.log import MAX_BATCH, KafkaLog, LogFollower, LogRecord
from projections.logs.worker import complain
from schemas.codec import Decoder, UnreadableRecord
from schemas.registry import SchemaRegistry
from schemas.topics import Topics

EVERY_S: Final = 1.0
"""How often figures are said."""
POLL_S: Final = 0.1
GATHERS_MS: Final = 100
BEHIND_MS: Final = 20_000
"""So far behind, records are passed over."""
PATIENCE_S: Final = 1.0
"""How long a page waits for remembered payments."""
RETRY_S: Final = 2.0
NICE: Final = 10
_FLAGS: Final = ("RiskFlagged", "EntityFlagged")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFeedSources:
    """Where the counting process reads."""

    bootstrap: str
    registry_url: str
    prefix: str
    view_metrics_url: str
    verifier_metrics_url: str = ""
    control_url: str = ""
    """The control store, which says which version of the views is live; empty: the first."""
    first_table: str = ""


class LiveFeed:
    """The counting process, seen from the console."""

    def __init__(self, sources: LiveFeedSources) -> None:
        self._sources = sources
        self._latest: Mapping[str, Any] = {}
        self._watchers: set[Callable[[], None]] = set()
        self._asked: dict[int, tuple[threading.Event, list[dict[str, RecentPayment]]]] = {}
        self._numbers, self._lock, self._ended = count(1), threading.Lock(), threading.Event()
        self._pipe: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="live-figures", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def stop(self) -> None:
        """No more of it."""
        self._ended.set()
        self._thread.join(10)

    def latest(self) -> Mapping[str, Any]:
        """The last snapshot; empty before there is one."""
        return self._latest

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call a function after each snapshot; returns what ends that."""
        with self._lock:
            self._watchers.add(watcher)

        def end() -> None:
            with self._lock:
                self._watchers.discard(watcher)

        return end

    def payments(self, account_id: str, wanted: Sequence[str]) -> dict[str, SeenPayment]:
        """Those of these payments of an account that are remembered, by id; none if nobody answers in time."""
        if not wanted:
            return {}
        number, answered, found = next(self._numbers), threading.Event(), list[dict[str, RecentPayment]]()
        with self._lock:
            if self._pipe is None:
                return {}
            try:
                self._pipe.send((number, account_id, list(wanted)))
            except OSError:
                return {}  # the process has just ended; whoever listens begins another
            self._asked[number] = (answered, found)
        answered.wait(PATIENCE_S)
        with self._lock:
            self._asked.pop(number, None)
        return seen_payments(found[0]) if found else {}

    def _run(self) -> None:
        while not self._ended.is_set():
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=_count, args=(self._sources, theirs), name="live-figures", daemon=True
            )
            process.start()
            theirs.close()
            with self._lock:
                self._pipe = ours
            self._listen(ours)
            with self._lock:
                self._pipe = None
            ours.close()
            process.terminate()
            process.join(10)
            self._ended.wait(RETRY_S)

    def _listen(self, pipe: Connection) -> None:
        """Until the process ends, or this one does."""
        while not self._ended.is_set():
            try:
                if not pipe.poll(0.5):
                    continue
                number, said = pipe.recv()
            except (EOFError, OSError):
                complain("the live figures are counted anew: the process that counted them has ended")
                return
            if number:
                self._answer(number, said)
            else:
                self._tell(said)

    def _tell(self, figures: Mapping[str, Any]) -> None:
        self._latest = figures
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()

    def _answer(self, number: int, payments: dict[str, RecentPayment]) -> None:
        with self._lock:
            asked = self._asked.get(number)
        if asked is not None:
            asked[1].append(payments)
            asked[0].set()


def seen_payments(payments: Mapping[str, RecentPayment]) -> dict[str, SeenPayment]:
    """Remembered payments as pages take them."""
    return {
        name: SeenPayment(
            transaction_id=paid.transaction_id, event_time=paid.event_time, amount_minor=paid.amount_minor,
            currency=paid.currency, merchant_id=paid.merchant_id, country=paid.country, channel=paid.channel,
            payment_method=paid.payment_method,
        )
        for name, paid in payments.items()
    }  # fmt: skip


# -- in the process that counts -------------------------------------------------------------------------


def _count(sources: LiveFeedSources, pipe: Connection) -> None:
    """Until the console goes, which ends the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    counting = LiveFigureCounter(sources)
    try:
        while True:
            wait_s = 0.0 if counting.read() else POLL_S
            while pipe.poll(wait_s):  # here, not for records: pages wait for what they ask, nobody for what is counted
                wait_s = 0.0
                number, account_id, wanted = pipe.recv()
                pipe.send((number, counting.figures.payments(account_id, wanted)))
            snapshot = counting.due()
            if snapshot is not None:
                pipe.send((0, snapshot))
    except (EOFError, OSError):
        pass  # the console has gone
    finally:
        counting.close()


class LiveFigureCounter:
    """The logs, and what is counted of them."""

    def __init__(self, sources: LiveFeedSources) -> None:
        topics = Topics(prefix=sources.prefix)
        self.figures = LiveFigures()
        self._log, self._topics = KafkaLog(sources.bootstrap), (topics.risk_scored, topics.cases_inbox)
        self._decoder = Decoder(SchemaRegistry(sources.registry_url).schema_text)
        self._positions = start_offsets(sources.bootstrap, self._topics, now_ms() - SERIES_S * 1000)
        self._follower: LogFollower = self._log.follow(self._positions, GATHERS_MS)
        self._readers = ConsumerGroupMonitor(
            sources.bootstrap, topics, sources.view_metrics_url, sources.verifier_metrics_url, live_version(sources)
        )
        self._said_s = time.monotonic()
        self._readers.start()

    def read(self) -> bool:
        """What has come; False if nothing has."""
        records = self._follower.poll(0)
        for record in records:
            self._positions[record.topic, record.partition] = record.offset + 1
            self._take(record)
        if len(records) == MAX_BATCH and records[-1].timestamp_ms < now_ms() - BEHIND_MS:
            self._pass_over()
        return bool(records)

    def due(self) -> dict[str, Any] | None:
        """Figures, if it is time for them."""
        if time.monotonic() - self._said_s < EVERY_S:
            return None
        self._said_s = time.monotonic()
        return self.figures.snapshot(now_ms(), self._readers.health())

    def close(self) -> None:
        """Let go of the connections."""
        self._readers.stop()
        self._follower.close()

    def _take(self, record: LogRecord) -> None:
        try:
            name, data = self._decoder.decode(record.value)
        except UnreadableRecord:
            return  # those who decide on it complain
        if name == "DecisionsMade":
            self.figures.scored(data["scored"], record.timestamp_ms)
        elif name in _FLAGS:
            self.figures.flagged(data, record.timestamp_ms)

    def _pass_over(self) -> None:
        for topic in self._topics:
            for partition, end in self._log.ends(topic).items():
                self.figures.skipped += max(0, end - self._positions.get((topic, partition), end))
                self._positions[topic, partition] = end
                self._follower.seek(topic, partition, end)


def start_offsets(bootstrap: str, topics: Iterable[str], since_ms: int) -> dict[tuple[str, int], int]:
    """The offsets of the first records since a time, or of the next ones."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "fraudcase-live", "enable.auto.commit": False})
    try:
        wanted = [
            TopicPartition(topic, number, since_ms)
            for topic in topics
            for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ]
        found = consumer.offsets_for_times(wanted, timeout=10)
        return {
            (mark.topic, mark.partition): mark.offset if mark.offset >= 0 else _end(consumer, mark) for mark in found
        }
    finally:
        consumer.close()


def _end(consumer: Consumer, mark: TopicPartition) -> int:
    marks = consumer.get_watermark_offsets(TopicPartition(mark.topic, mark.partition), timeout=10)
    if marks is None:
        raise KafkaException(f"{mark.topic} {mark.partition} does not say where it ends")
    return int(marks[1])


def live_version(sources: LiveFeedSources) -> Callable[[], int]:
    """Asks which version of the case views is live."""
    if not sources.control_url:
        return lambda: 1
    versions = ViewVersions(connect(sources.control_url), sources.first_table, now_ms)
    return lambda: versions.live().number


def now_ms() -> int:
    """The time."""
    return time.time_ns() // 1_000_000
