"""Counts the live figures in a process of its own, so that neither pages nor decisions wait for it.

It follows risk.scored and cases.inbox from SERIES_S before its start. If it falls BEHIND_MS behind, it skips to the end
of the logs and reports the number of skipped records.
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
from console.times import now_ms
from console.views.versions import ViewVersions
from console.watchers import Watchers
from migrations.store import connect
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.log import MAX_BATCH, LogFollower, LogRecord
from projections.logs.worker import complain
from schemas.codec import UnreadableRecord

EVERY_S: Final = 1.0
"""Seconds between two snapshots."""
POLL_S: Final = 0.1
GATHERS_MS: Final = 100
BEHIND_MS: Final = 20_000
"""A counter that is this far behind skips to the end of the logs."""
PATIENCE_S: Final = 1.0
"""Seconds that a page waits for remembered payments."""
RETRY_S: Final = 2.0
NICE: Final = 10
_FLAGS: Final = ("RiskFlagged", "EntityFlagged")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFeedSources:
    """Addresses that the counting process reads from: plain data, since it is sent to that process."""

    logs: KafkaLogs
    view_metrics_url: str
    verifier_metrics_url: str = ""
    control_url: str = ""
    """URL of the control store, which names the live version of the views; empty: version 1."""
    first_table: str = ""


class LiveFeed:
    """The console's side of the counting process: starts it, keeps its last snapshot and asks it for payments."""

    def __init__(self, sources: LiveFeedSources) -> None:
        self._sources = sources
        self._latest: Mapping[str, Any] = {}
        self._watchers = Watchers()
        self._asked: dict[int, tuple[threading.Event, list[dict[str, RecentPayment]]]] = {}
        self._numbers, self._lock, self._ended = count(1), threading.Lock(), threading.Event()
        self._pipe: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="live-figures", daemon=True)

    def start(self) -> None:
        """Start the counting process."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the counting process."""
        self._ended.set()
        self._thread.join(10)

    def latest(self) -> Mapping[str, Any]:
        """Return the last snapshot; empty before the first one."""
        return self._latest

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` after each snapshot. Return a function that ends this."""
        return self._watchers.add(watcher)

    def payments(self, account_id: str, wanted: Sequence[str]) -> dict[str, SeenPayment]:
        """Return the remembered payments among `wanted` of an account, by id; wait PATIENCE_S at most."""
        if not wanted:
            return {}
        number, answered, found = next(self._numbers), threading.Event(), list[dict[str, RecentPayment]]()
        with self._lock:
            if self._pipe is None:
                return {}
            try:
                self._pipe.send((number, account_id, list(wanted)))
            except OSError:
                return {}  # the process has just ended; `_run` starts another
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
        """Take snapshots and answers until the counting process or this feed ends."""
        while not self._ended.is_set():
            try:
                if not pipe.poll(0.5):
                    continue
                number, answer = pipe.recv()
            except (EOFError, OSError):
                complain("the live figures restart from zero: the process that counted them has ended")
                return
            if number:
                self._answer(number, answer)
            else:
                self._publish(answer)

    def _publish(self, figures: Mapping[str, Any]) -> None:
        self._latest = figures
        self._watchers.notify()

    def _answer(self, number: int, payments: dict[str, RecentPayment]) -> None:
        with self._lock:
            asked = self._asked.get(number)
        if asked is not None:
            asked[1].append(payments)
            asked[0].set()


def seen_payments(payments: Mapping[str, RecentPayment]) -> dict[str, SeenPayment]:
    """Return remembered payments in the form that pages show."""
    return {
        name: SeenPayment(
            transaction_id=paid.transaction_id, event_time=paid.event_time, amount_minor=paid.amount_minor,
            currency=paid.currency, merchant_id=paid.merchant_id, country=paid.country, channel=paid.channel,
            payment_method=paid.payment_method,
        )
        for name, paid in payments.items()
    }  # fmt: skip


# -- in the counting process -------------------------------------------------------------------------


def _count(sources: LiveFeedSources, pipe: Connection) -> None:
    """Count until the console ends, which closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    counting = LiveFigureCounter(sources)
    try:
        while True:
            wait_s = 0.0 if counting.read() else POLL_S
            while pipe.poll(wait_s):  # waits here, not for records: pages wait for answers
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
    """The logs that are counted, the positions in them, and the figures."""

    def __init__(self, sources: LiveFeedSources) -> None:
        logs, self.figures = sources.logs, LiveFigures()
        self._log, self._topics = logs.reader(), (logs.topics.risk_scored, logs.topics.cases_inbox)
        self._decoder = logs.decoder()
        self._positions = start_offsets(logs.bootstrap, self._topics, now_ms() - SERIES_S * 1000)
        self._follower: LogFollower = self._log.follow(self._positions, GATHERS_MS)
        self._readers = ConsumerGroupMonitor(
            logs.bootstrap, logs.topics, sources.view_metrics_url, sources.verifier_metrics_url, live_version(sources)
        )
        self._snapshot_s = time.monotonic()
        self._readers.start()

    def read(self) -> bool:
        """Count the records that have arrived. Return False if there are none."""
        records = self._follower.poll(0)
        for record in records:
            self._positions[record.topic, record.partition] = record.offset + 1
            self._take(record)
        if len(records) == MAX_BATCH and records[-1].timestamp_ms < now_ms() - BEHIND_MS:
            self._skip_to_end()
        return bool(records)

    def due(self) -> dict[str, Any] | None:
        """Return a snapshot if EVERY_S have passed since the last one, else None."""
        if time.monotonic() - self._snapshot_s < EVERY_S:
            return None
        self._snapshot_s = time.monotonic()
        return self.figures.snapshot(now_ms(), self._readers.health())

    def close(self) -> None:
        """Close the connections."""
        self._readers.stop()
        self._follower.close()

    def _take(self, record: LogRecord) -> None:
        try:
            name, data = self._decoder.decode(record.value)
        except UnreadableRecord:
            return  # the job that decides on it reports it
        if name == "DecisionsMade":
            self.figures.scored(data["scored"], record.timestamp_ms)
        elif name in _FLAGS:
            self.figures.flagged(data, record.timestamp_ms)

    def _skip_to_end(self) -> None:
        for topic in self._topics:
            for partition, end in self._log.ends(topic).items():
                self.figures.skipped += max(0, end - self._positions.get((topic, partition), end))
                self._positions[topic, partition] = end
                self._follower.seek(topic, partition, end)


def start_offsets(bootstrap: str, topics: Iterable[str], since_ms: int) -> dict[tuple[str, int], int]:
    """Return the offset of the first record since a time, by topic and partition; the end where there is none."""
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
        raise KafkaException(f"{mark.topic} {mark.partition} has no known end")
    return int(marks[1])


def live_version(sources: LiveFeedSources) -> Callable[[], int]:
    """Return a function that returns the number of the live version of the case views."""
    if not sources.control_url:
        return lambda: 1
    versions = ViewVersions(connect(sources.control_url), sources.first_table, now_ms)
    return lambda: versions.live().number
