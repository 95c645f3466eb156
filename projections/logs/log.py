"""Kafka logs, read record by record or by column. `archive/archived_log.py` reads the same logs from the archive."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from domain.record_types import from_fields
from domain.risk.events import DecisionsMade, DuplicateSeen, RiskScored
from schemas.codec import Decoder

MAX_BATCH = 5_000
QUEUED_KBYTES = 65_536
"""KiB that one reader prefetches, unless many read at once."""
_GATHER_BYTES = 262_144
"""Bytes at which the broker answers a gathering fetch at once."""
LEADERLESS_S, ASK_AGAIN_S = 30.0, 0.2
"""Seconds that a starting broker may take to become the leader of a partition, and seconds between two requests."""
_LEADERLESS = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


class LogRecord(NamedTuple):
    """One record of a log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class ColumnBatch(NamedTuple):
    """Consecutive records of one partition, by column."""

    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    values: Sequence[bytes | None]


class RecordLog(Protocol):
    """A log read record by record: from Kafka or from the archive."""

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record, by partition."""

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """Yield the records of a partition from its start up to, not including, offset `until`."""


def end_offset(consumer: Consumer, partition: TopicPartition) -> int:
    """Return the offset after the last record of a partition.

    Retry for LEADERLESS_S while the broker is not yet the leader of the partition. Raises KafkaException.
    """
    begun = time.monotonic()
    while True:
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=10)[1])
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() - begun > LEADERLESS_S:
                raise
        time.sleep(ASK_AGAIN_S)


class KafkaLog:
    """The logs of a broker, read without a consumer group: the reader keeps its own position."""

    def __init__(self, bootstrap: str, queued_kbytes: int = QUEUED_KBYTES) -> None:
        """Read from `bootstrap`, prefetching at most `queued_kbytes` KiB per reader; keep it small if many read at
        once.
        """
        self._bootstrap = bootstrap
        self._queued_kbytes = queued_kbytes
        self._metadata_consumer: Consumer | None = None

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record, by partition."""
        self._metadata_consumer = self._metadata_consumer or self._consumer()  # kept: connecting is the slow part
        consumer = self._metadata_consumer
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        marks = {number: TopicPartition(topic, number) for number in sorted(partitions)}
        return {number: end_offset(consumer, mark) for number, mark in marks.items()}

    def read(self, topic: str, partition: int, until: int, start: int = 0) -> Iterator[LogRecord]:
        """Yield the records of a partition from offset `start` up to, not including, offset `until`."""
        if until <= start:
            return
        consumer = self._consumer()
        try:
            consumer.assign([TopicPartition(topic, partition, start)])
            following = start
            while following < until:
                for message in _take_next(consumer, until - following):
                    record = to_log_record(message)
                    following = record.offset + 1
                    if following <= until:
                        yield record
        finally:
            consumer.close()

    def batches(self, topic: str, partition: int, until: int) -> Iterator[ColumnBatch]:
        """Yield the records of a partition up to, not including, offset `until`, as columns.

        Faster than `read`, which makes a tuple for each record.
        """
        if until <= 0:
            return
        consumer = self._consumer()  # a new one: a consumer at the end of a partition is in a fetch of half a second
        try:
            consumer.assign([TopicPartition(topic, partition, 0)])
            last = -1
            while last < until - 1:
                messages = _take_next(consumer, until - 1 - last)
                if not messages:
                    continue
                offsets = [message.offset() for message in messages]
                for message in messages if min(offsets) < 0 or any(message.error() for message in messages) else ():
                    to_log_record(message)  # raises the error of the message
                last = offsets[-1]
                if last >= until:
                    messages = [message for message in messages if message.offset() < until]
                    offsets = offsets[: len(messages)]
                times = [message.timestamp()[1] for message in messages]
                yield ColumnBatch(offsets, times, [message.value() for message in messages])
        finally:
            consumer.close()

    def offset_after(self, topic: str, partition: int, until_ms: int) -> int | None:
        """Return the offset of the first record later than `until_ms`, or None if there is none."""
        consumer = self._consumer()
        try:
            found = consumer.offsets_for_times([TopicPartition(topic, partition, until_ms + 1)], timeout=10)[0]
            return found.offset if found.offset >= 0 else None
        finally:
            consumer.close()

    def follow(self, starts: Mapping[tuple[str, int], int], max_gather_ms: int = 0) -> "LogFollower":
        """Follow many partitions from these offsets on.

        `max_gather_ms` is how long the broker may wait to answer with more records at once. A large value costs the
        broker less and delays records.
        """
        gather_options = {"fetch.wait.max.ms": max_gather_ms, "fetch.min.bytes": _GATHER_BYTES} if max_gather_ms else {}
        return LogFollower(self._consumer(gather_options), starts)

    def _consumer(self, options: Mapping[str, Any] | None = None) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "fraudcase-reader",  # required by the client, never committed to
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "queued.max.messages.kbytes": self._queued_kbytes,
                **(options or {}),
            }
        )


class LogFollower:
    """A consumer at the tail of partitions."""

    def __init__(self, consumer: Consumer, starts: Mapping[tuple[str, int], int]) -> None:
        self._consumer = consumer
        self._consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in starts.items()])

    def poll(self, wait_s: float) -> list[LogRecord]:
        """Wait `wait_s` seconds and return the records that arrived; return earlier once there are MAX_BATCH."""
        return [to_log_record(message) for message in self._consumer.consume(MAX_BATCH, timeout=wait_s)]

    def next(self, wait_s: float) -> list[LogRecord]:
        """Return the next records as soon as any arrive, or an empty list after `wait_s` seconds."""
        return [to_log_record(message) for message in poll_messages(self._consumer, wait_s)]

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Continue a partition from another offset."""
        self._consumer.seek(TopicPartition(topic, partition, offset))

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def _take_next(consumer: Consumer, records: int) -> list[Message]:
    """Return at most `records` messages. A higher limit than messages exist makes `consume` wait for its whole
    timeout.
    """
    messages: list[Message] = consumer.consume(min(MAX_BATCH, records), timeout=0.1)
    return messages


def poll_messages(consumer: Consumer, wait_s: float, limit: int = MAX_BATCH) -> list[Message]:
    """Return up to `limit` messages as soon as one arrives, or an empty list after `wait_s` seconds.

    `consume` alone waits for its whole timeout unless it reaches its limit.
    """
    first = consumer.poll(wait_s)
    return [] if first is None else [first, *consumer.consume(limit - 1, timeout=0)]


def to_log_record(message: Message) -> LogRecord:
    """Convert a message of the client library. Raises KafkaException if the message carries an error."""
    error = message.error()
    if error is not None:
        raise KafkaException(error)
    headers = tuple((name, value or b"") for name, value in message.headers() or ())
    return LogRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        headers,
    )


def decode_answers(record: LogRecord, decoder: Decoder) -> list[RiskScored | DuplicateSeen]:
    """Decode the answers in a record of risk.scored, in the order of the payments that they answer."""
    decisions = from_fields(*decoder.decode(record.value))
    place = f"{record.topic} partition {record.partition} offset {record.offset}"
    assert isinstance(decisions, DecisionsMade), f"{place} holds a {type(decisions).__name__}, not a DecisionsMade"
    return decisions.answers()
