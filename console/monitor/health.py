"""Health of the pipeline: the lag of each consumer group, the records in quarantine, and the views that differ."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from confluent_kafka import Consumer, KafkaException, TopicPartition
from sqlalchemy.exc import SQLAlchemyError

from projections.process_worker import NAME as PROCESS_WORKER
from projections.views.worker import group_of
from schemas.topics import Topics

EVERY_S: Final = 3.0
FEW: Final = 2_000
"""Records of lag that still count as up to date: jobs commit their offsets only with each checkpoint."""
STILL_S: Final = 60.0
"""Seconds without progress, despite a lag, after which a group counts as stopped."""
LATELY_S: Final = 300.0
TIMEOUT_S: Final = 5
_PARKED: Final = "fraudcase_worker_parked_cases"
_DIFFERING: Final = "fraudcase_views_differing"
_CHECKED: Final = "fraudcase_views_checked_total"
_ROUND: Final = "fraudcase_views_last_full_round_timestamp_seconds"


@dataclass(slots=True)
class MonitoredGroup:
    """A consumer group of a log: its committed position, its lag and the time of its last progress."""

    name: str
    topic: str
    consumer: Consumer
    lag: int | None = None
    end: int = 0
    read: int = -1
    moved_s: float = field(default_factory=time.monotonic)
    upto_date_s: float = field(default_factory=time.monotonic)

    def refresh(self, now_s: float) -> None:
        """Read the group's committed offsets and the ends of its log. Raise KafkaException."""
        numbers = sorted(self.consumer.list_topics(self.topic, timeout=TIMEOUT_S).topics[self.topic].partitions)
        marks = [TopicPartition(self.topic, number) for number in numbers]
        ends = [self.consumer.get_watermark_offsets(mark, timeout=TIMEOUT_S) for mark in marks]
        done = [max(0, mark.offset) for mark in self.consumer.committed(marks, timeout=TIMEOUT_S)]
        read = sum(done)
        self.end = sum(high for _, high in ends)
        self.lag = sum(max(0, high - max(low, at)) for (low, high), at in zip(ends, done, strict=True))
        if read != self.read or self.lag == 0:
            self.read, self.moved_s = read, now_s
        if self.lag == 0:
            self.upto_date_s = now_s

    def behind_ms(self, now_s: float) -> int | None:
        """Return the milliseconds since the group had read everything, or None if that is not known."""
        if self.lag is None:
            return None
        return int(1000 * (now_s - self.upto_date_s)) if self.lag else 0

    def state(self, now_s: float) -> tuple[str, str]:
        """Return the state as a colour class and as words."""
        if self.lag is None:
            return "slow", "not read yet"
        if self.lag and now_s - self.moved_s > STILL_S:
            return "bad", "stalled"
        return ("well", "keeps up") if self.lag <= FEW else ("slow", "catches up")


def read_figures(url: str, *names: str) -> list[int] | None:
    """Return these metrics of one of our programs, or None unless it exports all of them."""
    if not url:
        return None
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - our own, on loopback
            text = answer.read().decode()
        found = [re.search(rf"^{name}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", text, re.MULTILINE) for name in names]
        return [int(float(each[1])) for each in found if each] if all(found) else None
    except (URLError, OSError, ValueError):
        return None


class ConsumerGroupMonitor:
    """All consumer groups of the pipeline, read every EVERY_S seconds in a thread of its own."""

    def __init__(
        self,
        bootstrap: str,
        topics: Topics,
        view_metrics_url: str,
        verifier_metrics_url: str = "",
        live_version: Callable[[], int] = lambda: 1,
    ) -> None:
        def consumer(group: str) -> Consumer:
            return Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})

        self._consumer, self._live_version, self._version = consumer, live_version, 1
        self._views = MonitoredGroup("case views", topics.cases_events, consumer(group_of(topics.cases_events, 1)))
        self._readers = [
            MonitoredGroup("risk job", topics.payments_inbound, consumer(f"{topics.payments_inbound}-risk")),
            MonitoredGroup("entity job", topics.entities_inbound, consumer(f"{topics.entities_inbound}-entity")),
            MonitoredGroup("case job", topics.cases_inbox, consumer(f"{topics.cases_inbox}-case")),
            self._views,
            MonitoredGroup("process worker", topics.cases_events, consumer(f"{topics.cases_events}-{PROCESS_WORKER}")),
        ]
        self._quarantine, self._metrics_url = topics.quarantine, view_metrics_url
        self._verifier_url = verifier_metrics_url
        self._quarantined: deque[tuple[float, int]] = deque()
        self._parked: int | None = None
        self._verified: dict[str, int] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._ended.set()
        self._thread.join(TIMEOUT_S)

    def health(self) -> Mapping[str, Any]:
        """Return the state of the pipeline as last read."""
        now_s = time.monotonic()
        rows = []
        for reader in self._readers:
            state, words = reader.state(now_s)
            rows.append(
                {"name": reader.name, "topic": reader.topic, "lag": reader.lag, "end": reader.end, "state": state,
                 "words": words}
            )  # fmt: skip
        troubled = [f"{row['name']} {row['words']}" for row in rows if row["state"] == "bad"]
        if self._verified and self._verified["differing"]:
            troubled.append("stored views differ from the log")
        views = self._views
        last = self._quarantined[-1][1] if self._quarantined else 0
        return {
            "worst": ", ".join(troubled) or "well",
            "readers": rows,
            "views_behind_ms": views.behind_ms(now_s),
            "quarantined": last,
            "quarantined_lately": last - self._quarantined[0][1] if self._quarantined else 0,
            "parked": self._parked,
            "verified": self._verified,
        }  # fmt: skip

    def _run(self) -> None:
        while not self._ended.is_set():
            self._follow_live_version()
            for reader in self._readers:
                try:
                    reader.refresh(time.monotonic())
                except KafkaException:
                    reader.lag = None  # the broker is unavailable: the page says so
            self._read_quarantine()
            self._read_metrics()
            self._ended.wait(EVERY_S)

    def _read_quarantine(self) -> None:
        now_s, consumer = time.monotonic(), self._views.consumer
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(self._quarantine, 0), timeout=TIMEOUT_S)
            self._quarantined.append((now_s, high - low))
        except (KafkaException, TypeError):
            pass  # keep the last reading
        while self._quarantined and self._quarantined[0][0] < now_s - LATELY_S:
            self._quarantined.popleft()

    def _read_metrics(self) -> None:
        parked = read_figures(self._metrics_url, _PARKED)
        self._parked = parked[0] if parked else None
        verified = read_figures(self._verifier_url, _DIFFERING, _CHECKED, _ROUND)
        self._verified = dict(zip(("differing", "checked", "round_at_s"), verified, strict=True)) if verified else None

    def _follow_live_version(self) -> None:
        """Watch the consumer group of the live version of the views, which changes with a switch."""
        try:
            version = self._live_version()
        except SQLAlchemyError:
            return  # keep the last reading
        if version != self._version:
            self._views.consumer.close()
            self._views.consumer, self._version = self._consumer(group_of(self._views.topic, version)), version
