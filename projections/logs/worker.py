"""Shared parts of all workers: command line, orderly stop, decoding of case events, Prometheus metrics."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterable
from threading import Event
from types import FrameType
from typing import ParamSpec, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import Consumer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from httpx2 import HTTPError
from prometheus_client import Counter, Gauge, start_http_server

from domain.cases.events import CaseEvent
from domain.record_types import from_fields
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.known import KnownEvent
from projections.logs.log import MAX_BATCH, LogRecord, poll_messages, to_log_record
from projections.logs.partition_writer import NotAcknowledged
from schemas.codec import Decoder, UnreadableRecord
from schemas.topics import Topics

EVENTS = Counter("fraudcase_worker_records", "Records that a worker has read", ["worker", "topic"])
WRITTEN = Counter("fraudcase_worker_written", "Items that a worker has stored", ["worker", "kind"])
PARKED = Gauge("fraudcase_worker_parked_cases", "Cases whose view is not updated because an event is missing")
POLL_S = 0.2
"""Seconds that a worker waits for a record before it checks for a stop request."""

RETRY_S = 1.0
P = ParamSpec("P")
T = TypeVar("T")


class StopSignal:
    """Stop request, set by SIGTERM and SIGINT. A worker checks it between batches, so it always completes a batch."""

    def __init__(self) -> None:
        self._event = Event()
        signal.signal(signal.SIGTERM, self._set)
        signal.signal(signal.SIGINT, self._set)

    def _set(self, _: int, __: FrameType | None) -> None:
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Return whether the worker is to stop."""
        return self._event.is_set()

    def persist(self, write: Callable[[], None]) -> bool:
        """Retry a write until the store accepts it or a stop is requested; return True if it was written.

        The worker waits while a store is unavailable, because the batches that follow would fail too.
        """
        while True:
            try:
                write()
            except (BotoCoreError, ClientError, NotAcknowledged) as error:
                complain(f"not stored, trying again: {error}")
                if self._event.wait(RETRY_S):
                    return False
            else:
                return True

    def retry_while_unavailable(self, ask: Callable[P, T]) -> Callable[P, T]:
        """Wrap a schema registry request: retry while the registry is unavailable, until a stop is requested.

        A worker that ended with the registry would not restart with it. Raises what the registry refuses (HTTP 4xx).
        """

        def retrying(*args: P.args, **kwargs: P.kwargs) -> T:
            while True:
                try:
                    return ask(*args, **kwargs)
                except (HTTPError, SchemaRegistryError) as error:
                    if isinstance(error, SchemaRegistryError) and 400 <= error.http_status_code < 500:
                        raise
                    complain(f"the schema registry does not answer, retrying: {error}")
                    if self._event.wait(RETRY_S):
                        raise

        return retrying


def parser() -> argparse.ArgumentParser:
    """Return a parser with the options of all workers."""
    options = argparse.ArgumentParser()
    options.add_argument("--bootstrap", required=True, help="Kafka's address")
    options.add_argument("--registry", required=True, help="the schema registry's address")
    options.add_argument("--prefix", type=lambda prefix: Topics(prefix=prefix), default=Topics(), dest="topics")
    options.add_argument("--metrics-port", type=int, required=True, help="port of the worker's Prometheus metrics")
    return options


def logs_of(options: argparse.Namespace) -> KafkaLogs:
    """Return the logs that the options of `parser` name."""
    return KafkaLogs(bootstrap=options.bootstrap, registry_url=options.registry, topics=options.topics)


def serve_metrics(port: int) -> None:
    """Serve Prometheus metrics on loopback."""
    start_http_server(port, addr="127.0.0.1")


def complain(message: str) -> None:
    """Write a message to standard error, where the stack keeps a worker's output."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def poll_records(consumer: Consumer, wait_s: float = POLL_S, limit: int = MAX_BATCH) -> list[LogRecord]:
    """Return up to `limit` records as soon as one arrives, or an empty list after `wait_s` seconds.

    Reports recoverable errors on standard error and skips them: for example, a worker that waited long for a store has
    lost its partitions and then continues from its committed position. Raises KafkaException on a fatal error.
    """
    records: list[LogRecord] = []
    for message in poll_messages(consumer, wait_s, limit):
        error = message.error()
        if error is None or error.fatal():
            records.append(to_log_record(message))
        else:
            complain(f"Kafka: {error.str()}")
    return records


def decode_case_events(decoder: Decoder, records: Iterable[LogRecord]) -> list[KnownEvent]:
    """Decode the case events in records, with their known-at times.

    Reports unreadable records on standard error and skips them; they stay in the log.
    """
    events: list[KnownEvent] = []
    for record in records:
        place = f"{record.topic} partition {record.partition} offset {record.offset}"
        try:
            name, data = decoder.decode(record.value)
            event = from_fields(name, data)
        except (UnreadableRecord, KeyError, TypeError) as error:
            complain(f"{place} is not a case event: {error}")
            continue
        if isinstance(event, CaseEvent):
            events.append(KnownEvent(event, record.timestamp_ms))
        else:
            complain(f"{place} is not a case event but a {name}")
    return events
