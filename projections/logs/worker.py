"""What every worker shares: its command line, a stop in order, case events to read, and figures for Prometheus."""

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
from projections.logs.known import KnownEvent
from projections.logs.log import MAX_BATCH, LogRecord, poll_messages, to_log_record
from projections.logs.partition_writer import NotAcknowledged
from schemas.codec import Decoder, UnreadableRecord
from schemas.topics import Topics

EVENTS = Counter("fraudcase_worker_records", "Records that a worker has read", ["worker", "topic"])
WRITTEN = Counter("fraudcase_worker_written", "What a worker has stored", ["worker", "kind"])
PARKED = Gauge("fraudcase_worker_parked_cases", "Cases whose view stands still because an event cannot follow")
POLL_S = 0.2
"""How long a worker waits for a record before it looks whether it is to stop, or to move on."""

RETRY_S = 1.0
P = ParamSpec("P")
T = TypeVar("T")


class StopSignal:
    """Set by SIGTERM and SIGINT; a worker looks at it between batches, so that a batch is never cut."""

    def __init__(self) -> None:
        self._event = Event()
        signal.signal(signal.SIGTERM, self._set)
        signal.signal(signal.SIGINT, self._set)

    def _set(self, _: int, __: FrameType | None) -> None:
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()

    def persist(self, write: Callable[[], None]) -> bool:
        """Repeat a write until the store takes it, or until told to stop; True if it was written.

        A store that is away is waited for: what comes after the batch would only fail too.
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

    def patiently(self, ask: Callable[P, T]) -> Callable[P, T]:
        """A question to the schema registry that waits for it while it is away, until told to stop.

        A worker that ended with the registry would not come back with it. What the registry refuses, it raises.
        """

        def asked(*args: P.args, **kwargs: P.kwargs) -> T:
            while True:
                try:
                    return ask(*args, **kwargs)
                except (HTTPError, SchemaRegistryError) as error:
                    if isinstance(error, SchemaRegistryError) and 400 <= error.http_status_code < 500:
                        raise
                    complain(f"the schema registry does not answer: {error}")
                    if self._event.wait(RETRY_S):
                        raise

        return asked


def parser() -> argparse.ArgumentParser:
    """The options that all workers have."""
    options = argparse.ArgumentParser()
    options.add_argument("--bootstrap", required=True, help="Kafka's address")
    options.add_argument("--registry", required=True, help="the schema registry's address")
    options.add_argument("--prefix", type=lambda prefix: Topics(prefix=prefix), default=Topics(), dest="topics")
    options.add_argument("--metrics-port", type=int, required=True, help="where Prometheus finds the worker's figures")
    return options


def serve_metrics(port: int) -> None:
    """Answer Prometheus, on loopback."""
    start_http_server(port, addr="127.0.0.1")


def complain(message: str) -> None:
    """Say what is wrong where the stack keeps a worker's output."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def poll_records(consumer: Consumer, wait_s: float = POLL_S, most: int = MAX_BATCH) -> list[LogRecord]:
    """What has come, as soon as there is something; empty after the wait. Raises KafkaException.

    A worker that waited for a store for longer than brokers wait for a worker is told so where a record would be, and
    then reads on from what it had committed: what the client library gets over by itself, it complains of.
    """
    records: list[LogRecord] = []
    for message in poll_messages(consumer, wait_s, most):
        error = message.error()
        if error is None or error.fatal():
            records.append(to_log_record(message))
        else:
            complain(f"Kafka: {error.str()}")
    return records


def decode_case_events(decoder: Decoder, records: Iterable[LogRecord]) -> list[KnownEvent]:
    """The case events in records, with their times; what cannot be read is complained about, and stays in the log."""
    events: list[KnownEvent] = []
    for record in records:
        try:
            name, data = decoder.decode(record.value)
            event = from_fields(name, data)
        except (UnreadableRecord, KeyError, TypeError) as error:
            complain(f"{record.topic} {record.partition} {record.offset} is no case event: {error}")
            continue
        if isinstance(event, CaseEvent):
            events.append(KnownEvent(event, record.timestamp_ms))
        else:
            complain(f"{record.topic} {record.partition} {record.offset} is no case event but a {name}")
    return events
