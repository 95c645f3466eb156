"""Runs the verifier of the case views: `python -m console.workers.view_verifier`, with the settings of its environment.

It keeps its position in the control store, so that a restart continues there. Differences go to its log, to Prometheus
and to the monitor page.
"""

import json
import os
import time
from collections.abc import Callable
from threading import Event
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.schema_registry.error import SchemaRegistryError
from httpx2 import HTTPError
from prometheus_client import Counter, Gauge

from console.times import now_ms
from console.views.live_table import LiveCaseTable
from console.views.versions import ViewVersions
from console.wiring import bucket, kafka_logs, live_case_table, view_versions
from infra.services import VERIFIER, metrics_port
from infra.settings import Settings
from projections.archive.archived_log import ArchivedLog
from projections.archive.bucket import Bucket
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.log import KafkaLog
from projections.logs.worker import StopSignal, complain, serve_metrics
from projections.views.verifier import CheckFindings, ViewVerifier, WorkPacer, first_findings
from projections.views.worker import group_of
from schemas.codec import Decoder

CHECKED = Counter("fraudcase_views_checked", "Cases whose stored view was compared with the log")
DIFFERING = Gauge("fraudcase_views_differing", "Cases that differed, in this round or in the whole one before it")
ROUNDS = Counter("fraudcase_views_rounds", "Times that all cases were compared")
LAST_ROUND = Gauge("fraudcase_views_last_full_round_timestamp_seconds", "When the last whole round ended; 0 for never")
NICE: Final = 15
ROUND_REST_S: Final = 30.0
"""Seconds between two rounds, so that a small system is not checked all the time."""
STEP_REST_S: Final = 0.5
RETRY_S: Final = 5.0


class VerificationRounds:
    """Rounds of verification: each checks all shards of the log, then looks for stored cases that no log record
    explains.
    """

    def __init__(self, verifier: ViewVerifier, versions: ViewVersions, now_ms: Callable[[], int]) -> None:
        self._verifier, self._versions, self._now_ms = verifier, versions, now_ms
        row = versions.check()
        self.state: dict[str, Any] = {
            "round": row.round if row else 1,
            "step": row.step if row else 0,
            "checked": row.checked if row else 0,
            "differing": row.differing if row else 0,
            "found": row.found if row else "[]",
            "last_round_at_ms": row.last_round_at_ms if row else None,
            "last_round_checked": row.last_round_checked if row else 0,
            "last_round_differing": row.last_round_differing if row else 0,
        }
        self._export()

    def step(self, table: LiveCaseTable, written_of: Callable[[int], dict[int, int]]) -> bool:
        """Check the next shard. Return True if that ended a round.

        `written_of` returns up to where a version's worker has written, by partition.
        """
        version, now = table.now()
        shares = self._verifier.shards()
        step = int(self.state["step"])
        if step < len(shares):
            written = written_of(version.number)
            found = self._verifier.check(shares[step], now, written)
        else:
            found = self._verifier.unknown_cases(now)
        if table.now()[0] != version:
            return False  # another version went live: repeat the step on it
        self._note(found)
        is_end = step >= len(shares)
        if is_end:
            self._end_round()
        else:
            self.state["step"] += 1
        self._versions.save_check(self.state)
        self._export()
        return is_end

    def _note(self, found: CheckFindings) -> None:
        for message in found.messages:
            complain(f"THE STORED VIEW DIFFERS FROM THE LOG: {message}")
        self.state["checked"] += found.checked
        self.state["differing"] += found.differing
        self.state["found"] = json.dumps(first_findings([*found.messages, *json.loads(self.state["found"])]))
        CHECKED.inc(found.checked)

    def _end_round(self) -> None:
        state = self.state
        state |= {
            "last_round_at_ms": self._now_ms(),
            "last_round_checked": state["checked"],
            "last_round_differing": state["differing"],
            "round": state["round"] + 1,
            "step": 0,
            "checked": 0,
            "differing": 0,
        }
        if not state["last_round_differing"]:
            state["found"] = "[]"
        ROUNDS.inc()

    def _export(self) -> None:
        DIFFERING.set(max(self.state["differing"], self.state["last_round_differing"]))
        LAST_ROUND.set((self.state["last_round_at_ms"] or 0) / 1000)


def committed_offsets(bootstrap: str, topic: str, group: str) -> dict[int, int]:
    """Return the committed offsets of a consumer group, by partition of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        numbers = sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        marks = consumer.committed([TopicPartition(topic, number) for number in numbers], timeout=10)
        return {mark.partition: max(0, mark.offset) for mark in marks}
    finally:
        consumer.close()


def source_of(logs: KafkaLogs, archive: Bucket) -> tuple[KafkaLog | ArchivedLog, Decoder]:
    """Return Kafka if it still holds cases.events from the start, else the archive, with the decoder of its records."""
    topic = logs.topics.cases_events
    consumer = Consumer({"bootstrap.servers": logs.bootstrap, "group.id": "fraudcase-reader"})
    try:
        numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        lows = [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[0] for number in numbers]
    finally:
        consumer.close()
    if any(lows):
        archived = ArchivedLog(archive)
        return archived, Decoder(archived.schema_text)
    return logs.reader(), logs.decoder()


def main() -> None:
    """Run until stopped by SIGTERM or SIGINT."""
    settings, stop, ended = Settings(), StopSignal(), Event()
    os.nice(NICE)
    logs, archive = kafka_logs(settings), bucket(settings)
    topic, table, versions = logs.topics.cases_events, live_case_table(settings), view_versions(settings)

    def wait(seconds: float) -> None:
        until = time.monotonic() + seconds
        while not stop.is_set and (left := until - time.monotonic()) > 0:
            ended.wait(min(0.2, left))

    serve_metrics(metrics_port(settings, VERIFIER))
    pace, rounds = WorkPacer(wait), None
    while not stop.is_set:
        try:
            if rounds is None:
                log, decoder = source_of(logs, archive)
                verifier = ViewVerifier(log, topic, decoder, pace.rest)
                rounds = VerificationRounds(verifier, versions, now_ms)
            is_end = rounds.step(
                table, lambda version: committed_offsets(logs.bootstrap, topic, group_of(topic, version))
            )
            wait(ROUND_REST_S if is_end else STEP_REST_S)
        except (BotoCoreError, ClientError, HTTPError, KafkaException, OSError, SchemaRegistryError) as error:
            complain(f"not verified, trying again: {error}")
            rounds = None
            wait(RETRY_S)


if __name__ == "__main__":
    main()
